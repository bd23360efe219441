package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/elbo-stream/elbo/internal/kafka"
)

type dialer = func(context.Context, string, string) (net.Conn, error)

// says is a server that reads a request and answers with the same bytes, whatever it
// was. "" hangs up at once; nil does not answer.
func says(words []byte) dialer {
	return func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			_, _ = theirs.Read(make([]byte, 1000))
			if words == nil {
				_, _ = theirs.Read(make([]byte, 1000)) // until it is closed
			}
			_, _ = theirs.Write(words)
		}()
		return ours, nil
	}
}

func TestOpenTellsWhichStepFailed(t *testing.T) {
	fails := func(err error) dialer {
		return func(context.Context, string, string) (net.Conn, error) { return nil, err }
	}
	for name, c := range map[string]struct {
		dial dialer
		want []string
	}{
		"name": {fails(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "broker1", IsNotFound: true}}),
			[]string{`broker1:9001: look up the name "broker1"`, `broker2:9002: look up the name`}},
		"refused": {fails(&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}),
			[]string{"broker1:9001: connect: ", "refused", "broker2:9002: connect: "}},
		"black hole": {func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
			[]string{"broker1:9001: connect: no answer within 4s", "firewalls", "broker2:9002"}},
		"no answer": {says(nil), []string{"broker1:9001: ask for its versions: connected, but no answer within 4s", "broker2:9002"}},
		"web server": {says([]byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request")),
			[]string{"broker1:9001", "no Kafka broker", "HTTP/1.1"}},
		"hangs up":          {says([]byte{}), []string{"broker1:9001", "closed right after the first request", "TLS"}},
		"short answer":      {says([]byte("\x00\x00\x00\x10\x00\x00")), []string{"broker1:9001: ask for its versions: ", "was closed"}},
		"impossible length": {says([]byte("\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x00\x7f\xff\xff\xff")), []string{"ApiVersions v0 is malformed"}},
		"long answer":       {says([]byte("\x00\xff\xff\xff\x00\x00\x00\x01\x00\x00\x7f\xff\xff\xff")), []string{"ask for its versions: read an answer"}},
		"other id":          {says([]byte("\x00\x00\x00\x0a\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00")), []string{"the answer is to request 7, want 1"}},
		"nothing":           {says([]byte("\x00\x00\x00\x00\x00\x00\x00\x00")), []string{"an answer of 0 bytes"}},
		"an error":          {says([]byte("\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x23\x00\x00\x00\x00")), []string{"ask for its versions: [35]"}},
		"few requests":      {says([]byte("\x00\x00\x00\x10\x00\x00\x00\x01\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x08")), []string{"the broker does not know Metadata requests"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				cluster, err := kafka.Open(t.Context(), kafka.Config{Brokers: []string{"broker1:9001", "broker2:9002"}, Dial: c.dial, DialTimeout: 4 * time.Second})
				if err == nil {
					t.Fatal("Open succeeds", cluster.Close())
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("it took %v, want 5 s at most", took)
				}
				wantWords(t, err, c.want...)
			})
		})
	}
}

func wantWords(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error = %q, want it to have %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error = %q, want one line", err)
	}
}

func TestOpenAsksBrokersTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t, 1, 2, 3)
		s.breakDial(1, nil)
		s.breakDial(2, nil)
		began := time.Now()
		s.open()
		if took := time.Since(began); took > time.Second {
			t.Errorf("Open took %v while two of three brokers do not answer, want 1 s at most", took)
		}
	})
}

