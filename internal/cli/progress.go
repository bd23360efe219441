package cli

import (
	"fmt"
	"sync"
	"time"
)

// progress shows where a verb stands: on a terminal one line that is rewritten,
// from the second second on; otherwise a log line a minute.
type progress struct {
	a       *app
	started time.Time
	mu      sync.Mutex
	last    time.Time
	shown   bool
}

func (a *app) progress() *progress {
	now := time.Now()
	return &progress{a: a, started: now, last: now}
}

// show prints text at most five times a second.
func (p *progress) show(text func(elapsed time.Duration) string) {
	if p.a.quiet {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	every := time.Minute
	if p.a.terminal() {
		every = 200 * time.Millisecond
		if now.Sub(p.started) < 2*time.Second {
			return
		}
	}
	if now.Sub(p.last) < every {
		return
	}
	p.last = now
	if p.a.terminal() {
		p.shown = true
		fmt.Fprintf(p.a.err, "\r\x1b[K%s", text(now.Sub(p.started)))
		return
	}
	fmt.Fprintln(p.a.err, text(now.Sub(p.started)))
}

// done clears the line.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.a.err, "\r\x1b[K")
		p.shown = false
	}
}

// count prints a number of rows with thousands apart: 1,234,567.
func count(n int64) string {
	s := fmt.Sprint(n)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func rate(rows int64, took time.Duration) string {
	if took <= 0 {
		return "-"
	}
	return count(int64(float64(rows)/took.Seconds())) + " rows/s"
}

// left estimates the time to go when share of the work is done.
func left(elapsed time.Duration, share float64) string {
	if share <= 0 {
		return "?"
	}
	return time.Duration(float64(elapsed) * (1/share - 1)).Round(time.Second).String()
}
