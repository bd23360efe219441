package config

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline"
)

// Env is what every builder is given besides its own config.
type Env struct {
	// Log is never nil in a builder.
	Log *slog.Logger
	// Allocator provides the memory of records; it is never nil in a builder.
	Allocator memory.Allocator
	// Delivery is the file's promise: at_least_once, effectively_once or
	// exactly_once. Build fills it in.
	Delivery string
	// Needs are the columns that the first Needer among the operators cannot do
	// without, for sources that have to be told what to look for; nil without one.
	// Build fills it in.
	Needs []arrow.Field
}

// A Kind is one kind of source, operator or sink. NewKind makes one.
//
// Its config is a struct, whose tags are read here and are the users'
// documentation:
//
//	yaml:"path"        the key; "-" hides the field, ",inline" lifts a struct's fields
//	doc:"..."          one sentence for the schema and the reference page
//	default:"128MiB"   what the field is when the file does not set it
//	required:"true"    the file must set it
//	enum:"a,b,c"       what a string, or each in a list, may be
//	unit:"bytes"       an int64 that is written as 128MiB
//	secret:"true"      a string that is never printed
//
// Fields may be strings, booleans, numbers, time.Duration, ByteSize, Secret,
// types that unmarshal text, structs, and lists, maps (with string keys) and
// pointers of these. When *C has a method Validate() error it is called once the
// file has been read. The errors it and Build join may begin with a field's
// path, as in "roll.size: 0 is too small"; they are reported at that field.
type Kind[T any] struct {
	// Name is the key in the file.
	Name string
	// Summary is one sentence for the reference page.
	Summary string
	// Config returns a pointer to a new config struct; nil for a planned kind.
	Config func() any
	// Build makes the thing; cfg is what Config returned, filled in.
	Build func(ctx context.Context, env Env, cfg any) (T, error)
	// Planned says that the kind is documented but not in this build.
	Planned bool
}

// NewKind returns a kind whose config is a C.
func NewKind[T, C any](name, summary string, build func(context.Context, Env, C) (T, error)) Kind[T] {
	return Kind[T]{
		Name: name, Summary: summary,
		Config: func() any { return new(C) },
		Build:  func(ctx context.Context, env Env, cfg any) (T, error) { return build(ctx, env, *cfg.(*C)) },
	}
}

// SourceKind is NewKind for sources.
func SourceKind[C any](name, summary string, build func(context.Context, Env, C) (pipeline.Source, error)) Kind[pipeline.Source] {
	return NewKind(name, summary, build)
}

// OperatorKind is NewKind for operators.
func OperatorKind[C any](name, summary string, build func(context.Context, Env, C) (pipeline.Operator, error)) Kind[pipeline.Operator] {
	return NewKind(name, summary, build)
}

// SinkKind is NewKind for sinks.
func SinkKind[C any](name, summary string, build func(context.Context, Env, C) (pipeline.Sink, error)) Kind[pipeline.Sink] {
	return NewKind(name, summary, build)
}

// Planned returns a kind that a file may not use yet; the message says so.
func Planned[T any](name, summary string) Kind[T] {
	return Kind[T]{Name: name, Summary: summary, Planned: true}
}

// A Registry is the table of everything that a file may name. It is a value:
// nothing registers itself.
type Registry struct {
	Sources   []Kind[pipeline.Source]
	Operators []Kind[pipeline.Operator]
	Sinks     []Kind[pipeline.Sink]
	// DeadLetters builds the sink of rows that failed from the file's
	// dead_letters; its Name is not used. The zero value means that this build
	// has none.
	DeadLetters Kind[pipeline.Sink]
	// Deliveries are the promises this build keeps; empty means at_least_once.
	Deliveries []string
}

// kind is a Kind of any role.
type kind struct {
	name, summary string
	config        func() any
	planned       bool
	build         func(ctx context.Context, env Env, cfg any) (any, error)
}

func untyped[T any](k Kind[T]) kind {
	u := kind{name: k.Name, summary: k.Summary, config: k.Config, planned: k.Planned}
	if k.Build != nil {
		u.build = func(ctx context.Context, env Env, cfg any) (any, error) { return k.Build(ctx, env, cfg) }
	}
	return u
}

