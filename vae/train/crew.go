package train

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A crew shares out the parts of a job among workers. A step is a few jobs of a
// tenth of a millisecond or less, and to start goroutines for each costs as much;
// so helpers stay, look for the next job for a while, and only then sleep. Between
// start and stop a crew takes one job at a time, from one goroutine; without
// helpers that goroutine does it all.
type crew struct {
	workers []*worker // the first is the caller's own
	posted  atomic.Pointer[job]
	helpers []*helper
	running sync.WaitGroup
}

// A job is n parts. Every worker has a range of them, so that the same parts of
// each step's vectors stay in the caches of the same processor; one that is done
// with its own helps the others.
type job struct {
	do     func(w *worker, part int)
	ranges []span
	left   atomic.Int64
	done   chan struct{} // closed after the last part
}

// A span is the parts [next, end) that are left of a range.
type span struct {
	next atomic.Int64
	end  int
	_    [48]byte // to the end of the cache line
}

// A helper is a goroutine that works on jobs.
type helper struct {
	w      *worker
	at     int // in workers
	asleep atomic.Bool
	wake   chan struct{} // holds one message, sent by whoever ends asleep
}

// patience is how long a helper looks for the next job before it sleeps, and how
// long the caller looks for the last part's end: longer than what stands between
// two jobs of a step, shorter than what a neighbour on the machine would notice.
const patience = 50 * time.Microsecond

// start starts the helpers, no more than there are processors; stop ends them.
func (c *crew) start() (stop func()) {
	for i := 1; i < min(len(c.workers), runtime.GOMAXPROCS(0)); i++ {
		h := &helper{w: c.workers[i], at: i, wake: make(chan struct{}, 1)}
		c.helpers = append(c.helpers, h)
		from := c.posted.Load()
		c.running.Go(func() { c.help(h, from) })
	}
	return func() {
		c.post(&job{}, len(c.helpers)) // without a do: the end
		c.running.Wait()
		c.helpers = nil
	}
}

// parallel calls do(worker, i) for every i in [0, n) and returns when all are
// done.
func (c *crew) parallel(n int, do func(w *worker, i int)) {
	if len(c.helpers) == 0 || n < 2 {
		for i := range n {
			do(c.workers[0], i)
		}
		return
	}
	j := &job{do: do, ranges: make([]span, min(len(c.helpers)+1, n)), done: make(chan struct{})}
	j.left.Store(int64(n))
	for k := range j.ranges {
		j.ranges[k].next.Store(int64(k * n / len(j.ranges)))
		j.ranges[k].end = (k + 1) * n / len(j.ranges)
	}
	c.post(j, n-1)
	j.work(0, c.workers[0])
	if !soon(func() bool { return j.left.Load() == 0 }) {
		<-j.done
	}
}

// post shows a job to the helpers that look and wakes those that sleep, as many
// as can be of use.
func (c *crew) post(j *job, useful int) {
	c.posted.Store(j)
	for _, h := range c.helpers[:min(useful, len(c.helpers))] {
		if h.asleep.CompareAndSwap(true, false) {
			h.wake <- struct{}{}
		}
	}
}

// work does the parts that are left, those of range k first.
func (j *job) work(k int, w *worker) {
	for range j.ranges {
		r := &j.ranges[k%len(j.ranges)]
		for i := int(r.next.Add(1)) - 1; i < r.end; i = int(r.next.Add(1)) - 1 {
			j.do(w, i)
			if j.left.Add(-1) == 0 {
				close(j.done)
			}
		}
		k++
	}
}

// help works on every job after last until the one that ends it. A job that it
// comes to late has no part left.
func (c *crew) help(h *helper, last *job) {
	for {
		j := c.await(h, last)
		if j.do == nil {
			return
		}
		j.work(h.at, h.w)
		last = j
	}
}

// await returns a job other than last.
func (c *crew) await(h *helper, last *job) *job {
	var j *job
	fresh := func() bool { j = c.posted.Load(); return j != last }
	for !soon(fresh) {
		h.asleep.Store(true)
		if fresh() && h.asleep.CompareAndSwap(true, false) {
			break
		}
		<-h.wake // sent already, or to come
	}
	return j
}

// soon says whether ok becomes true within the crew's patience.
func soon(ok func() bool) bool {
	for began := time.Now(); ; {
		for range 100 {
			if ok() {
				return true
			}
		}
		if time.Since(began) > patience {
			return false
		}
	}
}
