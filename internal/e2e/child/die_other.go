//go:build !linux

package child

import "syscall"

// dieWithUs does nothing here: a test process that is killed leaves its children behind.
func dieWithUs() *syscall.SysProcAttr { return nil }
