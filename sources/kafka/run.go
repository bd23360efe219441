package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/pipeline"
)

// errStopped says that the loop over a sequence was left.
var errStopped = errors.New("stopped")

// A reading is one sequence of batches. Everything happens in the goroutine that loops
// over it, but for joining the group and waiting for messages.
type reading struct {
	*Source
	from     []pipeline.Mark
	yield    func(*pipeline.Batch, error) bool
	fetcher  *kafka.Fetcher
	builders builderPool
	flush    *time.Timer // fires when something gathered has waited for long enough
	flushAt  time.Time   // when that is; zero when nothing waits

	joins   chan joined // at most one join is under way
	joining bool
	member  bool // joined at least once since the last loss

	told   time.Time // when the lag was logged
	behind int64     // at the end: offsets that are not committed
	since  time.Time // when that was seen first
}

type joined struct {
	a   kafka.Assignment
	err error
}

// loop runs until ctx is done, the loop over the sequence is left, or the end is
// reached.
func (r *reading) loop(ctx context.Context) error {
	if err := r.open(ctx); err != nil {
		return err
	}
	r.fetcher = kafka.NewFetcher(r.cluster, r.c.Fetch)
	defer r.fetcher.Close()
	pieces := &recycler{mem: r.c.Allocator}
	defer pieces.close()
	r.builders = builderPool{mem: pieces, rows: r.c.BatchRows}
	defer r.forget()
	r.flush = time.NewTimer(time.Hour)
	defer r.flush.Stop()

	inner, cancel := context.WithCancel(ctx)
	chunks, pumped := make(chan *kafka.Chunk), make(chan error, 1)
	go func() { pumped <- pump(inner, r.fetcher, chunks) }()
	r.joins = make(chan joined, 1)
	defer func() {
		cancel()
		<-pumped
		if r.joining {
			<-r.joins
		}
	}()
	r.join(inner, nil)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if err := r.step(ctx, inner, chunks, pumped, tick.C); err != nil {
			return err
		}
		if !r.c.UntilEnd || !r.member || r.joining {
			continue
		}
		if done, err := r.finished(); done || err != nil {
			r.mu.Lock()
			r.ended = done
			r.mu.Unlock()
			return err
		}
	}
}

// step waits for one thing to happen and deals with it.
func (r *reading) step(ctx, inner context.Context, chunks <-chan *kafka.Chunk, pumped chan error, tick <-chan time.Time) error {
	var changed, lost <-chan struct{}
	if r.member {
		lost = r.group.Lost()
		if !r.joining {
			changed = r.group.Changed()
		}
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case j := <-r.joins:
		r.joining = false
		if j.err != nil {
			return fmt.Errorf("group %q: %w", r.c.Group, j.err)
		}
		return r.assigned(ctx, inner, j.a)
	case <-lost:
		return r.lostGroup(inner)
	case <-changed:
		return r.rebalance(ctx, inner)
	case err := <-pumped:
		pumped <- err // for the one who waits for the pump's end
		return err
	case c := <-chunks:
		return r.take(c)
	case <-r.flush.C:
		return r.due()
	case <-r.progress:
	case <-tick:
		_ = r.store(ctx)
		r.tellLag()
	}
	return r.again(ctx)
}

// lagEvery is how often the log tells how far the sinks are behind.
const lagEvery = time.Minute

// tellLag logs the lag of all partitions together, when it is time.
func (r *reading) tellLag() {
	if time.Since(r.told) < lagEvery {
		return
	}
	r.told = time.Now()
	lags, gap := r.Lags()
	rows, oldest := int64(0), time.Duration(0)
	for _, l := range lags {
		rows += l.Rows
		oldest = max(oldest, l.Age)
	}
	r.c.Log.Info("lag", "group", r.c.Group, "partitions", len(lags), "rows", rows, "oldest_uncommitted", oldest.Round(time.Millisecond), "gap_rows", gap)
}

