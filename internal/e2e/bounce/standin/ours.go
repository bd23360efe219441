package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// A member copies by internal/kafka: one transactional producer for each source
// partition, rows and source offset in one transaction.
type member struct {
	job
	c *kafka.Cluster
	g *kafka.Group
	f *kafka.Fetcher

	mu      sync.Mutex
	workers map[kafka.TopicPartition]*worker
	epoch   int64 // the last one given to the fetcher
	fatal   error
}

// copyByOurs copies until ctx is done; then it commits what it has read.
func copyByOurs(ctx context.Context, j job) error {
	life, stop := context.WithCancel(context.Background())
	defer stop()
	m := &member{job: j, workers: make(map[kafka.TopicPartition]*worker)}
	config := kafka.Config{Brokers: j.brokers, Log: slog.Default()}
	for {
		var err error
		if m.c, err = kafka.Open(ctx, config); err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		slog.Warn("not connected yet", "error", err)
		time.Sleep(200 * time.Millisecond)
	}
	defer m.c.Close()
	m.g = kafka.NewGroup(m.c, kafka.GroupConfig{ID: j.group, Instance: j.instance, Session: j.session, Rebalance: 2 * j.session, Cooperative: j.cooperative,
		Topics: func(context.Context) ([]string, error) { return []string{j.in}, nil }})
	m.f = kafka.NewFetcher(m.c, kafka.FetchConfig{ReadCommitted: true})
	defer m.f.Close()
	go m.dispatch(life)
	err := m.turn(ctx, life)
	leave, cancel := context.WithTimeout(life, 5*time.Second)
	defer cancel()
	if e := m.g.Leave(leave); e != nil {
		slog.Warn("did not leave in order", "error", e)
	}
	return err
}

// turn joins, lets workers copy, drains them, and joins again.
func (m *member) turn(ctx, life context.Context) error {
	var owned []kafka.TopicPartition
	for {
		if !m.cooperative {
			m.drain(owned)
			owned = nil
		}
		a, err := m.g.Join(ctx, owned)
		if ctx.Err() != nil {
			m.drain(owned)
			return nil
		}
		if err != nil {
			return err
		}
		slog.Info("joined", "generation", a.Generation, "parts", a.Parts)
		changed, lost := m.g.Changed(), m.g.Lost()
		var given []kafka.TopicPartition
		for _, tp := range owned {
			if !slices.Contains(a.Parts, tp) {
				given = append(given, tp)
			}
		}
		m.drain(given)
		owned = a.Parts
		m.begin(life, owned)
		if len(given) > 0 {
			continue // to tell that they are free
		}
		select {
		case <-changed:
			slog.Info("rebalance")
		case <-lost:
			slog.Warn("membership lost")
			m.drop(owned)
			owned = nil
		case <-ctx.Done():
			m.drain(owned)
			return m.err()
		}
		if err := m.err(); err != nil {
			return err
		}
	}
}

func (m *member) err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fatal
}

// begin starts the workers of partitions that have none.
func (m *member) begin(life context.Context, tps []kafka.TopicPartition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, tp := range tps {
		if w := m.workers[tp]; w != nil {
			select {
			case <-w.done: // it gave up
			default:
				continue
			}
		}
		ctx, kill := context.WithCancel(life)
		w := &worker{m: m, tp: tp, in: make(chan *kafka.Chunk, 4), ctx: ctx, kill: kill, stop: make(chan struct{}), done: make(chan struct{})}
		m.workers[tp] = w
		go w.run()
	}
}

// drain has workers commit what they have, and waits for them.
func (m *member) drain(tps []kafka.TopicPartition) {
	m.end(tps, func(w *worker) { close(w.stop) })
}

// drop ends workers without a commit.
func (m *member) drop(tps []kafka.TopicPartition) {
	m.end(tps, func(w *worker) { w.kill() })
}

func (m *member) end(tps []kafka.TopicPartition, how func(*worker)) {
	var ended []*worker
	m.mu.Lock()
	for _, tp := range tps {
		if w := m.workers[tp]; w != nil {
			how(w)
			ended = append(ended, w)
			delete(m.workers, tp)
		}
	}
	m.mu.Unlock()
	m.f.Remove(tps...)
	for _, w := range ended {
		<-w.done
		w.kill()
	}
}

// dispatch gives each chunk to its partition's worker.
func (m *member) dispatch(life context.Context) {
	for {
		c, err := m.f.Next(life)
		if err != nil {
			return
		}
		m.mu.Lock()
		w := m.workers[c.TP]
		m.mu.Unlock()
		if w == nil {
			c.Release()
			continue
		}
		select {
		case w.in <- c:
		case <-w.done:
			c.Release()
		case <-w.stop:
			c.Release()
		}
	}
}

