package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/elbo-stream/elbo/internal/hint"
)

// place is where a value, or its key, stands in the file.
type place struct{ line, col int }

// decoder walks the tree beside the types and collects faults. It never stops
// at one.
type decoder struct {
	file    string
	options Options
	faults  Faults
	visits  int
	depth   int
	full    bool             // a bound was hit, nothing more is looked at
	places  map[string]place // of every key, by path
	shown   map[string]string
}

func (d *decoder) fault(n *yaml.Node, path, format string, args ...any) {
	d.faultOf(n, path, fmt.Errorf(format, args...))
}

// faultOf notes a fault whose message is err; beyond maxFaults they are dropped.
func (d *decoder) faultOf(n *yaml.Node, path string, err error) {
	if len(d.faults) < maxFaults {
		d.faults = append(d.faults, Fault{File: d.file, Line: n.Line, Col: n.Column, Path: path, Message: err.Error(), Err: err})
	}
}

// enter counts a visit; it says no where the file goes too deep or too far.
func (d *decoder) enter(n *yaml.Node, path string) bool {
	d.visits++
	if d.full || d.visits > maxVisits || d.depth > maxDepth {
		if !d.full {
			d.fault(n, path, "too deep or too many values here; aliases may multiply them")
		}
		d.full = true
		return false
	}
	return true
}

// resolve follows an alias and refuses tags.
func (d *decoder) resolve(n *yaml.Node, path string) (*yaml.Node, bool) {
	if n.Kind == yaml.AliasNode {
		target := *n.Alias // the reader has seen that it exists and is no alias
		target.Line, target.Column = n.Line, n.Column
		n = &target
	}
	if n.Style&yaml.TaggedStyle != 0 {
		d.fault(n, path, "the tag %s; tags are not used here, remove it", n.Tag)
		return n, false
	}
	return n, true
}

// An entry is one key of a mapping and its value.
type entry struct {
	key        string
	path       string
	name, node *yaml.Node
}

// entries lists a mapping's keys in order. It reports keys that are used twice,
// are no words or are merge keys, and leaves them out.
func (d *decoder) entries(n *yaml.Node, path string) []entry {
	var all []entry
	seen := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Kind == yaml.ScalarNode && k.Tag == "!!merge":
			d.fault(k, path, "merge keys (<<) are not supported; write the keys out, or use one alias (*name) for the whole value")
			continue
		case k.Kind != yaml.ScalarNode:
			d.fault(k, path, "a key must be a single word, not %s", describe(k))
			continue
		case seen[k.Value] != nil:
			d.fault(k, join(path, k.Value), "the key is here twice (first in line %d); remove one", seen[k.Value].Line)
			continue
		}
		seen[k.Value] = k
		e := entry{key: k.Value, path: join(path, k.Value), name: k, node: v}
		d.places[e.path] = place{k.Line, k.Column}
		all = append(all, e)
	}
	return all
}

