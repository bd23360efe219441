package train

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// TestCrewDoesEveryPartOnce takes many short jobs, with pauses in which the
// helpers fall asleep.
func TestCrewDoesEveryPartOnce(t *testing.T) {
	for _, workers := range []int{1, 2, 5} {
		c := crew{}
		for range workers {
			c.workers = append(c.workers, &worker{})
		}
		for round := range 3 {
			stop := c.start()
			if want := min(workers, runtime.GOMAXPROCS(0)) - 1; len(c.helpers) != want {
				t.Fatalf("%d helpers of %d workers, want %d", len(c.helpers), workers, want)
			}
			for k := range 400 {
				n := k % 13
				did := make([]atomic.Int32, n)
				c.parallel(n, func(w *worker, i int) {
					did[i].Add(1)
					if k%50 == 7 {
						time.Sleep(time.Millisecond) // longer than anyone's patience
					}
				})
				for i := range did {
					if got := did[i].Load(); got != 1 {
						t.Fatalf("%d workers, round %d, job %d: part %d done %d times", workers, round, k, i, got)
					}
				}
			}
			stop()
		}
		c.parallel(3, func(w *worker, _ int) {
			if w != c.workers[0] {
				t.Error("a helper works after stop")
			}
		})
	}
}

// TestCrewUsesItsOwnMemory: no worker is in two parts at once.
func TestCrewUsesItsOwnMemory(t *testing.T) {
	c := crew{workers: []*worker{{}, {}, {}}}
	defer c.start()()
	busy := map[*worker]*atomic.Bool{}
	for _, w := range c.workers {
		busy[w] = new(atomic.Bool)
	}
	for range 200 {
		c.parallel(6, func(w *worker, _ int) {
			if busy[w].Swap(true) {
				t.Error("a worker is in two parts at once")
			}
			busy[w].Store(false)
		})
	}
}

func BenchmarkCrew(b *testing.B) {
	c := crew{workers: []*worker{{}, {}}}
	defer c.start()()
	for b.Loop() {
		c.parallel(2, func(*worker, int) {})
	}
}
