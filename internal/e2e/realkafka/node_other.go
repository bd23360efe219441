//go:build !linux

package realkafka

import "syscall"

// dieWithUs does nothing here: a test process that is killed leaves its nodes behind.
func dieWithUs() *syscall.SysProcAttr { return nil }