// A role is one of the three places for kinds.
type role struct {
	key   string // in the file: source, operators, sinks
	one   string // in messages: source, operator, sink
	kinds []kind
}

func (r Registry) roles() []role {
	roles := []role{{key: "source", one: "source"}, {key: "operators", one: "operator"}, {key: "sinks", one: "sink"}}
	for _, k := range r.Sources {
		roles[0].kinds = append(roles[0].kinds, untyped(k))
	}
	for _, k := range r.Operators {
		roles[1].kinds = append(roles[1].kinds, untyped(k))
	}
	for _, k := range r.Sinks {
		roles[2].kinds = append(roles[2].kinds, untyped(k))
	}
	return roles
}

func (r role) find(name string) (kind, bool) {
	for _, k := range r.kinds {
		if k.name == name {
			return k, true
		}
	}
	return kind{}, false
}

// built lists the names of the kinds that are in this build.
func (r role) built() []string {
	var all []string
	for _, k := range r.kinds {
		if !k.planned {
			all = append(all, k.name)
		}
	}
	return all
}

func (r Registry) deliveries() []string {
	if len(r.Deliveries) == 0 {
		return []string{AtLeastOnce}
	}
	return r.Deliveries
}

// newConfig returns a config struct with its defaults filled in.
func newConfig(k kind) any {
	cfg := k.config()
	_ = fillDefaults(reflect.ValueOf(cfg).Elem()) // Check has seen the tags
	return cfg
}

// Check reports the mistakes of the program in its kinds: names used twice,
// configs that are no structs, defaults that do not parse, fields of types that
// a file cannot hold, and fields without documentation. Call it in a test.
func (r Registry) Check() error {
	var errs []error
	check := func(place string, k kind) {
		if k.planned {
			return
		}
		if k.config == nil || k.build == nil {
			errs = append(errs, fmt.Errorf("%s: Config and Build must be set", place))
			return
		}
		v := reflect.ValueOf(k.config())
		if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
			errs = append(errs, fmt.Errorf("%s: Config returns %s, which is no pointer to a struct", place, v.Type()))
			return
		}
		if err := fillDefaults(v.Elem()); err != nil {
			errs = append(errs, fmt.Errorf("%s: default: %w", place, err))
		}
		errs = append(errs, checkType(place, v.Elem().Type(), 0)...)
	}
	for _, role := range r.roles() {
		seen := map[string]bool{"name": role.key != "source"}
		for _, k := range role.kinds {
			place := role.key + "." + k.name
			if seen[k.name] {
				errs = append(errs, fmt.Errorf("%s: the name is taken", place))
			}
			seen[k.name] = true
			check(place, k)
		}
	}
	if r.DeadLetters.Config != nil {
		check("dead_letters", untyped(r.DeadLetters))
	}
	return errors.Join(errs...)
}

func checkType(place string, t reflect.Type, depth int) []error {
	switch {
	case depth > maxDepth:
		return []error{fmt.Errorf("%s: the type contains itself", place)}
	case isScalar(t):
		return checkScalar(place, t)
	case t.Kind() == reflect.Struct:
		var errs []error
		for _, f := range fieldsOf(t) {
			if f.doc == "" {
				errs = append(errs, fmt.Errorf("%s.%s: has no doc tag", place, f.name))
			}
			errs = append(errs, checkType(place+"."+f.name, f.typ, depth+1)...)
		}
		return errs
	case t.Kind() == reflect.Map && t.Key().Kind() != reflect.String:
		return []error{fmt.Errorf("%s: the keys of %s are no strings", place, t)}
	}
	return checkType(place, t.Elem(), depth+1)
}

func checkScalar(place string, t reflect.Type) []error {
	err := setScalar(reflect.New(t).Elem(), field{}, "0")
	if err != nil && !scalarKind(t) {
		return []error{fmt.Errorf("%s: a file cannot hold a %s; hide the field with yaml:\"-\"", place, t)}
	}
	return nil
}

// scalarKind reports whether setScalar reads the type, though maybe not "0".
func scalarKind(t reflect.Type) bool {
	if _, ok := reflect.New(t).Interface().(interface{ UnmarshalText([]byte) error }); ok {
		return true
	}
	return t.Kind() >= reflect.Bool && t.Kind() <= reflect.Float64 && t.Kind() != reflect.Uintptr || t.Kind() == reflect.String
}
