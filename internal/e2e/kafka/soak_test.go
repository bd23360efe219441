package kafka_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestSoak is F21 with F3, F4 and F8 in it: at a steady rate leaders move, coordinators
// move, and every second a member comes or goes, 1 to 5 of them. Process 0 lives
// through all of it: its memory, descriptors and threads must not grow. It takes
// ELBO_SOAK (as 8h), or 30 s in .ci/run, where only the rows are judged.
func TestSoak(t *testing.T) {
	t.Parallel()
	length, err := time.ParseDuration(os.Getenv("ELBO_SOAK"))
	if err != nil {
		if length = size(0, 30*time.Second, 10*time.Minute); length == 0 {
			t.Skip("SKIPPED: the soak: set ELBO_SOAK=10m, or ELBO_TEST_FULL=1 for 30 s")
		}
	}
	const rate, members = 1000, 5 // rows a second
	cluster, brokers := startQuick(t)
	f := newFleet(t, brokers, "exactly_once", 1)
	f.dynamic = true
	s := &soak{t: t, brokers: brokers, sent: map[int]time.Time{}}
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() { s.produce(rate, stop) })
	all.Go(func() { s.read(stop) })
	all.Go(func() { s.sample(f.ps[0].Pid(), stop) })
	all.Go(func() {
		disturb(cluster, rand.New(rand.NewPCG(1, 21)), stop, &s.moves, func(n int) {
			switch n % 40 { // once in about 2.4 s each
			case 10:
				cluster.ShufflePartitionLeaders()
			case 30:
				cluster.RehashCoordinators()
			}
		})
	})
	changes := 0
	for began := time.Now(); time.Since(began) < length; changes++ {
		time.Sleep(time.Second)
		if up := changes%(2*members-2) < members-1; up {
			f.ps = append(f.ps, nil)
			f.run(len(f.ps) - 1)
		} else {
			last := f.ps[len(f.ps)-1]
			f.ps = f.ps[:len(f.ps)-1]
			go func() { _ = last.End(syscall.SIGTERM, 20*time.Second) }()
		}
	}
	close(stop)
	all.Wait()
	f.settle(s.rows, fmt.Sprintf("%d comings and goings and %d disturbances", changes, s.moves.Load()))
	s.report()
}

// A soak is what is known of one.
type soak struct {
	t       testing.TB
	brokers []string
	rows    int // that were produced
	moves   atomic.Int64

	mu      sync.Mutex
	sent    map[int]time.Time // by id; what came out is taken away
	took    []time.Duration
	samples []sample
}

// A sample is the state of a process at a time.
type sample struct {
	at               time.Time
	memory           float64 // MB resident
	threads, handles int
}

func (s *soak) client(opts ...kgo.Opt) *kgo.Client {
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(s.brokers...), kgo.MetadataMinAge(10*time.Millisecond))...)
	if err != nil {
		s.t.Error(err)
	}
	return cl
}

// produce writes rows at a rate a second.
func (s *soak) produce(rate int, stop <-chan struct{}) {
	cl := s.client(kgo.DefaultProduceTopic("in"))
	defer cl.Close()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			if err := cl.Flush(context.Background()); err != nil {
				s.t.Error(err)
			}
			return
		case <-tick.C:
		}
		for range rate / 100 {
			id := s.rows
			s.rows++
			s.mu.Lock()
			s.sent[id] = time.Now()
			s.mu.Unlock()
			cl.Produce(context.Background(), &kgo.Record{Value: fmt.Appendf(nil, `{"id":%d,"x":1}`, id)}, func(_ *kgo.Record, err error) {
				if err != nil {
					s.t.Error(err)
				}
			})
		}
	}
}

// read notes how long each row took to come out.
func (s *soak) read(stop <-chan struct{}) {
	cl := s.client(kgo.ConsumeTopics("out"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(20*time.Millisecond))
	defer cl.Close()
	for {
		select {
		case <-stop:
			return
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		recs := cl.PollFetches(ctx).Records()
		cancel()
		now := time.Now()
		s.mu.Lock()
		for _, r := range recs {
			id, _ := strconv.Atoi(strings.Trim(string(r.Value), `{"id:}`))
			if at, ok := s.sent[id]; ok {
				s.took = append(s.took, now.Sub(at))
				delete(s.sent, id)
			}
		}
		s.mu.Unlock()
	}
}

// sample looks at a process every second.
func (s *soak) sample(pid int, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Second):
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		handles, err2 := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil || err2 != nil {
			continue // no such thing on this system
		}
		now := sample{at: time.Now(), handles: len(handles)}
		for line := range strings.Lines(string(status)) {
			kb := 0.0
			if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kb); n == 1 {
				now.memory = kb / 1000
			}
			_, _ = fmt.Sscanf(line, "Threads: %d", &now.threads)
		}
		s.samples = append(s.samples, now)
	}
}

// report logs latencies, and how memory went after the first quarter.
func (s *soak) report() {
	slices.Sort(s.took)
	at := func(p float64) time.Duration {
		if len(s.took) == 0 {
			return 0
		}
		return s.took[int(p*float64(len(s.took)-1))].Round(time.Millisecond)
	}
	s.t.Logf("%d rows, from produced to read: median %v, 99 %% %v, 99.9 %% %v, all %v", s.rows, at(.5), at(.99), at(.999), at(1))
	warm := s.samples[len(s.samples)/4:]
	if len(warm) < 2 {
		s.t.Log("SKIPPED: memory, for want of /proc")
		return
	}
	first, last := warm[0], warm[len(warm)-1]
	s.t.Logf("resident %.1f MB, then %.1f MB, slope %.2f MB/h; descriptors %d, then %d; threads %d, then %d; in %v", first.memory, last.memory, slope(warm),
		first.handles, last.handles, first.threads, last.threads, last.at.Sub(first.at).Round(time.Second))
	if last.handles > first.handles+50 || last.memory > 2*first.memory+50 {
		s.t.Errorf("it grows: %+v, then %+v", first, last)
	}
}

// slope fits a line to the memory, in MB an hour.
func slope(all []sample) float64 {
	var n, x, y, xx, xy float64
	for _, s := range all {
		at := s.at.Sub(all[0].at).Hours()
		n, x, y, xx, xy = n+1, x+at, y+s.memory, xx+at*at, xy+at*s.memory
	}
	return (n*xy - x*y) / (n*xx - x*x)
}