// A request that is not answered must not leave its answer to the next one.
func TestUnansweredRequestEndsItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t, 1)
		c := s.open()
		late := make(chan struct{})
		s.on(kmsg.FindCoordinator, func(b int32, r kmsg.Request) kmsg.Response {
			<-late
			return s.coordinator(7)(b, r)
		})
		began := time.Now()
		_, err := c.AskAny(t.Context(), &findcoordinator.Request{Key: "g"})
		if !errors.Is(err, context.DeadlineExceeded) || !kafka.IsRetriable(err) {
			t.Errorf("AskAny = %v, want a retriable time-out", err)
		}
		if took := time.Since(began); took != 30*time.Second {
			t.Errorf("it took %v, want 30 s", took)
		}
		s.on(kmsg.FindCoordinator, s.coordinator(1))
		close(late)
		for range 3 {
			m, err := c.AskAny(t.Context(), &findcoordinator.Request{Key: "g"})
			if err != nil || m.(*findcoordinator.Response).NodeID != 1 {
				t.Errorf("AskAny = %v, %v; want broker 1", m, err)
			}
		}
		if s.dials != 2 {
			t.Errorf("%d connections, want 2", s.dials)
		}
		// The same when the caller gives up.
		s.on(kmsg.FindCoordinator, func(int32, kmsg.Request) kmsg.Response { return nil })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.AskAny(ctx, &findcoordinator.Request{Key: "g"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("AskAny = %v, want a time-out", err)
		}
		s.on(kmsg.FindCoordinator, s.coordinator(1))
		if m, err := c.AskAny(t.Context(), &findcoordinator.Request{Key: "g"}); err != nil || m.(*findcoordinator.Response).NodeID != 1 {
			t.Errorf("AskAny = %v, %v; want broker 1", m, err)
		}
	})
}

func TestCloseEndsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t, 1)
		s.on(kmsg.FindCoordinator, func(int32, kmsg.Request) kmsg.Response { return nil })
		c := s.open()
		errs := make(chan error, 3)
		for range cap(errs) { // one is sent, two wait for their turn
			go func() {
				_, err := c.AskAny(context.Background(), &findcoordinator.Request{Key: "g"})
				errs <- err
			}()
		}
		synctest.Wait()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		for range cap(errs) {
			if err := <-errs; err == nil {
				t.Error("a request succeeded after Close")
			}
		}
		if _, err := c.AskAny(t.Context(), &findcoordinator.Request{Key: "g"}); !errors.Is(err, kafka.ErrClosed) || kafka.IsRetriable(err) {
			t.Errorf("AskAny behind Close = %v, want ErrClosed", err)
		}
	})
}

func TestBrokerThatDoesNotAnswerIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t, 1, 2)
		c := s.open()
		s.on(kmsg.FindCoordinator, func(b int32, r kmsg.Request) kmsg.Response {
			if b == 1 {
				return nil
			}
			return s.coordinator(2)(b, r)
		})
		ask := func(want time.Duration) {
			t.Helper()
			began := time.Now()
			if _, err := c.AskAny(t.Context(), &findcoordinator.Request{Key: "g"}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > want {
				t.Errorf("it took %v, want %v at most", took, want)
			}
		}
		ask(time.Second)
		if _, err := c.AskBroker(t.Context(), 1, "x", &findcoordinator.Request{Key: "g"}); err == nil {
			t.Error("a broker that is silent answers")
		}
		ask(0) // it comes last now
		s.breakDial(1, nil)
		ask(0)
		s.mend(1)
		s.on(kmsg.FindCoordinator, s.coordinator(2))
		if _, err := c.AskBroker(t.Context(), 1, "x", &findcoordinator.Request{Key: "g"}); err != nil {
			t.Error(err)
		}
	})
}

func TestLanesDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t, 1)
		c := s.open()
		s.on(kmsg.ListOffsets, func(int32, kmsg.Request) kmsg.Response { return nil })
		done := make(chan error)
		go func() {
			_, err := c.AskBroker(t.Context(), 1, "fetch", &listoffsets.Request{ReplicaID: -1})
			done <- err
		}()
		synctest.Wait()
		began := time.Now()
		if _, err := c.AskBroker(t.Context(), 1, "produce", &findcoordinator.Request{Key: "g"}); err != nil || time.Since(began) > 0 {
			t.Errorf("a request on another lane: %v after %v", err, time.Since(began))
		}
		if err := <-done; err == nil {
			t.Error("no error of the request that got no answer")
		}
	})
}

func TestVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			span  [2]int16
			words []string
		}{
			"too old":   {[2]int16{0, 0}, []string{"versions 0 to 0 of ListOffsets", "this program 1 to 5", "a newer broker"}},
			"too new":   {[2]int16{9, 11}, []string{"versions 9 to 11 of ListOffsets", "an older broker"}},
			"not there": {[2]int16{0, -1}, []string{"does not know ListOffsets requests"}},
		} {
			s := newScript(t, 1)
			s.ranges[int16(kmsg.ListOffsets)] = c.span
			_, err := s.open().AskBroker(t.Context(), 1, "x", &listoffsets.Request{ReplicaID: -1})
			wantWords(t, err, c.words...)
			var versions *kafka.VersionError
			if !errors.As(err, &versions) || kafka.IsRetriable(err) || !kafka.IsPermanent(err) {
				t.Errorf("%s: error = %#v, want a permanent VersionError", name, err)
			}
		}
		s := newScript(t, 1)
		s.ranges[int16(kmsg.FindCoordinator)] = [2]int16{1, 1}
		if _, err := s.open().AskAny(t.Context(), &findcoordinator.Request{Key: "g"}); err != nil {
			t.Error(err)
		}
		if got := s.of(kmsg.FindCoordinator)[0].GetVersion(); got != 1 {
			t.Errorf("FindCoordinator v%d, want 1", got)
		}
	})
}

func TestLeader(t *testing.T) {
	tp := kafka.TopicPartition{Topic: "t", Partition: 1}
	t.Run("questions at the same time are one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newScript(t, 1, 2)
			s.lead("t", 1, 2)
			c := s.open()
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					if id, err := c.Leader(t.Context(), tp); id != 2 || err != nil {
						t.Errorf("Leader = %d, %v; want 2", id, err)
					}
				})
			}
			wg.Wait()
			if n := len(s.of(kmsg.Metadata)); n > 3 { // Open's, the first one's, and one for those behind it
				t.Errorf("%d metadata requests, want 3 at most", n)
			}
		})
	})
	t.Run("a leader that moves is followed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newScript(t, 1, 2)
			s.lead("t", 1, 1)
			c := s.open()
			for i := range 100 {
				want := int32(1 + i%2)
				s.lead("t", 1, want)
				c.Stale("t")
				began := time.Now()
				if id, err := c.Leader(t.Context(), tp); id != want || err != nil {
					t.Fatalf("Leader = %d, %v; want %d", id, err, want)
				}
				if took := time.Since(began); took > 20*time.Millisecond {
					t.Fatalf("move %d: seen after %v, want 20 ms at most", i, took)
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
	})
	t.Run("elections are waited for in patience", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newScript(t, 1)
			s.lead("t", 1, -1)
			c := s.open()
			for began := time.Now(); time.Since(began) < 10*time.Second; {
				if _, err := c.Leader(t.Context(), tp); !errors.Is(err, kafkago.LeaderNotAvailable) || !kafka.IsRetriable(err) {
					t.Fatalf("Leader = %v, want LEADER_NOT_AVAILABLE", err)
				}
			}
			if n := len(s.of(kmsg.Metadata)); n < 10 || n > 20 {
				t.Errorf("%d metadata requests in 10 s, want 10 to 20", n)
			}
			s.lead("t", 1, 1)
			if id, err := c.Leader(t.Context(), tp); id != 1 || err != nil {
				t.Errorf("Leader = %d, %v; want 1", id, err)
			}
		})
	})
}

