package config

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Reference returns a Markdown page of every kind and every field of a
// pipeline file. The same registry gives the same text.
func Reference(reg Registry) string {
	var sb strings.Builder
	sb.WriteString(referenceIntro)
	sb.WriteString("## The file\n\n")
	rows := []refRow{
		{"source", "one kind", "required", "Where the rows come from."},
		{"operators", "list of kinds", "", "Steps that the rows go through, in this order. Each may have a `name`."},
		{"sinks", "list of kinds", "required", "Where every row goes. Each may have a `name`, unique among the sinks."},
	}
	for _, f := range fieldsOf(reflect.TypeFor[Settings]()) {
		if f.name == "delivery" {
			f.enum = reg.deliveries()
		}
		rows = append(rows, refRows(f, "", 0)...)
		if f.name == "on_error" && reg.DeadLetters.Build != nil {
			rows = append(rows, refRow{"dead_letters", "keys", "", deadLettersDoc})
			for _, f := range fieldsOf(reflect.TypeOf(reg.DeadLetters.Config()).Elem()) {
				rows = append(rows, refRows(f, "dead_letters.", 0)...)
			}
		}
	}
	refTable(&sb, rows)
	for _, r := range reg.roles() {
		fmt.Fprintf(&sb, "\n## %s%s\n", strings.ToUpper(r.key[:1]), r.key[1:])
		for _, k := range r.kinds {
			fmt.Fprintf(&sb, "\n### %s: %s\n\n", r.one, k.name)
			if k.summary != "" {
				sb.WriteString(k.summary + "\n\n")
			}
			if k.planned {
				sb.WriteString("Not in this build yet.\n")
				continue
			}
			var rows []refRow
			for _, f := range fieldsOf(reflect.TypeOf(k.config()).Elem()) {
				rows = append(rows, refRows(f, "", 0)...)
			}
			if len(rows) == 0 {
				sb.WriteString("It has no fields: write `{}`.\n")
				continue
			}
			refTable(&sb, rows)
		}
	}
	return sb.String()
}

const referenceIntro = `<!-- generated from the code; do not edit -->
# Pipeline files

Values may hold ` + "`${VAR}`, `${VAR:default}` and `${file:path}`; write `$${` for the two characters themselves." + `
Durations are written as 500ms, 10s, 5m, 2h or 7d; sizes as 64KiB, 128MiB or 1GB. Relative paths start at the
working directory.

`

// A refRow is one line of a table of fields.
type refRow struct{ key, typ, preset, doc string }

func refTable(sb *strings.Builder, rows []refRow) {
	sb.WriteString("| key | value | default | meaning |\n|---|---|---|---|\n")
	cell := strings.NewReplacer("|", "\\|", "\n", " ")
	for _, r := range rows {
		preset := r.preset
		if preset != "" && preset != "required" {
			preset = "`" + preset + "`"
		}
		fmt.Fprintf(sb, "| `%s` | %s | %s | %s |\n", r.key, cell.Replace(r.typ), cell.Replace(preset), cell.Replace(r.doc))
	}
}

// refRows describes a field and, below it, the fields of its structs.
func refRows(f field, prefix string, depth int) []refRow {
	key := prefix + f.name
	row := refRow{key, typeText(f.typ, f), f.preset, f.doc}
	if f.required {
		row.preset = "required"
	}
	rows := []refRow{row}
	inner := element(f.typ)
	if isScalar(inner) || depth > maxDepth {
		return rows
	}
	for t := f.typ; t != inner; t = t.Elem() {
		switch t.Kind() {
		case reflect.Slice:
			key += "[]"
		case reflect.Map:
			key += ".NAME"
		}
	}
	for _, sub := range fieldsOf(inner) {
		rows = append(rows, refRows(sub, key+".", depth+1)...)
	}
	return rows
}

// typeText says in words what a value may be.
func typeText(t reflect.Type, f field) string {
	switch {
	case len(f.enum) > 0 && isScalar(t):
		return strings.Join(f.enum, " | ")
	case f.secret && isScalar(t):
		return "secret text"
	case t == reflect.TypeFor[time.Duration]():
		return "duration"
	case t == reflect.TypeFor[ByteSize](), f.unit == "bytes" && isScalar(t):
		return "size"
	case isScalar(t) && t.Kind() == reflect.Bool:
		return "true | false"
	case isScalar(t) && t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64:
		return "whole number"
	case isScalar(t) && (t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64):
		return "number"
	case isScalar(t):
		return "text"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeText(t.Elem(), f)
	case reflect.Slice:
		return "list of " + typeText(t.Elem(), f)
	case reflect.Map:
		return "keys with " + typeText(t.Elem(), f)
	}
	if hasShorthand(t) {
		return "word, or keys"
	}
	return "keys"
}
