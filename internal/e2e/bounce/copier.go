package bounce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/elbo-stream/elbo/internal/e2e/child"
)

// keepCopying runs one copier, restarts it whenever it has ended, and lets faults
// happen to it while faulty lasts. When over is done it ends the copier by SIGTERM.
func (r *run) keepCopying(over, faulty context.Context, index int) error {
	random := rand.New(rand.NewPCG(r.plan.Seed, uint64(index)+2))
	for {
		p, log, err := r.start(index)
		if err != nil {
			return err
		}
		again := r.suffer(over, faulty, index, p, random, log)
		if !again || !pause(over, time.Duration(random.IntN(700))*time.Millisecond) {
			return nil
		}
	}
}

// start starts a copier, with its output appended to a file of its own.
func (r *run) start(index int) (*child.Process, string, error) {
	dir := filepath.Join(r.dir, fmt.Sprintf("copier-%d", index))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, "", err
	}
	config, log := filepath.Join(dir, "config"), filepath.Join(dir, "log")
	words := strings.NewReplacer("{config}", config, "{brokers}", strings.Join(r.c.Brokers, ","), "{in}", inTopic, "{out}", outTopic,
		"{group}", group, "{index}", fmt.Sprint(index), "{dir}", dir)
	if err := os.WriteFile(config, []byte(words.Replace(r.copier.Config)), 0o644); err != nil {
		return nil, "", err
	}
	var args []string
	for _, a := range r.copier.Command {
		args = append(args, words.Replace(a))
	}
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = f, f, dir
	cmd.Env = append(os.Environ(), r.copier.Env...)
	fmt.Fprintf(f, "--- started at %s\n", time.Now().Format("15:04:05.000"))
	p, err := child.Start(cmd)
	return p, log, err
}

// suffer lets faults happen to a copier until it has ended, and reports whether
// it is to be started again.
func (r *run) suffer(over, faulty context.Context, index int, p *child.Process, random *rand.Rand, log string) (again bool) {
	began := time.Now()
	for {
		s, wait := r.next(random)
		var due <-chan time.Time
		if faulty.Err() == nil && s != 0 {
			t := time.NewTimer(wait)
			defer t.Stop()
			due = t.C
		}
		select {
		case <-p.Done():
			r.exit(index, "ended by itself", p.Wait(), log)
			return true
		case <-over.Done():
			r.term(index, p, began, log)
			return false
		case <-due:
		}
		switch {
		case faulty.Err() != nil: // calm has come
		case s == syscall.SIGKILL:
			_ = p.End(s, 0)
			r.fault(func(res *Result) { res.Kills++ })
			return true
		case s == syscall.SIGTERM:
			r.term(index, p, began, log)
			r.fault(func(res *Result) { res.Terms++ })
			return true
		case s == syscall.SIGSTOP:
			p.Signal(s)
			pause(over, r.plan.FreezeFor)
			p.Signal(syscall.SIGCONT)
			r.fault(func(res *Result) { res.Freezes++ })
		}
	}
}

// next draws the next fault of a copier and when it comes; 0 is none.
func (r *run) next(random *rand.Rand) (syscall.Signal, time.Duration) {
	var first syscall.Signal
	var when time.Duration
	for _, f := range []struct {
		s    syscall.Signal
		mean time.Duration
	}{{syscall.SIGKILL, r.plan.Kill}, {syscall.SIGTERM, r.plan.Term}, {syscall.SIGSTOP, r.plan.Freeze}} {
		if f.mean == 0 {
			continue
		}
		if d := time.Duration(float64(f.mean) * (0.1 + 0.9*random.ExpFloat64())); first == 0 || d < when {
			first, when = f.s, d
		}
	}
	return first, when
}

// startUp is how old a copier is at least that must obey SIGTERM: before, it may not
// yet have said that it wants to hear of it, and the signal just ends it.
const startUp = 5 * time.Second

// term ends a copier by SIGTERM, which it should obey in time and with success.
func (r *run) term(index int, p *child.Process, began time.Time, log string) {
	young := time.Since(began) < startUp
	if err := p.End(syscall.SIGTERM, r.plan.Stop); err != nil {
		r.exit(index, "deaf", err, log)
		return
	}
	err, status := p.Wait(), 0
	var exited *exec.ExitError
	if errors.As(err, &exited) {
		if s, ok := exited.Sys().(syscall.WaitStatus); ok && s.Signaled() && s.Signal() == syscall.SIGTERM && young {
			return
		}
		status = exited.ExitCode()
	}
	if status != r.copier.Drained {
		r.exit(index, "after SIGTERM", err, log)
	}
}

// exit notes an end that should not have been, with the end of the copier's log.
func (r *run) exit(index int, how string, err error, log string) {
	const lines = 12
	b, _ := os.ReadFile(log)
	last := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	last = last[max(0, len(last)-lines):]
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Exits = append(r.result.Exits, fmt.Sprintf("copier %d, %s: %v\n%s", index, how, err, bytes.Join(last, []byte("\n"))))
}
