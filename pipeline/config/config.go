// Package config turns a YAML file into a runnable pipeline.
//
//	p, faults := config.Load("elbo.yaml", registry, config.Options{})
//	if len(faults) > 0 {
//		return faults // every fault of the file, each with line and column
//	}
//	run, faults := p.Build(ctx, config.Env{})
//
// The file names one source, operators in order, and sinks. Which kinds there
// are is the caller's table, a Registry; this package knows none. The YAML is
// parsed first; then ${VAR}, ${VAR:default} and ${file:path} are replaced in
// values only, so that no variable can change the shape of the file.
//
// The mistake to avoid is comparing the Faults of a good file with an error: a
// nil Faults in an error variable is not nil. Use Faults.Err.
package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/elbo-stream/elbo/internal/hint"
)

// The promises a file may ask for.
const (
	AtLeastOnce     = "at_least_once"
	EffectivelyOnce = "effectively_once"
	ExactlyOnce     = "exactly_once"
)

// Settings are the top-level keys of a file besides its source, operators,
// sinks and dead_letters.
type Settings struct {
	Delivery       string        `yaml:"delivery" default:"at_least_once" enum:"at_least_once,effectively_once,exactly_once" doc:"What a crash may do to the output: repeat rows, overwrite them with the same, or neither."`
	OnError        string        `yaml:"on_error" default:"fail" enum:"fail,dead_letter" doc:"What happens to rows that an operator cannot take: stop the run, or write them to dead_letters and go on."`
	Workers        int           `yaml:"workers" doc:"Batches computed at once; 0 means one for each processor."`
	MaxBatches     int           `yaml:"max_batches" doc:"Most batches between the source and the slowest sink; 0 means four for each worker."`
	MaxBytes       ByteSize      `yaml:"max_bytes" default:"256MiB" doc:"Most bytes between the source and the slowest sink; a larger batch passes alone."`
	CommitBatches  int           `yaml:"commit_batches" default:"100" doc:"Durable batches that make a commit due."`
	CommitInterval time.Duration `yaml:"commit_interval" default:"1s" doc:"Longest time that a durable batch waits for its commit."`
	// DeadLetterLimit stops a run whose rows nearly all fail.
	DeadLetterLimit DeadLetterLimit `yaml:"dead_letter_limit" doc:"When so many rows fail that the run stops all the same."`
}

// DeadLetterLimit is the dead_letter_limit of a file.
type DeadLetterLimit struct {
	InRow int64   `yaml:"in_row" default:"1000" doc:"Most dead letters one after the other in a partition; -1 means no limit."`
	Share float64 `yaml:"share" default:"0.05" doc:"Largest share of dead letters among the last 10000 rows or more; -1 means no limit."`
}

// Validate reports the settings that are out of range.
func (s *Settings) Validate() error {
	var faults []error
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"workers", int64(s.Workers)}, {"max_batches", int64(s.MaxBatches)}, {"max_bytes", int64(s.MaxBytes)},
		{"commit_batches", int64(s.CommitBatches)}, {"commit_interval", int64(s.CommitInterval)},
	} {
		if n.value < 0 {
			faults = append(faults, fmt.Errorf("%s: is negative; it must be 0 or more", n.name))
		}
	}
	if s.DeadLetterLimit.Share > 1 {
		faults = append(faults, fmt.Errorf("dead_letter_limit.share: %v is more than 1, which is all rows", s.DeadLetterLimit.Share))
	}
	return errors.Join(faults...)
}

// Options say where a file's variables come from. The zero value means the
// process's environment and the machine's files.
type Options struct {
	// LookupEnv returns a variable; nil means os.LookupEnv.
	LookupEnv func(name string) (string, bool)
	// ReadFile reads a file for ${file:path}; nil means the first 64 KiB and
	// one byte of a file of the machine.
	ReadFile func(path string) ([]byte, error)
}

func (o Options) withDefaults() Options {
	if o.LookupEnv == nil {
		o.LookupEnv = os.LookupEnv
	}
	if o.ReadFile == nil {
		o.ReadFile = func(path string) ([]byte, error) { return readSome(path, maxSecretBytes) }
	}
	return o
}

// readSome reads a file up to one byte more than most, which tells that it is
// larger.
func readSome(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most+1))
}

// A Step is one source, operator or sink of a file.
type Step struct {
	// Kind is its kind, as parquet.
	Kind string
	// Name tells sinks apart: the file's name, or the kind, with a number from
	// the second on. For other steps it is the kind.
	Name string
	// Path is its place in the file, as sinks[0].parquet.
	Path string
	// Config points to the kind's config struct, filled in.
	Config any

	kind kind
}

// A Pipeline is a file that was read without a fault. It is not safe for
// concurrent use.
type Pipeline struct {
	// File is the name it was loaded under.
	File      string
	Settings  Settings
	Source    *Step
	Operators []*Step
	Sinks     []*Step
	// DeadLetters is nil unless on_error is dead_letter.
	DeadLetters *Step

	decoder *decoder // knows places and what must not be shown
}

