package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/apache/arrow/go/v15/arrow"
)

// A Step is an operator's name and the schema of what it gives.
type Step struct {
	Name   string
	Schema *arrow.Schema
}

// A Plan says what columns flow through a pipeline.
type Plan struct {
	Source *arrow.Schema // of the batches read
	// Rows is the schema that the operators begin with: Source, or what its messages
	// are decoded into.
	Rows  *arrow.Schema
	Steps []Step // one for each operator, in order
}

// Out returns the schema that the sinks are given.
func (p Plan) Out() *arrow.Schema {
	if len(p.Steps) == 0 {
		return p.Rows
	}
	return p.Steps[len(p.Steps)-1].Schema
}

// Bind checks cfg and binds its operators and sinks to the source's schema, one
// after the other, without reading a row. It reports everything that is wrong
// with cfg at once, then every sink's fault, or the first operator's, since
// nothing after it can be bound. The plan holds the steps that were bound, also
// when there is an error.
//
// Run binds for itself: call Bind on its own only for a pipeline that is checked
// and not run, and close its source and sinks afterwards.
func Bind(ctx context.Context, cfg Config) (Plan, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return Plan{}, err
	}
	return bind(ctx, cfg)
}

// A BindError says that an operator cannot work on the columns that it is given.
type BindError struct {
	Operator string // its name
	Err      error
}

// Error names the operator.
func (e *BindError) Error() string { return fmt.Sprintf("bind operator %s: %v", e.Operator, e.Err) }

// Unwrap returns the operator's own error.
func (e *BindError) Unwrap() error { return e.Err }

func bind(ctx context.Context, cfg Config) (Plan, error) {
	var p Plan
	err := guard(func() (err error) {
		p.Source, err = cfg.Source.Schema(ctx)
		return err
	})
	if err != nil {
		return p, fmt.Errorf("schema of the source: %w", err)
	}
	if p.Source == nil {
		return p, errors.New("schema of the source: there is none; Schema must return one without an error")
	}
	p.Rows = p.Source
	if m, ok := cfg.Source.(Messages); ok {
		err := guard(func() (err error) {
			p.Rows, err = m.Decoder().Bind(p.Source)
			return err
		})
		if err == nil && p.Rows == nil {
			err = errors.New("no schema; Bind must return one without an error")
		}
		if err != nil {
			return p, &BindError{Operator: decodeName, Err: err}
		}
	}
	for _, op := range cfg.Operators {
		var out *arrow.Schema
		err := guard(func() (err error) {
			out, err = op.Operator.Bind(p.Out())
			return err
		})
		if err == nil && out == nil {
			err = errors.New("no schema; Bind must return one without an error")
		}
		if err != nil {
			return p, &BindError{Operator: op.Name, Err: err}
		}
		p.Steps = append(p.Steps, Step{Name: op.Name, Schema: out})
	}
	var errs []error
	for _, s := range cfg.Sinks {
		if err := bindSink(s.Sink, p.Out(), cfg.Source); err != nil {
			errs = append(errs, fmt.Errorf("bind sink %s: %w", s.Name, err))
		}
	}
	if cfg.DeadLetters != nil {
		errs = append(errs, bindDeadLetters(cfg, p.Source))
	}
	if err := errors.Join(errs...); err != nil {
		return p, err
	}
	return p, checkCommitter(cfg)
}

// checkCommitter refuses sinks beside one that commits for the source, if they
// could lose rows by it.
func checkCommitter(cfg Config) error {
	for i, s := range cfg.Sinks {
		if c, ok := s.Sink.(Committer); !ok || !c.CommitsSource() {
			continue
		}
		for _, o := range cfg.Sinks {
			if _, owns := o.Sink.(MarkWriter); !owns {
				return fmt.Errorf("sink %s commits the source's positions with its rows, and sink %s has no position of its own: "+
					"a crash could lose rows of it; run it in a pipeline of its own", s.Name, o.Name)
			}
		}
		if cfg.DeadLetters != nil && cfg.letterSink() != i {
			return fmt.Errorf("sink %s commits the source's positions with its rows, and the dead letters go elsewhere: "+
				"a crash could lose some; let that sink take them too", s.Name)
		}
	}
	return nil
}

func bindSink(s Sink, in *arrow.Schema, src Source) error {
	return guard(func() error {
		if err := s.Bind(in); err != nil {
			return err
		}
		if a, ok := s.(Attacher); ok {
			return a.Attach(src)
		}
		return nil
	})
}

func bindDeadLetters(cfg Config, source *arrow.Schema) error {
	schema, err := DeadLetterSchema(source)
	if err == nil {
		err = guard(func() error {
			if i := cfg.letterSink(); i >= 0 {
				return cfg.Sinks[i].Sink.(LetterWriter).BindLetters(schema)
			}
			return cfg.DeadLetters.Bind(schema)
		})
	}
	if err != nil {
		return fmt.Errorf("bind dead letters: %w", err)
	}
	return nil
}

// A PanicError is the panic of an operator, source or sink, as an error.
type PanicError struct {
	Value any    // what was given to panic
	Stack []byte // of the goroutine that panicked
}

// Error returns the panic's value and the place that raised it.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Reason returns "panic", the label under which such dead letters are counted.
func (e *PanicError) Reason() string { return "panic" }

// Unwrap returns the panic's value when it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// guard calls f and turns its panic into an error: one faulty part must not take
// the process and everybody's unwritten rows with it.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f()
}