func TestLeaderQuestions(t *testing.T) {
	tp := kafka.TopicPartition{Topic: "t", Partition: 1}
	t.Run("whose caller gives up is asked for by the next", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newScript(t, 1)
			s.lead("t", 1, 1)
			c := s.open()
			s.on(kmsg.Metadata, func(int32, kmsg.Request) kmsg.Response { return nil })
			ctx, cancel := context.WithCancel(t.Context())
			first, second := make(chan error), make(chan error)
			go func() { _, err := c.Leader(ctx, tp); first <- err }()
			synctest.Wait()
			go func() { _, err := c.Leader(t.Context(), tp); second <- err }()
			synctest.Wait()
			s.on(kmsg.Metadata, s.metadata)
			cancel()
			if err := <-first; !errors.Is(err, context.Canceled) {
				t.Errorf("error = %v, want context.Canceled", err)
			}
			if err := <-second; err != nil {
				t.Errorf("the other's question failed too: %v", err)
			}
		})
	})
	t.Run("what is not there", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newScript(t, 1)
			s.lead("t", 1)
			c := s.open()
			for _, tp := range []kafka.TopicPartition{{Topic: "none", Partition: 0}, {Topic: "t", Partition: 1}, {Topic: "t", Partition: -1}} {
				if _, err := c.Leader(t.Context(), tp); !errors.Is(err, kafkago.UnknownTopicOrPartition) {
					t.Errorf("Leader(%s) = %v, want UNKNOWN_TOPIC_OR_PARTITION", tp, err)
				}
			}
			if _, err := c.Leader(t.Context(), kafka.TopicPartition{Topic: "t"}); err != nil {
				t.Errorf("a topic that is there suffers from one that is not: %v", err)
			}
			if _, err := c.Partitions(t.Context(), "none"); !errors.Is(err, kafkago.UnknownTopicOrPartition) {
				t.Errorf("Partitions = %v, want UNKNOWN_TOPIC_OR_PARTITION", err)
			}
			if names, err := c.Topics(t.Context()); len(names) != 1 || names[0] != "t" || err != nil {
				t.Errorf("Topics = %q, %v; want t", names, err)
			}
		})
	})
	t.Run("nonsense", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newScript(t, 1)
			s.lead("t", 1)
			c := s.open()
			s.on(kmsg.Metadata, func(b int32, r kmsg.Request) kmsg.Response {
				m := s.metadata(b, r).(*kmsg.MetadataResponse)
				for i := range m.Topics {
					m.Topics[i].Partitions[0].Partition = -5
				}
				return m
			})
			if _, err := c.Leader(t.Context(), kafka.TopicPartition{Topic: "t"}); !errors.Is(err, kafkago.LeaderNotAvailable) {
				t.Errorf("Leader = %v, want LEADER_NOT_AVAILABLE", err)
			}
		})
	})
}

func TestBrokersThatLeaveAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t, 1, 2)
		s.lead("t", 2)
		config := s.config()
		config.Brokers = config.Brokers[:1]
		c, err := kafka.Open(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.AskLeader(t.Context(), kafka.TopicPartition{Topic: "t"}, "x", &findcoordinator.Request{Key: "g"}); err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		s.brokers = s.brokers[:1]
		s.mu.Unlock()
		s.lead("t", 1)
		c.Stale("t")
		if id, err := c.Leader(t.Context(), kafka.TopicPartition{Topic: "t"}); id != 1 || err != nil {
			t.Errorf("Leader = %d, %v; want 1", id, err)
		}
		if _, err := c.AskBroker(t.Context(), 2, "x", &findcoordinator.Request{Key: "g"}); err == nil || !strings.Contains(err.Error(), "broker 2 is not in the cluster's metadata") {
			t.Errorf("AskBroker = %v", err)
		}
	})
}

// A broker may advertise an address that cannot be reached from here, which is the
// most usual fault of a new installation.
func TestAdvertisedAddressesAreExplained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t, 1)
		s.lead("t", 5)
		s.on(kmsg.Metadata, func(b int32, r kmsg.Request) kmsg.Response {
			m := s.metadata(b, r).(*kmsg.MetadataResponse)
			m.Brokers = append(m.Brokers, kmsg.MetadataResponseBroker{NodeID: 5, Host: "inside", Port: 9005})
			return m
		})
		_, err := s.open().AskLeader(t.Context(), kafka.TopicPartition{Topic: "t"}, "x", &findcoordinator.Request{Key: "g"})
		wantWords(t, err, "inside:9005", "advertised.listeners", "look up the name")
	})
}