// open connects, once in a source's life.
func (r *reading) open(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cluster != nil {
		return nil
	}
	c, err := kafka.Open(ctx, r.c.Cluster)
	if err != nil {
		return err
	}
	for _, t := range r.c.Topics {
		if _, err := c.Partitions(ctx, t); err != nil {
			return errors.Join(fmt.Errorf("topic %q: %w", t, err), c.Close())
		}
	}
	r.cluster = c
	topics := func(ctx context.Context) ([]string, error) { return r.topics(ctx, c) }
	if r.c.Group == "" {
		r.group = newAlone(c, topics, r.c.Discover)
		return nil
	}
	r.group = kafka.NewGroup(c, kafka.GroupConfig{ID: r.c.Group, Instance: r.c.Instance, Topics: topics,
		Session: r.c.Session, Rebalance: r.c.Rebalance, Cooperative: r.c.Cooperative, Discover: r.c.Discover})
	return nil
}

// topics lists the topics to read.
func (s *Source) topics(ctx context.Context, c *kafka.Cluster) ([]string, error) {
	if s.c.Pattern == nil {
		return s.c.Topics, nil
	}
	all, err := c.Topics(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(t string) bool {
		at := s.c.Pattern.FindStringIndex(t)
		return at == nil || at[0] != 0 || at[1] != len(t)
	})
	slices.Sort(all)
	return all, nil
}

// pump hands chunks on until ctx is done.
func pump(ctx context.Context, f *kafka.Fetcher, chunks chan<- *kafka.Chunk) error {
	for {
		c, err := f.Next(ctx)
		if err != nil {
			return err
		}
		select {
		case chunks <- c:
		case <-ctx.Done():
			c.Release()
			return ctx.Err()
		}
	}
}

// join asks for an assignment in the background.
func (r *reading) join(inner context.Context, owned []kafka.TopicPartition) {
	r.joining = true
	go func() {
		a, err := r.group.Join(inner, owned)
		r.joins <- joined{a, err}
	}()
}

// held lists the partitions that are held, in order.
func (r *reading) held() []kafka.TopicPartition {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Keys(r.parts), kafka.TopicPartition.Compare)
}

// assigned gives up what is no longer this member's and begins what is new.
func (r *reading) assigned(ctx, inner context.Context, a kafka.Assignment) error {
	r.member = true
	owned := r.held()
	if a.Anew && len(owned) > 0 { // others may have held them between
		r.c.Log.Warn("membership lost and found again; partitions begin anew", "group", r.c.Group, "partitions", len(owned))
		r.fetcher.Remove(owned...)
		r.drop(owned)
		owned = nil
	}
	revoked := without(owned, a.Parts)
	if len(revoked) > 0 {
		if err := r.drain(ctx, revoked); err != nil {
			return err
		}
		r.join(inner, without(owned, revoked))
	}
	r.c.Log.Info("partitions assigned", "group", r.c.Group, "generation", a.Generation, "partitions", len(a.Parts))
	return r.begin(ctx, without(a.Parts, owned))
}

func without(all, some []kafka.TopicPartition) []kafka.TopicPartition {
	return slices.DeleteFunc(slices.Clone(all), func(tp kafka.TopicPartition) bool { return slices.Contains(some, tp) })
}

// rebalance joins anew: a cooperative member keeps what it has until it knows
// better, an eager one gives up all first.
func (r *reading) rebalance(ctx, inner context.Context) error {
	owned := r.held()
	if r.c.Cooperative && r.c.Group != "" || r.c.Group == "" {
		r.join(inner, owned)
		return nil
	}
	if err := r.drain(ctx, owned); err != nil {
		return err
	}
	r.join(inner, nil)
	return nil
}

// lostGroup drops everything: others may hold it already.
func (r *reading) lostGroup(inner context.Context) error {
	owned := r.held()
	r.c.Log.Warn("membership lost, joining again", "group", r.c.Group, "partitions", len(owned))
	r.fetcher.Remove(owned...)
	r.drop(owned)
	r.member = false
	if !r.joining {
		r.join(inner, nil)
	}
	return nil
}

// drop ends the assignment of partitions, and gives up what was gathered of them.
func (r *reading) drop(parts []kafka.TopicPartition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, tp := range parts {
		if p := r.parts[tp]; p != nil && p.builder != nil {
			p.builder.release()
			p.builder = nil
		}
		delete(r.parts, tp)
	}
}

// forget gives up everything that was gathered.
func (r *reading) forget() {
	for _, p := range r.mine() {
		if p.builder != nil {
			p.builder.release()
			p.builder = nil
		}
	}
	r.builders.release()
}

