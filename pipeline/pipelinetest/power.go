package pipelinetest

import (
	"errors"
	"sync"
)

// ErrCrash is what every fake returns once its Power is off.
var ErrCrash = errors.New("the machine has crashed")

// A Power feeds the fakes of one run. Once it is off, each of their operations
// fails with ErrCrash and changes nothing that survives the run. Nil is a power
// that never fails. It is safe for concurrent use.
type Power struct {
	mu   sync.Mutex
	left int // operations until it goes off; negative: it stays on
}

// NewPower returns a power that goes off after n operations of the fakes; with a
// negative n it stays on until Off is called.
func NewPower(n int) *Power { return &Power{left: n} }

// Off cuts the power.
func (p *Power) Off() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = 0
}

// IsOff reports whether the power is off.
func (p *Power) IsOff() bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.left == 0
}

// use counts one operation and returns ErrCrash when there is no power for it.
func (p *Power) use() error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == 0 {
		return ErrCrash
	}
	if p.left > 0 {
		p.left--
	}
	return nil
}
