// Package child starts processes that tests need, and sees to it that none is left
// when the test process dies, however it dies.
//
//	p, err := child.Start(exec.Command("kcat", ...))
//	defer p.End(syscall.SIGKILL, 0)
//
// The mistake to avoid is to start such a process from just any goroutine: the
// kernel takes the thread that forked for the parent, and threads come and go.
package child

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// A Process is a process that was started. It is safe for concurrent use.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait, once done is closed
}

// Start starts a command that is killed when this process ends, where the system can do that (Linux).
func Start(cmd *exec.Cmd) (*Process, error) {
	cmd.SysProcAttr = dieWithUs()
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The thread is kept until the process has ended, and lives on after that: others may
		// have been started from it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// Run starts a command and waits for its end, as cmd.Run does.
func Run(cmd *exec.Cmd) error {
	p, err := Start(cmd)
	if err != nil {
		return err
	}
	return p.Wait()
}

// Pid returns the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done closes when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Alive says whether the process has not ended.
func (p *Process) Alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Wait waits for the end and returns what exec's Wait returned.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Signal sends a signal; a process that has ended hears nothing.
func (p *Process) Signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

// End sends a signal and waits until the process has ended. One that has not within
// patience is killed, which is the error; SIGKILL needs no patience. How the process ended
// is told by Wait.
func (p *Process) End(s os.Signal, patience time.Duration) error {
	p.Signal(s)
	if s == syscall.SIGKILL {
		<-p.done
		return nil
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-p.done:
		return nil
	case <-t.C:
		p.Signal(syscall.SIGKILL)
		<-p.done
		return fmt.Errorf("process %d did not end within %v of %v and was killed", p.Pid(), patience, s)
	}
}
