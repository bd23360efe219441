package kafka_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// A script is a cluster of brokers in memory that answer as they are told, over
// net.Pipe, so that a test in a synctest bubble has its own clock. Requests are
// decoded and answers encoded by franz-go, which judges our bytes.
type script struct {
	t *testing.T

	mu      sync.Mutex
	answer  map[int16]func(broker int32, r kmsg.Request) kmsg.Response // nil: no answer, ever
	refuse  map[int32]error                                            // brokers that cannot be dialled; nil is one that does not answer
	brokers []int32
	leaders map[string][]int32 // by topic and partition
	asked   []ask
	dials   int
	ranges  map[int16][2]int16 // of versions, where they are not franz-go's
	cuts    []func()           // hang up
}

// An ask is a request that came.
type ask struct {
	broker int32
	at     time.Time
	kmsg.Request
}

func newScript(t *testing.T, brokers ...int32) *script {
	s := &script{t: t, brokers: brokers, leaders: map[string][]int32{}, refuse: map[int32]error{}, ranges: map[int16][2]int16{}}
	s.answer = map[int16]func(int32, kmsg.Request) kmsg.Response{
		int16(kmsg.ApiVersions):     s.versions,
		int16(kmsg.Metadata):        s.metadata,
		int16(kmsg.FindCoordinator): s.coordinator(brokers[0]),
	}
	return s
}

func addr(broker int32) string {
	return net.JoinHostPort("broker"+strconv.Itoa(int(broker)), strconv.Itoa(9000+int(broker)))
}

// config reaches the script's brokers.
func (s *script) config() kafka.Config {
	c := kafka.Config{Dial: s.dial}
	for _, b := range s.brokers {
		c.Brokers = append(c.Brokers, addr(b))
	}
	return c
}

// open returns a Cluster that the test closes.
func (s *script) open() *kafka.Cluster {
	s.t.Helper()
	c, err := kafka.Open(s.t.Context(), s.config())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// on sets what the brokers answer to requests of one kind.
func (s *script) on(key kmsg.Key, f func(broker int32, r kmsg.Request) kmsg.Response) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer[int16(key)] = f
}

// of lists the requests of a kind that came.
func (s *script) of(key kmsg.Key) []ask {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.asked), func(a ask) bool { return a.Key() != int16(key) })
}

// cut hangs up every connection.
func (s *script) cut() {
	s.mu.Lock()
	cuts := s.cuts
	s.cuts = nil
	s.mu.Unlock()
	for _, f := range cuts {
		f()
	}
}

func (s *script) dial(ctx context.Context, _, to string) (net.Conn, error) {
	_, port, _ := net.SplitHostPort(to)
	n, _ := strconv.Atoi(port)
	broker := int32(n - 9000)
	s.mu.Lock()
	s.dials++
	err, refused := s.refuse[broker]
	s.mu.Unlock()
	switch {
	case refused && err == nil:
		<-ctx.Done()
		return nil, ctx.Err()
	case refused:
		return nil, err
	case !slices.Contains(s.brokers, broker):
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: to, IsNotFound: true}}
	}
	ours, theirs := net.Pipe()
	s.mu.Lock()
	s.cuts = append(s.cuts, func() { theirs.Close() })
	s.mu.Unlock()
	go func() {
		defer theirs.Close()
		if err := s.serve(broker, theirs); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
			s.t.Errorf("broker %d: %v", broker, err)
		}
	}()
	return ours, nil
}

// serve answers the requests of a connection one after the other.
func (s *script) serve(broker int32, c net.Conn) error {
	for {
		r, id, err := readRequest(c)
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.asked = append(s.asked, ask{broker, time.Now(), r})
		f := s.answer[r.Key()]
		s.mu.Unlock()
		if f == nil {
			s.t.Errorf("nobody expected a %s request", kmsg.NameForKey(r.Key()))
			return nil
		}
		answer := f(broker, r)
		if answer == nil {
			_, err := io.Copy(io.Discard, c) // until the client hangs up
			return err
		}
		if _, err := c.Write(appendAnswer(nil, id, r, answer)); err != nil {
			return err
		}
	}
}