// Load reads the file at path; see Parse.
func Load(path string, reg Registry, o Options) (*Pipeline, Faults) {
	data, err := readSome(path, maxBytes)
	if err != nil {
		msg := "cannot be read: " + err.Error()
		switch {
		case os.IsNotExist(err):
			msg = "does not exist; give the path of a pipeline's YAML file"
		case os.IsPermission(err):
			msg = "may not be read by this user"
		}
		return nil, Faults{{File: path, Message: msg, Err: err}}
	}
	return Parse(path, data, reg, o)
}

// Parse reads a file's bytes; file is the name for messages. It builds nothing
// and opens nothing but the files named by ${file:path}. It returns a pipeline
// or every fault of the file, sorted by place.
func Parse(file string, data []byte, reg Registry, o Options) (*Pipeline, Faults) {
	root, faults := parseTree(file, data)
	if len(faults) > 0 {
		return nil, faults
	}
	d := &decoder{file: file, options: o.withDefaults(), places: map[string]place{}, shown: map[string]string{}}
	p := &Pipeline{File: file, decoder: d}
	d.pipeline(p, root, reg)
	if len(d.faults) > 0 {
		d.faults.sort()
		return nil, d.faults
	}
	return p, nil
}

// pipeline reads the whole file into p.
func (d *decoder) pipeline(p *Pipeline, root *yaml.Node, reg Registry) {
	roles := reg.roles()
	_ = fillDefaults(reflect.ValueOf(&p.Settings).Elem())
	settings := fieldsOf(reflect.TypeFor[Settings]())
	top := append([]string{"source", "operators", "sinks", "dead_letters"}, names(settings)...)

	var rest []entry
	met, misspelt := map[string]entry{}, map[string]bool{}
	for _, e := range d.entries(root, "") {
		met[e.key] = e
		switch e.key {
		case "source":
			p.Source = d.step(e.node, e.path, roles[0], roles)
		case "operators":
			p.Operators = d.steps(e, roles[1], roles)
		case "sinks":
			p.Sinks = d.steps(e, roles[2], roles)
		case "dead_letters":
			p.DeadLetters = d.deadLetters(e, reg)
		default:
			if !slices.Contains(top, e.key) {
				if near := d.unknownKey(e, top); near != "" && met[near].name == nil {
					misspelt[near] = true
				}
				continue
			}
			rest = append(rest, e)
		}
	}
	before := len(d.faults)
	d.fields(rest, settings, reflect.ValueOf(&p.Settings).Elem())
	if len(d.faults) == before {
		d.validate("", &p.Settings)
	}
	for _, key := range []string{"source", "sinks"} {
		if _, ok := met[key]; !ok && !misspelt[key] {
			d.fault(root, key, "must be set; without it there is no pipeline")
		}
	}
	d.delivery(p, met["delivery"], reg)
	d.onError(p, met, reg)
	d.nameSinks(p)
}

// unknownKey returns the key that was probably meant, or "".
func (d *decoder) unknownKey(e entry, top []string) string {
	near := hint.Nearest(e.key, top)
	if near != "" {
		d.fault(e.name, e.path, "unknown field%s", hint.DidYouMean(e.key, top))
	} else {
		d.fault(e.name, e.path, "unknown field; a file has %s", strings.Join(top, ", "))
	}
	return near
}

// delivery refuses a promise that this build does not keep.
func (d *decoder) delivery(p *Pipeline, e entry, reg Registry) {
	can := reg.deliveries()
	if slices.Contains(can, p.Settings.Delivery) || e.node == nil {
		return
	}
	if node, ok := d.resolve(e.node, e.path); ok {
		d.fault(node, e.path, "%s is not in this build yet; write %s", p.Settings.Delivery, list(can))
	}
}

// onError checks that on_error and dead_letters go together.
func (d *decoder) onError(p *Pipeline, met map[string]entry, reg Registry) {
	letters, hasLetters := met["dead_letters"]
	choice, hasChoice := met["on_error"]
	faulty := slices.ContainsFunc(d.faults, func(f Fault) bool { return f.Path == "on_error" })
	switch {
	case faulty: // nobody knows which it should be
	case p.Settings.OnError == "dead_letter" && !hasLetters && reg.DeadLetters.Build == nil:
		d.fault(choice.node, choice.path, "dead_letter is not in this build yet; write fail")
	case p.Settings.OnError == "dead_letter" && !hasLetters:
		d.fault(choice.node, choice.path, "dead_letter needs a place for the rows; add the key dead_letters, as in dead_letters: {path: dead/}")
	case hasLetters && !hasChoice:
		d.fault(letters.name, letters.path, "is not used, because on_error is fail; add on_error: dead_letter or remove this")
	case hasLetters && p.Settings.OnError == "fail":
		d.fault(letters.name, letters.path, "is not used, because on_error is fail; write on_error: dead_letter or remove this")
	}
}

// validate calls the Validate method of a config struct, if it has one.
func (d *decoder) validate(path string, cfg any) {
	if v, ok := cfg.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			d.faults = append(d.faults, d.causes(path, cfg, err)...)
		}
	}
}
