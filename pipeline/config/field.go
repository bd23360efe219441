package config

import (
	"encoding"
	"reflect"
	"slices"
	"strings"
	"time"
)

// A field is what a file may set in a config struct. Its tags are described at
// Kind.
type field struct {
	name     string
	doc      string
	preset   string // the default tag
	enum     []string
	unit     string
	required bool
	secret   bool
	index    []int
	typ      reflect.Type
}

// Enum is a string-like type that lists what it may be, as the tag enum does.
type Enum interface{ EnumValues() []string }

// fieldsOf lists the fields of a struct type in order, those of embedded and
// inline structs in their place.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		sf := t.Field(i)
		name, options, _ := strings.Cut(sf.Tag.Get("yaml"), ",")
		inline := strings.Contains(options, "inline") || (sf.Anonymous && name == "")
		if inline && sf.Type.Kind() == reflect.Struct {
			for _, f := range fieldsOf(sf.Type) {
				f.index = append([]int{i}, f.index...)
				fields = append(fields, f)
			}
			continue
		}
		if name == "-" || !sf.IsExported() {
			continue
		}
		if name == "" {
			name = strings.ToLower(sf.Name)
		}
		f := field{
			name: name, doc: sf.Tag.Get("doc"), preset: sf.Tag.Get("default"), unit: sf.Tag.Get("unit"),
			required: sf.Tag.Get("required") == "true", secret: sf.Tag.Get("secret") == "true",
			index: []int{i}, typ: sf.Type,
		}
		if tag := sf.Tag.Get("enum"); tag != "" {
			f.enum = strings.Split(tag, ",")
		} else if e, ok := reflect.New(element(sf.Type)).Interface().(Enum); ok {
			f.enum = e.EnumValues()
		}
		if element(sf.Type) == reflect.TypeFor[Secret]() {
			f.secret = true
		}
		fields = append(fields, f)
	}
	return fields
}

// element strips pointers, lists and maps from a type.
func element(t reflect.Type) reflect.Type {
	for {
		if isScalar(t) {
			return t
		}
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			t = t.Elem()
		default:
			return t
		}
	}
}

// isScalar reports whether a value of the type is one word in a file.
func isScalar(t reflect.Type) bool {
	if t == reflect.TypeFor[Secret]() || t == reflect.TypeFor[time.Duration]() ||
		reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return true
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Slice, reflect.Map, reflect.Pointer:
		return false
	}
	return true
}

func textUnmarshaler(v reflect.Value) (encoding.TextUnmarshaler, bool) {
	if !v.CanAddr() {
		return nil, false
	}
	u, ok := v.Addr().Interface().(encoding.TextUnmarshaler)
	return u, ok
}

// names lists the names of fields.
func names(fields []field) []string {
	all := make([]string, len(fields))
	for i, f := range fields {
		all[i] = f.name
	}
	return all
}

// fillDefaults sets the fields of struct v whose tag says a default and which
// are zero, also in nested structs. A default that does not parse is a mistake
// in the program; Registry.Check reports it.
func fillDefaults(v reflect.Value) error {
	for _, f := range fieldsOf(v.Type()) {
		fv := v.FieldByIndex(f.index)
		if fv.Kind() == reflect.Struct && !isScalar(fv.Type()) {
			if err := fillDefaults(fv); err != nil {
				return err
			}
		}
		if f.preset == "" || !fv.IsZero() {
			continue
		}
		if err := setPreset(fv, f); err != nil {
			return err
		}
	}
	return nil
}

// setPreset sets v, a scalar or a list of scalars, to its default.
func setPreset(v reflect.Value, f field) error {
	if isScalar(v.Type()) || v.Kind() != reflect.Slice {
		return setScalar(v, f, f.preset)
	}
	for _, text := range strings.Split(f.preset, ",") {
		item := reflect.New(v.Type().Elem()).Elem()
		if err := setScalar(item, f, text); err != nil {
			return err
		}
		v.Set(reflect.Append(v, item))
	}
	return nil
}

// allowed reports whether text is among the enum of f, which may be none.
func (f field) allowed(text string) bool { return len(f.enum) == 0 || slices.Contains(f.enum, text) }

// Shorthand is what a pointer to a config struct implements whose commonest form
// is one word, as value: json for value: {format: json}. The error continues a
// sentence that begins with the word.
type Shorthand interface{ SetShort(text string) error }

func hasShorthand(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && reflect.PointerTo(t).Implements(reflect.TypeFor[Shorthand]())
}