// readRequest decodes a request.
func readRequest(c io.Reader) (r kmsg.Request, id int32, err error) {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, 0, err
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return nil, 0, err
	}
	in := kbin.Reader{Src: b}
	r = kmsg.RequestForKey(in.Int16())
	r.SetVersion(in.Int16())
	id = in.Int32()
	in.NullableString() // client id
	if r.IsFlexible() {
		kmsg.SkipTags(&in)
	}
	if err := in.Complete(); err != nil {
		return nil, 0, err
	}
	return r, id, r.ReadFrom(in.Src)
}

// appendAnswer encodes an answer.
func appendAnswer(b []byte, id int32, r kmsg.Request, answer kmsg.Response) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(id))
	answer.SetVersion(r.GetVersion())
	if answer.IsFlexible() && answer.Key() != int16(kmsg.ApiVersions) {
		b = append(b, 0) // no tags
	}
	b = answer.AppendTo(b)
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

func (s *script) versions(_ int32, r kmsg.Request) kmsg.Response {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := r.ResponseKind().(*kmsg.ApiVersionsResponse)
	for key := range kmsg.MaxKey + 1 {
		if q := kmsg.RequestForKey(int16(key)); q != nil {
			span, ok := s.ranges[int16(key)]
			if !ok {
				span = [2]int16{0, q.MaxVersion()}
			}
			if span[1] >= 0 {
				answer.ApiKeys = append(answer.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: int16(key), MinVersion: span[0], MaxVersion: span[1]})
			}
		}
	}
	return answer
}

// unknownTopic is error 3.
const unknownTopic = 3

func (s *script) metadata(_ int32, r kmsg.Request) kmsg.Response {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := r.ResponseKind().(*kmsg.MetadataResponse)
	for _, b := range s.brokers {
		host, port, _ := net.SplitHostPort(addr(b))
		n, _ := strconv.Atoi(port)
		answer.Brokers = append(answer.Brokers, kmsg.MetadataResponseBroker{NodeID: b, Host: host, Port: int32(n)})
	}
	var names []string
	for _, t := range r.(*kmsg.MetadataRequest).Topics {
		names = append(names, *t.Topic)
	}
	if r.(*kmsg.MetadataRequest).Topics == nil {
		names = slices.Sorted(maps.Keys(s.leaders))
	}
	for _, name := range names {
		t := kmsg.NewMetadataResponseTopic()
		t.Topic = &name
		leaders, ok := s.leaders[name]
		if !ok {
			t.ErrorCode = unknownTopic
		}
		for i, l := range leaders {
			p := kmsg.NewMetadataResponseTopicPartition()
			p.Partition, p.Leader = int32(i), l
			if l < 0 {
				p.ErrorCode = 5
			}
			t.Partitions = append(t.Partitions, p)
		}
		answer.Topics = append(answer.Topics, t)
	}
	return answer
}

// coordinator names a broker as the coordinator of everything.
func (s *script) coordinator(id int32) func(int32, kmsg.Request) kmsg.Response {
	return func(_ int32, r kmsg.Request) kmsg.Response {
		answer := r.ResponseKind().(*kmsg.FindCoordinatorResponse)
		host, port, _ := net.SplitHostPort(addr(id))
		n, _ := strconv.Atoi(port)
		answer.NodeID, answer.Host, answer.Port = id, host, int32(n)
		return answer
	}
}

// lead sets the leaders of a topic's partitions.
func (s *script) lead(topic string, leaders ...int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaders[topic] = leaders
}

// breakDial makes a broker refuse connections; with a nil error they are not answered.
func (s *script) breakDial(broker int32, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse[broker] = err
}

func (s *script) mend(broker int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.refuse, broker)
}
