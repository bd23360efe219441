package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/elbo-stream/elbo/internal/hint"
)

// step reads a mapping with one kind as its key; a list's steps may also have
// a name. It returns nil where the kind cannot be told.
func (d *decoder) step(n *yaml.Node, path string, r role, roles []role) *Step {
	node, ok := d.resolve(n, path)
	if !ok || !d.enter(node, path) {
		return nil
	}
	if node.Kind != yaml.MappingNode {
		d.noKind(node, path, r)
		return nil
	}
	var kinds []entry
	var name string
	for _, e := range d.entries(node, path) {
		if e.key == "name" && r.key != "source" {
			d.scalarName(e, &name)
			continue
		}
		kinds = append(kinds, e)
	}
	switch len(kinds) {
	case 0:
		d.fault(node, path, "names no %s; write one of %s", r.one, strings.Join(r.built(), ", "))
		return nil
	case 1:
		return d.kindStep(kinds[0], name, r, roles)
	}
	d.tooMany(kinds, path, r)
	return nil
}

func (d *decoder) scalarName(e entry, name *string) {
	f := field{name: "name", required: true}
	d.value(e.node, e.name, e.path, f, reflect.ValueOf(name).Elem())
}

// noKind explains what should stand where a step is no mapping.
func (d *decoder) noKind(n *yaml.Node, path string, r role) {
	switch {
	case n.Kind == yaml.SequenceNode && r.key == "source":
		d.fault(n, path, "is a list, but a pipeline has one source; write the kind as a key, without \"- \"")
	case n.Kind == yaml.ScalarNode && n.Tag != "!!null" && slices.Contains(r.built(), n.Value):
		d.fault(n, path, "must be a key with values; write %s: {}", n.Value)
	default:
		d.fault(n, path, "must be one of %s as a key, not %s", strings.Join(r.built(), ", "), describe(n))
	}
}

// tooMany explains several keys in one step.
func (d *decoder) tooMany(kinds []entry, path string, r role) {
	// A key that is a field of the first kind tells that it lacks indentation.
	if k, ok := r.find(kinds[0].key); ok && !k.planned {
		fields := names(fieldsOf(reflect.TypeOf(k.config()).Elem()))
		strays := 0
		for _, e := range kinds[1:] {
			if _, isKind := r.find(e.key); !isKind && slices.Contains(fields, e.key) {
				d.fault(e.name, e.path, "is a field of %s; indent it below that line, deeper than %q", k.name, k.name+":")
				strays++
			}
		}
		if strays == len(kinds)-1 {
			return
		}
	}
	var words []string
	for _, e := range kinds {
		words = append(words, e.key)
	}
	advice := "begin each with \"- \""
	if r.key == "source" {
		advice = "a pipeline has one"
	}
	d.fault(kinds[1].name, path, "%d kinds of %s in one place (%s); %s", len(kinds), r.one, strings.Join(words, ", "), advice)
}

// kindStep reads the config of a kind.
func (d *decoder) kindStep(e entry, name string, r role, roles []role) *Step {
	k, ok := r.find(e.key)
	switch {
	case !ok:
		d.unknownKind(e, r, roles)
		return nil
	case k.planned:
		d.fault(e.name, e.path, "the %s %s is not in this build yet; there is %s", r.one, k.name, strings.Join(r.built(), ", "))
		return nil
	}
	s := &Step{Kind: k.name, Name: name, Path: e.path, Config: newConfig(k), kind: k}
	before := len(d.faults)
	d.structure(e.node, e.name, e.path, reflect.ValueOf(s.Config).Elem())
	if len(d.faults) == before {
		d.validate(e.path, s.Config)
	}
	return s
}

