//go:build linux

// Guest is the first and only process of an emulated machine: it runs one test
// binary and switches the machine off. avx512.sh puts it into the initramfs as
// /init, next to the binary (/test) and to /job, which holds the environment and
// the arguments, each string ended by a NUL and the two lists parted by an empty
// string. What the binary prints goes to the console, then a line
// "guest: exit N". The mistake to avoid is running it on a real machine.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
)

func main() {
	code, err := run()
	if err != nil {
		fmt.Println("guest:", err)
	}
	fmt.Printf("guest: exit %d\n", code)
	powerOff()
}

// run mounts what tests look for and runs the binary.
func run() (code int, err error) {
	for _, m := range []struct{ dir, kind string }{{"/proc", "proc"}, {"/sys", "sysfs"}, {"/dev", "devtmpfs"}, {"/tmp", "tmpfs"}} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return 125, err
		}
		if err := syscall.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			return 125, fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	// A kernel that finds fault with the XSAVE area switches AVX off, and tests
	// that ask for the CPU's levels then pass without having tested any.
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return 125, err
	}
	flags := strings.Fields(string(info))
	for _, f := range []string{"fma", "avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl"} {
		if !slices.Contains(flags, f) {
			return 125, fmt.Errorf("this machine has no %s", f)
		}
	}
	if slices.Contains(flags, "avx512_bf16") {
		fmt.Println("guest: AVX-512 with BF16")
	} else {
		fmt.Println("guest: AVX-512 without BF16")
	}
	raw, err := os.ReadFile("/job")
	if err != nil {
		return 125, err
	}
	env, args, _ := strings.Cut(string(raw), "\x00\x00")
	cmd := exec.Command("/test", split(args)...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = split(env), "/package", os.Stdout, os.Stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		return 125, err
	}
	if code = cmd.ProcessState.ExitCode(); code < 0 {
		return 124, fmt.Errorf("the tests died: %v", cmd.ProcessState)
	}
	return code, nil
}

func split(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == 0 })
}

// powerOff lets the console drain and restarts the machine. The kernel, told
// reboot=t, does that by a triple fault, at which Bochs ends.
func powerOff() {
	drain()
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
}

// drain waits until what was written to the console has left the serial port.
func drain() {
	const tcsbrk = 0x5409 // with a non-zero argument: wait, as tcdrain does
	syscall.Syscall(syscall.SYS_IOCTL, os.Stdout.Fd(), tcsbrk, 1)
}