// Whatever a broker answers: an error, no panic, and the next request is well.
func TestNonsense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t, 1)
		s.lead("t", 1)
		var nonsense func([]byte) []byte
		config := s.config()
		config.Dial = func(ctx context.Context, network, to string) (net.Conn, error) {
			c, err := s.dial(ctx, network, to)
			return &mangled{Conn: c, mangle: &nonsense}, err
		}
		config.RequestTimeout = time.Second
		c, err := kafka.Open(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		rng := rand.New(rand.NewPCG(1, 2))
		tp := kafka.TopicPartition{Topic: "t"}
		for i := range 3000 {
			nonsense = func(b []byte) []byte {
				switch i % 4 {
				case 0:
					return b[:rng.IntN(len(b))]
				case 1:
					b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
				case 2:
					b[rng.IntN(min(len(b), 8))] = byte(rng.IntN(256))
				default:
					b[8+rng.IntN(len(b)-8)] = byte(rng.IntN(2)) // short lengths
				}
				return b
			}
			c.Stale("t")
			_, _ = c.Leader(t.Context(), tp)
			nonsense = nil
			c.Stale("t")
			if id, err := c.Leader(t.Context(), tp); id != 1 || err != nil {
				t.Fatalf("behind nonsense %d: Leader = %d, %v; want 1", i, id, err)
			}
		}
	})
}

// mangled changes what is read.
type mangled struct {
	net.Conn
	mangle *func([]byte) []byte
}

func (m *mangled) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	if f := *m.mangle; f != nil && n > 8 {
		n = copy(b, f(b[:n]))
		if n == 0 {
			return 0, fmt.Errorf("cut")
		}
	}
	return n, err
}

// F2's sibling for control requests: a cut anywhere is a retriable error, and the next
// request dials again.
func TestCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t, 1)
		c := s.open()
		for i := range 20 {
			s.on(kmsg.FindCoordinator, func(b int32, r kmsg.Request) kmsg.Response {
				s.cut()
				return s.coordinator(1)(b, r)
			})
			_, err := c.AskAny(t.Context(), &findcoordinator.Request{Key: "g"})
			if err == nil || !kafka.IsRetriable(err) {
				t.Errorf("AskAny = %v, want a retriable error", err)
			}
			s.on(kmsg.FindCoordinator, s.coordinator(1))
			if i%2 == 1 {
				s.cut() // and one that is cut between two requests
				_, _ = c.AskAny(t.Context(), &findcoordinator.Request{Key: "g"})
			}
			if _, err := c.AskAny(t.Context(), &findcoordinator.Request{Key: "g"}); err != nil {
				t.Errorf("AskAny behind a cut = %v", err)
			}
		}
	})
}

func TestIsRetriable(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{kafka.ErrClosed, false},
		{context.Canceled, false},
		{context.DeadlineExceeded, true},
		{errors.New("connection reset"), true},
		{&kafka.AuthError{}, false},
		{&kafka.VersionError{}, false},
		{kafkago.NotLeaderForPartition, true},
		{kafkago.RebalanceInProgress, true},
		{kafkago.ConcurrentTransactions, true},
		{kafkago.UnknownMemberId, false},
		{kafkago.IllegalGeneration, false},
		{kafkago.FencedInstanceID, false},
		{kafkago.TopicAuthorizationFailed, false},
		{fmt.Errorf("x: %w", kafkago.RequestTimedOut), true},
		{errors.Join(kafkago.NotLeaderForPartition, kafkago.TopicAuthorizationFailed), false},
		{errors.Join(kafkago.NotLeaderForPartition, errors.New("reset")), true},
	} {
		if got := kafka.IsRetriable(c.err); got != c.want {
			t.Errorf("IsRetriable(%v) = %v, want %v", c.err, got, c.want)
		}
	}
}