// drain gives up partitions in good order: nothing more of them is read, and what
// was read is committed, but for no longer than half the time that the group
// waits.
func (r *reading) drain(ctx context.Context, parts []kafka.TopicPartition) error {
	if len(parts) == 0 {
		return nil
	}
	defer r.drop(parts)
	r.fetcher.Remove(parts...)
	if err := r.seal(parts); err != nil {
		return err
	}
	late := time.NewTimer(r.c.Rebalance / 2)
	defer late.Stop()
	for r.uncommitted(parts) > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.group.Lost():
			return nil
		case <-r.progress:
		case <-late.C:
			r.c.Log.Warn("partitions given up before all of their rows were committed; they will be read again",
				"group", r.c.Group, "partitions", r.uncommitted(parts))
			return nil
		}
	}
	return nil
}

// seal asks the sinks to make durable what they were given of partitions.
func (r *reading) seal(parts []kafka.TopicPartition) error {
	for _, tp := range parts {
		r.mu.Lock()
		p := r.parts[tp]
		r.mu.Unlock()
		if p == nil || p.lost {
			continue
		}
		if err := r.give(p, p.read); err != nil {
			return err
		}
		if p.next == p.committed {
			continue
		}
		mark := pipeline.Mark{Partition: tp.String(), Epoch: p.epoch, Next: p.next}
		if !r.yield(&pipeline.Batch{Mark: mark, First: p.next, Seal: true}, nil) {
			return errStopped
		}
	}
	return nil
}

// uncommitted counts the partitions that have rows in the engine. Those that a
// sink has lost are not waited for.
func (r *reading) uncommitted(parts []kafka.TopicPartition) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, tp := range parts {
		if p := r.parts[tp]; p != nil && !p.lost && p.committed < p.next {
			n++
		}
	}
	return n
}

// again begins the partitions anew that a sink has lost, when their time has come.
func (r *reading) again(ctx context.Context) error {
	var due []kafka.TopicPartition
	retries := make(map[kafka.TopicPartition]int)
	r.mu.Lock()
	for tp, p := range r.parts {
		if p.lost && !time.Now().Before(p.retryAt) && r.group.Alive() {
			due = append(due, tp)
			retries[tp] = p.retries + 1
		}
	}
	r.mu.Unlock()
	if len(due) == 0 {
		return nil
	}
	if err := r.group.Confirm(ctx); err != nil {
		// To begin anew would fence whoever owns the partitions now. Lost tells the
		// loop when it is so.
		r.c.Log.Debug("membership not confirmed", "group", r.c.Group, "error", err)
		r.postpone(due)
		return ctx.Err()
	}
	slices.SortFunc(due, kafka.TopicPartition.Compare)
	r.c.Log.Warn("a sink lost partitions; they begin again where it stands", "partitions", len(due), "first", due[0].String())
	r.fetcher.Remove(due...)
	r.drop(due)
	if err := r.begin(ctx, due); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for tp, n := range retries {
		if p := r.parts[tp]; p != nil {
			p.retries = n
		}
	}
	return nil
}

// postpone looks at lost partitions again a little later.
func (r *reading) postpone(parts []kafka.TopicPartition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, tp := range parts {
		if p := r.parts[tp]; p != nil {
			p.retryAt = time.Now().Add(time.Second / 2)
		}
	}
}

// endPatience is how long the end waits for a commit when none comes: a sink that
// makes rows durable only at its own end would be waited for in vain.
const endPatience = 3 * time.Second

// finished reports whether every partition is read to the end that it had and
// committed, so that a sink that loses a partition at the last moment finds the
// source still there. It asks the sinks to hurry when only they are awaited.
func (r *reading) finished() (bool, error) {
	r.mu.Lock()
	read, behind := true, int64(0)
	for _, p := range r.parts {
		read = read && p.next >= p.target && !p.lost
	}
	var wait []kafka.TopicPartition
	for tp, p := range r.parts {
		if read && p.committed < p.next {
			wait = append(wait, tp)
			behind += p.next - p.committed
		}
	}
	r.mu.Unlock()
	if !read || len(wait) == 0 {
		r.behind = 0
		return read, nil
	}
	if behind != r.behind {
		sealed := r.behind != 0
		r.behind, r.since = behind, time.Now()
		if !sealed {
			return false, r.seal(wait)
		}
	}
	return time.Since(r.since) > endPatience, nil
}