// A worker copies one partition.
type worker struct {
	m    *member
	tp   kafka.TopicPartition
	in   chan *kafka.Chunk
	ctx  context.Context
	kill context.CancelFunc
	stop chan struct{} // closed to drain
	done chan struct{}
}

// errGone says that the partition may be another member's already.
var errGone = errors.New("no heartbeat was answered for a whole session")

// run copies until it is drained or dropped, or the membership is lost. After an
// error everything begins anew: producer, committed offset, fetching; but not before
// heartbeats had time to tell that the partition is not ours any more.
func (w *worker) run() {
	defer close(w.done)
	for w.ctx.Err() == nil {
		err := w.session()
		var gap *kafka.OffsetOutOfRangeError
		switch {
		case err == nil || w.ctx.Err() != nil:
			return
		case errors.As(err, &gap), kafka.IsPermanent(err):
			w.m.mu.Lock()
			w.m.fatal = err
			w.m.mu.Unlock()
			return
		}
		slog.Warn("begin anew", "partition", w.tp, "error", err)
		select {
		case <-w.stop:
			return
		case <-w.ctx.Done():
			return
		case <-w.m.g.Lost():
			return
		case <-time.After(w.m.session / 5): // two heartbeats
		}
	}
}

// session copies with one producer.
func (w *worker) session() error {
	p, err := kafka.NewProducer(w.ctx, w.m.c, kafka.ProducerConfig{TransactionalID: fmt.Sprintf("standin.%s.%v", w.m.group, w.tp), TxnTimeout: 20 * time.Second})
	if err != nil {
		return err
	}
	defer p.Close()
	next, err := w.position()
	if err != nil {
		return err
	}
	w.m.mu.Lock()
	w.m.epoch++
	s := &session{w: w, p: p, epoch: w.m.epoch, next: next, committed: next}
	w.m.mu.Unlock()
	w.m.f.Add(w.tp, s.epoch, next)
	defer w.m.f.Remove(w.tp)
	tick := time.NewTicker(w.m.tick)
	defer tick.Stop()
	for {
		select {
		case c := <-w.in:
			err := s.take(c)
			c.Release()
			if err != nil {
				return err
			}
		case <-tick.C:
			if err := s.commit(); err != nil {
				return err
			}
		case <-w.stop:
			return s.commit()
		case <-w.ctx.Done():
			return nil
		}
	}
}

// position returns where the partition goes on.
func (w *worker) position() (int64, error) {
	tps := []kafka.TopicPartition{w.tp}
	at, err := w.m.c.CommittedOffsets(w.ctx, w.m.group, tps)
	if err != nil || at[w.tp].Offset >= 0 {
		return at[w.tp].Offset, err
	}
	from, err := w.m.c.ListOffsets(w.ctx, tps, -2, false)
	return from[w.tp], err
}

// A session is the time of one producer.
type session struct {
	w               *worker
	p               *kafka.Producer
	epoch           int64
	rows            int   // in the open transaction
	next, committed int64 // source offsets
}

// take writes the records of a chunk, and commits whenever enough have come.
func (s *session) take(c *kafka.Chunk) error {
	if c.Epoch != s.epoch {
		return nil
	}
	if c.Err != nil {
		return c.Err
	}
	if c.First != s.next {
		return fmt.Errorf("chunk of %v begins at %d, want %d", c.TP, c.First, s.next)
	}
	out := kafka.TopicPartition{Topic: s.w.m.out, Partition: c.TP.Partition}
	var headers []kafka.Header
	err := c.Records(func(r *kafka.Record) error {
		headers = r.Headers.AppendTo(headers[:0])
		if err := s.p.Append(out, r.Key, r.Value, headers, r.Timestamp); err != nil {
			return err
		}
		s.next = r.Offset + 1
		if s.rows++; s.rows >= s.w.m.rows {
			return s.commit()
		}
		return nil
	})
	if err == nil {
		s.next = c.Next
	}
	return err
}

// commit ends the transaction, if anything is in it.
func (s *session) commit() error {
	if s.next == s.committed {
		return nil
	}
	if !s.w.m.g.Alive() {
		return errGone
	}
	m := s.w.m.g.Member()
	err := s.p.Commit(s.w.ctx, &m, map[kafka.TopicPartition]kafka.Committed{s.w.tp: {Offset: s.next}})
	if err == nil {
		s.rows, s.committed = 0, s.next
	}
	return err
}
