package config

import (
	"bytes"
	"encoding"
	"fmt"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Effective returns the file as it is understood, in YAML: defaults filled in,
// variables replaced, secrets as ***. What came from ${file:path}, or from a
// variable whose name tells of a secret, is *** too.
func (p *Pipeline) Effective() []byte {
	w := writer{shown: p.decoder.shown}
	root := mapping()
	add(root, "source", w.step(p.Source))
	for _, part := range []struct {
		key   string
		steps []*Step
	}{{"operators", p.Operators}, {"sinks", p.Sinks}} {
		list := &yaml.Node{Kind: yaml.SequenceNode}
		for _, s := range part.steps {
			n := w.step(s)
			if s.Name != s.Kind {
				add(n, "name", scalar(s.Name))
			}
			list.Content = append(list.Content, n)
		}
		if len(list.Content) == 0 {
			list.Style = yaml.FlowStyle
		}
		add(root, part.key, list)
	}
	for _, f := range fieldsOf(reflect.TypeFor[Settings]()) {
		if n := w.value(reflect.ValueOf(p.Settings).FieldByIndex(f.index), f, f.name); n != nil {
			add(root, f.name, n)
		}
		if f.name == "on_error" && p.DeadLetters != nil {
			add(root, "dead_letters", w.structure(reflect.ValueOf(p.DeadLetters.Config).Elem(), p.DeadLetters.Path))
		}
	}
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(root); err != nil { // nodes of our own making always encode
		panic("config: " + err.Error())
	}
	return out.Bytes()
}

func mapping() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode} }

func add(m *yaml.Node, key string, value *yaml.Node) {
	m.Content = append(m.Content, scalar(key), value)
}

// scalar is a node for a text, quoted where YAML would take it for another type.
func scalar(text string) *yaml.Node {
	var n yaml.Node
	n.SetString(text)
	return &n
}

// plain is a node for a text that is of another type, such as a number.
func plain(text, tag string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Value: text, Tag: tag}
}

type writer struct{ shown map[string]string }

func (w writer) step(s *Step) *yaml.Node {
	n := mapping()
	add(n, s.Kind, w.structure(reflect.ValueOf(s.Config).Elem(), s.Path))
	return n
}

func (w writer) structure(v reflect.Value, path string) *yaml.Node {
	n := mapping()
	for _, f := range fieldsOf(v.Type()) {
		if fn := w.value(v.FieldByIndex(f.index), f, path+"."+f.name); fn != nil {
			add(n, f.name, fn)
		}
	}
	if len(n.Content) == 0 {
		n.Style = yaml.FlowStyle
	}
	return n
}

// value returns nil for what is not set and has no default.
func (w writer) value(v reflect.Value, f field, path string) *yaml.Node {
	t := v.Type()
	switch {
	case isScalar(t):
		return w.scalar(v, f, path)
	case t.Kind() == reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return w.value(v.Elem(), f, path)
	case t.Kind() == reflect.Struct:
		return w.structure(v, path)
	case v.Len() == 0:
		return nil
	case t.Kind() == reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		if isScalar(t.Elem()) {
			n.Style = yaml.FlowStyle
		}
		for i := range v.Len() {
			if item := w.value(v.Index(i), f, fmt.Sprintf("%s[%d]", path, i)); item != nil {
				n.Content = append(n.Content, item)
			} else {
				n.Content = append(n.Content, scalar(""))
			}
		}
		return n
	}
	n := mapping()
	keys := v.MapKeys()
	sort.Slice(keys, func(i, j int) bool { return keys[i].String() < keys[j].String() })
	for _, k := range keys {
		if item := w.value(v.MapIndex(k), f, join(path, k.String())); item != nil {
			add(n, k.String(), item)
		}
	}
	return n
}

func (w writer) scalar(v reflect.Value, f field, path string) *yaml.Node {
	if shown, ok := w.shown[path]; ok {
		return scalar(escape(shown))
	}
	if v.IsZero() && (f.secret || v.Kind() == reflect.String) {
		return nil
	}
	if f.secret {
		return scalar(mask)
	}
	switch x := v.Interface().(type) {
	case time.Duration:
		return scalar(formatDuration(x))
	case ByteSize:
		return plain(x.String(), "")
	case encoding.TextMarshaler:
		text, err := x.MarshalText()
		if err != nil {
			return scalar(fmt.Sprint(x))
		}
		return scalar(escape(string(text)))
	}
	switch {
	case v.Kind() == reflect.String:
		return scalar(escape(v.String()))
	case f.unit == "bytes" && v.CanInt():
		return plain(ByteSize(v.Int()).String(), "")
	case v.CanFloat():
		return plain(strconv.FormatFloat(v.Float(), 'g', -1, v.Type().Bits()), "")
	}
	return plain(fmt.Sprint(v.Interface()), "")
}

// escape keeps ${ from being taken for a variable when the text is read again.
func escape(text string) string { return strings.ReplaceAll(text, "${", "$${") }