// unknownKind names the nearest kind, or the role that has it.
func (d *decoder) unknownKind(e entry, r role, roles []role) {
	for _, other := range roles {
		if k, ok := other.find(e.key); ok && other.key != r.key && !k.planned {
			d.fault(e.name, e.path, "%s is a kind of %s, not of %s; move it to %s:", e.key, other.one, r.one, other.key)
			return
		}
	}
	var all []string
	for _, k := range r.kinds {
		all = append(all, k.name)
	}
	if near := hint.Nearest(e.key, all); near != "" {
		later := ""
		if k, _ := r.find(near); k.planned {
			later = "; it is not in this build yet, there is " + strings.Join(r.built(), ", ")
		}
		d.fault(e.name, e.path, "unknown %s%s%s", r.one, hint.DidYouMean(e.key, all), later)
		return
	}
	d.fault(e.name, e.path, "unknown %s; there is %s", r.one, strings.Join(r.built(), ", "))
}

// steps reads a list of steps.
func (d *decoder) steps(e entry, r role, roles []role) []*Step {
	n, ok := d.resolve(e.node, e.path)
	if !ok || !d.enter(n, e.path) {
		return nil
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null" && r.key == "operators":
		return nil
	case n.Kind == yaml.MappingNode:
		first := "kind"
		if len(n.Content) > 0 {
			first = n.Content[0].Value
		}
		d.fault(n, e.path, "must be a list; begin each %s with \"- \", as in \"- %s:\"", r.one, first)
		return nil
	case n.Kind != yaml.SequenceNode:
		d.fault(n, e.path, "must be a list of %s, not %s", r.key, describe(n))
		return nil
	case len(n.Content) == 0 && r.key == "sinks":
		d.fault(n, e.path, "there must be at least one sink: %s", strings.Join(r.built(), ", "))
	}
	d.depth++
	defer func() { d.depth-- }()
	var steps []*Step
	for i, item := range n.Content {
		path := fmt.Sprintf("%s[%d]", e.path, i)
		d.places[path] = place{item.Line, item.Column}
		if s := d.step(item, path, r, roles); s != nil {
			steps = append(steps, s)
		}
	}
	return steps
}

// deadLetters reads the config of the sink for rows that failed.
func (d *decoder) deadLetters(e entry, reg Registry) *Step {
	if reg.DeadLetters.Build == nil {
		d.fault(e.name, e.path, "dead letters are not in this build yet; remove this and write on_error: fail")
		return nil
	}
	k := untyped(reg.DeadLetters)
	s := &Step{Kind: "dead_letters", Name: "dead_letters", Path: e.path, Config: newConfig(k), kind: k}
	before := len(d.faults)
	d.structure(e.node, e.name, e.path, reflect.ValueOf(s.Config).Elem())
	if len(d.faults) == before {
		d.validate(e.path, s.Config)
	}
	return s
}

// nameSinks gives each step without a name one, and reports names used twice.
func (d *decoder) nameSinks(p *Pipeline) {
	taken := map[string]*Step{}
	for _, s := range p.Sinks {
		if s.Name == "" {
			continue
		}
		path := strings.TrimSuffix(s.Path, "."+s.Kind) + ".name"
		at := d.place(path)
		node := &yaml.Node{Line: at.line, Column: at.col}
		switch {
		case strings.HasPrefix(strings.ReplaceAll(s.Name, "_", " "), "dead letter"):
			d.fault(node, path, "the name %q is kept for rows that failed; choose another", s.Name)
		case taken[s.Name] != nil:
			d.fault(node, path, "the name %q is taken by %s; choose another", s.Name, taken[s.Name].Path)
		}
		taken[s.Name] = s
	}
	for _, s := range p.Sinks {
		if s.Name != "" {
			continue
		}
		s.Name = s.Kind
		for n := 2; taken[s.Name] != nil; n++ {
			s.Name = fmt.Sprintf("%s-%d", s.Kind, n)
		}
		taken[s.Name] = s
	}
	for _, s := range append(slices.Clone(p.Operators), p.Source) {
		if s != nil && s.Name == "" {
			s.Name = s.Kind
		}
	}
}
