package child

import "syscall"

// dieWithUs has the kernel kill the child when the thread that started it ends;
// see Start, which keeps that thread.
func dieWithUs() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