func join(path, key string) string {
	if len(key) > 60 {
		key = key[:60] + "..."
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// structure reads a mapping into struct v. At is the node to point at for what
// is missing.
func (d *decoder) structure(n, at *yaml.Node, path string, v reflect.Value) {
	n, ok := d.resolve(n, path)
	if !ok || !d.enter(n, path) {
		return
	}
	if short, ok := v.Addr().Interface().(Shorthand); ok && n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		d.shorthand(n, path, short)
		return
	}
	fields := fieldsOf(v.Type())
	var all []entry
	switch {
	case n.Kind == yaml.MappingNode:
		all = d.entries(n, path)
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null": // "key:" alone
	default:
		d.fault(n, path, "must be keys with values, not %s; its keys are %s", describe(n), strings.Join(names(fields), ", "))
		return
	}
	d.depth++
	defer func() { d.depth-- }()
	set := d.fields(all, fields, v)
	d.missing(at, path, fields, set)
}

// shorthand reads a word that stands for a struct.
func (d *decoder) shorthand(n *yaml.Node, path string, v Shorthand) {
	var text string
	before := len(d.faults)
	d.scalar(n, path, field{}, reflect.ValueOf(&text).Elem())
	if len(d.faults) > before {
		return
	}
	if err := v.SetShort(text); err != nil {
		d.fault(n, path, "%q %w", text, err)
	}
}

// fields reads the entries that are fields of v and reports the others. It
// returns the names it met, also misspelt.
func (d *decoder) fields(all []entry, fields []field, v reflect.Value) map[string]bool {
	set := map[string]bool{}
	for _, e := range all {
		found := false
		for _, f := range fields {
			if f.name == e.key {
				found = true
				set[f.name] = true
				d.value(e.node, e.name, e.path, f, v.FieldByIndex(f.index))
			}
		}
		if !found {
			set[d.unknownField(e, fields)] = true
		}
	}
	return set
}

// unknownField returns the name of the field that was probably meant, or "".
func (d *decoder) unknownField(e entry, fields []field) string {
	all := names(fields)
	if near := hint.Nearest(e.key, all); near != "" {
		d.fault(e.name, e.path, "unknown field%s", hint.DidYouMean(e.key, all))
		return near
	}
	switch len(all) {
	case 0:
		d.fault(e.name, e.path, "unknown field; there are none here, write {}")
	default:
		d.fault(e.name, e.path, "unknown field; there is %s", strings.Join(all, ", "))
	}
	return ""
}

func (d *decoder) missing(at *yaml.Node, path string, fields []field, set map[string]bool) {
	for _, f := range fields {
		if f.required && !set[f.name] {
			d.fault(at, join(path, f.name), "must be set%s", aside(f.doc))
		}
	}
}

// aside puts a field's documentation in brackets.
func aside(doc string) string {
	if doc == "" {
		return ""
	}
	return " (" + strings.TrimSuffix(doc, ".") + ")"
}

// value reads one value of any supported type into v. At is its key.
func (d *decoder) value(n, at *yaml.Node, path string, f field, v reflect.Value) {
	t := v.Type()
	if t.Kind() == reflect.Struct && !isScalar(t) {
		d.structure(n, at, path, v)
		return
	}
	n, ok := d.resolve(n, path)
	if !ok || !d.enter(n, path) {
		return
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" && element(t).Kind() != reflect.Struct {
		d.fault(at, path, "has no value; give it one or remove the line%s", aside(f.doc))
		return
	}
	d.depth++
	defer func() { d.depth-- }()
	switch {
	case isScalar(t):
		d.scalar(n, path, f, v)
	case t.Kind() == reflect.Pointer:
		p := reflect.New(t.Elem())
		if t.Elem().Kind() == reflect.Struct && !isScalar(t.Elem()) {
			_ = fillDefaults(p.Elem())
		}
		d.value(n, at, path, f, p.Elem())
		v.Set(p)
	case t.Kind() == reflect.Slice:
		d.items(n, at, path, f, v)
	case t.Kind() == reflect.Map:
		d.table(n, path, f, v)
	default:
		d.fault(n, path, "cannot be set in a file: the program has no reader for %s", t)
	}
}

// items reads a list; it replaces the default.
func (d *decoder) items(n, at *yaml.Node, path string, f field, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		if n.Kind == yaml.ScalarNode {
			d.fault(n, path, "must be a list; write [%s]", d.excerpt(n))
		} else {
			d.fault(n, path, "must be a list, not %s", describe(n))
		}
		return
	}
	if f.required && len(n.Content) == 0 {
		d.fault(n, path, "must not be empty%s", aside(f.doc))
	}
	list := reflect.MakeSlice(v.Type(), 0, len(n.Content))
	for i, item := range n.Content {
		if d.full {
			break
		}
		iv := reflect.New(v.Type().Elem()).Elem()
		if iv.Kind() == reflect.Struct && !isScalar(iv.Type()) {
			_ = fillDefaults(iv)
		}
		itemPath := fmt.Sprintf("%s[%d]", path, i)
		d.places[itemPath] = place{item.Line, item.Column}
		d.value(item, item, itemPath, field{enum: f.enum, unit: f.unit, secret: f.secret}, iv)
		list = reflect.Append(list, iv)
	}
	v.Set(list)
}

