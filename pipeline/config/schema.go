package config

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// A schema is a part of a JSON Schema; a map, so that keys come out sorted.
type schema map[string]any

// Schema returns the JSON Schema (draft 2020-12) of a pipeline file, for
// editors. Numbers and booleans may also be texts that hold a ${VAR}. The same
// registry gives the same bytes.
func Schema(reg Registry) []byte {
	roles := reg.roles()
	props := schema{
		"source":    union(roles[0], false),
		"operators": schema{"type": "array", "description": "Steps that the rows go through, in this order.", "items": union(roles[1], true)},
		"sinks":     schema{"type": "array", "minItems": 1, "description": "Where every row goes.", "items": union(roles[2], true)},
	}
	for _, f := range fieldsOf(reflect.TypeFor[Settings]()) {
		if f.name == "delivery" {
			f.enum = reg.deliveries()
		}
		if f.name == "on_error" && reg.DeadLetters.Build == nil {
			f.enum = []string{"fail"}
		}
		props[f.name] = fieldSchema(f)
	}
	if reg.DeadLetters.Build != nil {
		s := structSchema(reflect.TypeOf(reg.DeadLetters.Config()).Elem())
		s["description"] = deadLettersDoc
		props["dead_letters"] = s
	}
	root := schema{
		"$schema":              "https://json-schema.org/draft/2020-12/schema",
		"title":                "elbo pipeline",
		"description":          "A pipeline of elbo: one source, operators, sinks.",
		"type":                 "object",
		"properties":           props,
		"required":             []string{"source", "sinks"},
		"additionalProperties": false,
		"$defs": schema{"variable": schema{
			"type": "string", "pattern": `\$\{.+\}`,
			"description": "A text with ${VAR}, ${VAR:default} or ${file:path}.",
		}},
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(root); err != nil { // maps, strings and numbers always encode
		panic("config: " + err.Error())
	}
	return out.Bytes()
}

const deadLettersDoc = "Where rows go that an operator could not take, with their reason. Needs on_error: dead_letter."

// union is the schema of a map with exactly one kind as its key.
func union(r role, named bool) schema {
	props, choices := schema{}, []any{}
	for _, k := range r.kinds {
		if k.planned {
			continue
		}
		s := structSchema(reflect.TypeOf(k.config()).Elem())
		s["description"] = k.summary
		if _, needs := s["required"]; !needs {
			s["type"] = []string{"object", "null"}
		}
		props[k.name] = s
		choices = append(choices, schema{"required": []string{k.name}})
	}
	if named {
		props["name"] = schema{"type": "string", "minLength": 1, "description": "The name in messages and metrics; unique among the sinks."}
	}
	s := schema{"type": "object", "properties": props, "additionalProperties": false}
	if len(choices) > 0 {
		s["oneOf"] = choices
	}
	return s
}

func structSchema(t reflect.Type) schema {
	props := schema{}
	var required []string
	for _, f := range fieldsOf(t) {
		props[f.name] = fieldSchema(f)
		if f.required {
			required = append(required, f.name)
		}
	}
	s := schema{"type": "object", "properties": props, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

func fieldSchema(f field) schema {
	s := typeSchema(f.typ, f)
	if f.doc != "" {
		s["description"] = f.doc
	}
	if f.preset != "" {
		s["default"] = presetValue(f)
	}
	return s
}

// presetValue is the default as JSON: a number, a boolean, a text or a list.
func presetValue(f field) any {
	t := f.typ
	if t.Kind() == reflect.Slice && !isScalar(t) {
		return strings.Split(f.preset, ",")
	}
	switch {
	case t.Kind() == reflect.Bool:
		return f.preset == "true"
	case t == reflect.TypeFor[time.Duration](), t == reflect.TypeFor[ByteSize](), f.unit == "bytes":
		return f.preset
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Float64:
		if n, err := strconv.ParseFloat(ungroup(f.preset), 64); err == nil {
			return n
		}
	}
	return f.preset
}

func typeSchema(t reflect.Type, f field) schema {
	orVariable := func(s schema) schema {
		return schema{"anyOf": []any{s, schema{"$ref": "#/$defs/variable"}}}
	}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return schema{"type": "string", "examples": []string{"500ms", "10s", "5m"}}
	case t == reflect.TypeFor[ByteSize](), f.unit == "bytes" && t.Kind() == reflect.Int64:
		return schema{"type": []string{"string", "integer"}, "examples": []string{"64KiB", "128MiB"}}
	case isScalar(t) && t.Kind() == reflect.Bool:
		return orVariable(schema{"type": "boolean"})
	case isScalar(t) && t.Kind() >= reflect.Int && t.Kind() <= reflect.Int64:
		return orVariable(schema{"type": "integer"})
	case isScalar(t) && t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uint64:
		return orVariable(schema{"type": "integer", "minimum": 0})
	case isScalar(t) && (t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64):
		return orVariable(schema{"type": "number"})
	case isScalar(t) && len(f.enum) > 0:
		return orVariable(schema{"type": "string", "enum": f.enum})
	case isScalar(t):
		s := schema{"type": []string{"string", "number", "boolean"}}
		if f.required {
			s["minLength"] = 1
		}
		return s
	}
	inner := field{enum: f.enum, unit: f.unit}
	switch t.Kind() {
	case reflect.Pointer:
		return typeSchema(t.Elem(), f)
	case reflect.Slice:
		s := schema{"type": "array", "items": typeSchema(t.Elem(), inner)}
		if f.required {
			s["minItems"] = 1
		}
		return s
	case reflect.Map:
		return schema{"type": "object", "additionalProperties": typeSchema(t.Elem(), inner)}
	}
	if hasShorthand(t) {
		return schema{"anyOf": []any{schema{"type": "string"}, structSchema(t)}}
	}
	return structSchema(t)
}
