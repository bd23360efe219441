package config

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"reflect"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline"
)

// Build makes the operators, source and sinks of p, in this order, and returns
// them as a configuration of the engine that lacks only what a file does not
// say (From, Drain, Hooks). It tries every step, so that all faults come at
// once, each at the step's key or at the field that the builder's error begins
// with. On a fault everything that was made is closed. The caller owns what is
// returned and closes it; the engine closes nothing that was not run.
func (p *Pipeline) Build(ctx context.Context, env Env) (pipeline.Config, Faults) {
	if env.Log == nil {
		env.Log = slog.New(slog.DiscardHandler)
	}
	if env.Allocator == nil {
		env.Allocator = memory.DefaultAllocator
	}
	env.Delivery = p.Settings.Delivery
	b := &builder{ctx: ctx, env: env, pipeline: p}

	c := p.Settings.engine()
	c.Allocator = env.Allocator
	for _, s := range p.Operators {
		op := made[pipeline.Operator](b, s)
		c.Operators = append(c.Operators, pipeline.NamedOperator{Name: s.Name, Operator: op})
		if n, ok := op.(Needer); ok && b.env.Needs == nil {
			b.env.Needs = n.Needs()
		}
	}
	c.Source = made[pipeline.Source](b, p.Source)
	for _, s := range p.Sinks {
		c.Sinks = append(c.Sinks, pipeline.NamedSink{Name: s.Name, Sink: made[pipeline.Sink](b, s)})
	}
	if p.DeadLetters != nil {
		c.DeadLetters = made[pipeline.Sink](b, p.DeadLetters)
	}
	if len(b.faults) == 0 {
		b.join(&c)
	}
	if len(b.faults) > 0 {
		b.close()
		b.faults.sort()
		return pipeline.Config{}, b.faults
	}
	return c, nil
}

// engine returns the settings as the engine takes them.
func (s Settings) engine() pipeline.Config {
	c := pipeline.Config{
		Workers: s.Workers, MaxBatches: s.MaxBatches, MaxBytes: int64(s.MaxBytes),
		CommitBatches: s.CommitBatches, CommitInterval: s.CommitInterval,
		DeadLetterLimit: pipeline.DeadLetterLimit{InRow: s.DeadLetterLimit.InRow, Share: s.DeadLetterLimit.Share},
	}
	if s.OnError == "dead_letter" {
		c.OnError = pipeline.DeadLetter
	}
	return c
}

// builder is the state of one Build; it does not outlive the call.
type builder struct {
	ctx      context.Context
	env      Env
	pipeline *Pipeline
	faults   Faults
	closers  []io.Closer
}

// made builds a step as a T, or notes its faults.
func made[T any](b *builder, s *Step) (thing T) {
	env := b.env
	env.Log = env.Log.With("component", s.Name)
	// The builder gets a copy: the pipeline stays what the file says.
	cfg := reflect.New(reflect.TypeOf(s.Config).Elem())
	cfg.Elem().Set(reflect.ValueOf(s.Config).Elem())
	got, err := s.kind.build(b.ctx, env, cfg.Interface())
	if err != nil {
		b.faults = append(b.faults, b.pipeline.decoder.causes(s.Path, s.Config, err)...)
		return thing
	}
	thing, ok := got.(T)
	if !ok {
		b.faults = append(b.faults, b.pipeline.decoder.causes(s.Path, s.Config, errors.New("the builder made nothing"))...)
		return thing
	}
	if c, ok := got.(io.Closer); ok {
		b.closers = append(b.closers, c)
	}
	return thing
}

// join lets sinks take others in whose rows they write with their own, and dead
// letters too.
func (b *builder) join(c *pipeline.Config) {
	fault := func(s *Step, err error) {
		b.faults = append(b.faults, b.pipeline.decoder.causes(s.Path, s.Config, err)...)
	}
	var sinks []pipeline.NamedSink
	for i, s := range c.Sinks {
		taken := false
		for k, before := range sinks {
			if j, ok := before.Sink.(Joiner); ok && !taken {
				var err error
				if taken, err = j.Join(s.Sink); err != nil {
					fault(b.pipeline.Sinks[i], err)
				}
				if taken {
					sinks[k].Name += "+" + s.Name
				}
			}
		}
		if !taken {
			sinks = append(sinks, s)
		}
	}
	c.Sinks = sinks
	if c.DeadLetters == nil {
		return
	}
	for _, s := range sinks {
		j, ok := s.Sink.(LetterJoiner)
		if !ok {
			continue
		}
		taken, err := j.JoinLetters(c.DeadLetters)
		if err != nil {
			fault(b.pipeline.DeadLetters, err)
		}
		if taken {
			c.DeadLetters = s.Sink
			return
		}
	}
	if b.env.Delivery == ExactlyOnce {
		fault(b.pipeline.DeadLetters, errors.New("exactly_once needs a place for dead letters where the rows go, "+
			"so that both become durable at once: a topic of the same cluster, or a folder beside Parquet files"))
	}
}

// A Joiner is a sink that can write what another was to write, together with its
// own rows. Join reports whether it does; the other sink is done with then.
type Joiner interface {
	Join(other pipeline.Sink) (bool, error)
}

// A LetterJoiner is a sink that can take the dead letters of another together with
// its rows (pipeline.LetterWriter); the other is done with then.
type LetterJoiner interface {
	JoinLetters(dead pipeline.Sink) (bool, error)
}

// A Needer is an operator that knows which columns it cannot do without.
type Needer interface{ Needs() []arrow.Field }

// close closes what was made, the last first.
func (b *builder) close() {
	for i := len(b.closers) - 1; i >= 0; i-- {
		if err := b.closers[i].Close(); err != nil {
			b.faults = append(b.faults, Fault{File: b.pipeline.File, Message: "close after the faults: " + err.Error(), Err: err})
		}
	}
}