// table reads a map with free keys; it replaces the default.
func (d *decoder) table(n *yaml.Node, path string, f field, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.fault(n, path, "must be keys with values, as in {name: value}, not %s", describe(n))
		return
	}
	m := reflect.MakeMap(v.Type())
	for _, e := range d.entries(n, path) {
		iv := reflect.New(v.Type().Elem()).Elem()
		if iv.Kind() == reflect.Struct && !isScalar(iv.Type()) {
			_ = fillDefaults(iv)
		}
		d.value(e.node, e.name, e.path, field{enum: f.enum, unit: f.unit, secret: f.secret}, iv)
		m.SetMapIndex(reflect.ValueOf(e.key).Convert(v.Type().Key()), iv)
	}
	v.Set(m)
}

// scalar interpolates a word and parses it into v.
func (d *decoder) scalar(n *yaml.Node, path string, f field, v reflect.Value) {
	if n.Kind != yaml.ScalarNode {
		d.fault(n, path, "must be a single value, not %s", describe(n))
		return
	}
	text, shown, err := d.options.interpolate(n.Value)
	if err != nil {
		d.faultOf(n, path, err)
		return
	}
	if f.secret || v.Type() == reflect.TypeFor[Secret]() {
		shown = mask
	}
	if shown != text {
		d.shown[path] = shown
	}
	if f.required && text == "" {
		d.fault(n, path, "must not be empty%s", aside(f.doc))
		return
	}
	if !f.allowed(text) {
		d.fault(n, path, "%s is not one of %s%s", quote(shown), strings.Join(f.enum, ", "), hint.DidYouMean(shown, f.enum))
		return
	}
	if err := setScalar(v, f, text); err != nil {
		if shown != text { // the error may quote what must not be shown
			err = errors.New(maskedFault(v.Type(), f))
		}
		d.fault(n, path, "%s %s", quote(shown), err)
	}
}

// excerpt is a scalar for a message, without what ${} stands for.
func (d *decoder) excerpt(n *yaml.Node) string {
	if len(n.Value) > 60 {
		return "..."
	}
	if strings.ContainsAny(n.Value, ",[]{}:#\"'$*& ") {
		return quote(n.Value)
	}
	return n.Value
}

// place returns the place of the longest known part of a path.
func (d *decoder) place(path string) place {
	for {
		if p, ok := d.places[path]; ok {
			return p
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			return place{}
		}
		path = path[:cut]
	}
}

// causes turns an error about the struct at path into faults, each at the field
// that its text begins with, as in "roll.size: 0 is too small".
func (d *decoder) causes(path string, cfg any, err error) Faults {
	var faults Faults
	for _, e := range flatten(err) {
		f := Fault{File: d.file, Path: path, Message: e.Error(), Err: e}
		if head, rest, ok := strings.Cut(f.Message, ": "); ok && isField(reflect.TypeOf(cfg).Elem(), head) {
			f.Path, f.Message = join(path, head), rest
		}
		at := d.place(f.Path)
		f.Line, f.Col = at.line, at.col
		faults = append(faults, f)
	}
	return faults
}

// isField reports whether a path such as roll.size or topics[2] leads to a field.
func isField(t reflect.Type, path string) bool {
	for _, part := range strings.Split(path, ".") {
		name, _, _ := strings.Cut(part, "[")
		if t = element(t); t.Kind() != reflect.Struct {
			return false
		}
		fields := fieldsOf(t)
		i := slices.Index(names(fields), name)
		if i < 0 {
			return false
		}
		t = fields[i].typ
	}
	return true
}
