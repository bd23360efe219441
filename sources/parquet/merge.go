package parquet

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/internal/parquetio"
)

// stringType is the type of every string column.
var stringType = &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}

// A merger joins the schemas of the files by column name.
type merger struct {
	c      *Config
	files  []*file
	names  []string // of all columns, in the order of their first file
	where  map[string]*file
	folded map[string]string // lower case to the name first seen
	faults []error
}

// merge finds the columns of the source and each file's way to them.
func merge(c *Config, files []*file) (*arrow.Schema, error) {
	m := &merger{c: c, files: files, where: map[string]*file{}, folded: map[string]string{}}
	for _, f := range files {
		m.collect(f)
	}
	wanted := m.wanted()
	var fields []arrow.Field
	for _, name := range wanted {
		if fd, ok := m.column(name); ok {
			fields = append(fields, fd)
		}
	}
	if len(wanted) == 0 && len(m.faults) == 0 {
		m.fault("no column is left to read")
	}
	if err := errors.Join(m.faults...); err != nil {
		return nil, err
	}
	for _, f := range files {
		f.columns = []int{}
		for _, fd := range fields {
			if _, ok := f.hive[fd.Name]; ok {
				f.from = append(f.from, -1)
				continue
			}
			f.from = append(f.from, len(f.columns))
			f.columns = append(f.columns, f.find(fd.Name))
		}
	}
	return arrow.NewSchema(fields, nil), nil
}

func (m *merger) fault(format string, args ...any) {
	m.faults = append(m.faults, fmt.Errorf(format, args...))
}

// find returns the position of a column in the file, -1 if there is none.
func (f *file) find(name string) int {
	return slices.IndexFunc(f.all, func(c parquetio.Column) bool { return c.Name == name })
}

// collect adds the names of a file's columns and folders.
func (m *merger) collect(f *file) {
	here := map[string]bool{}
	add := func(name string) {
		if here[name] {
			if m.read(name) {
				m.fault("%s: column %q occurs twice: rename one, or leave it out", f.path, name)
			}
			return
		}
		here[name] = true
		low := strings.ToLower(name)
		if first, ok := m.folded[low]; !ok {
			m.folded[low] = name
		} else if first != name && m.where[name] == nil && m.read(name) {
			m.fault("%s: column %q and column %q of %s differ only by case: rename one, or leave it out", f.path, name, first, m.where[first].path)
		}
		if m.where[name] == nil {
			m.where[name] = f
			m.names = append(m.names, name)
		}
	}
	for _, c := range f.all {
		add(c.Name)
	}
	for _, key := range slices.Sorted(maps.Keys(f.hive)) {
		add(key)
	}
}

// read says whether a column is asked for.
func (m *merger) read(name string) bool {
	if slices.Contains(m.c.Ignore, name) {
		return false
	}
	return len(m.c.Columns) == 0 || slices.Contains(m.c.Columns, name)
}

// wanted lists the columns to read and complains about names that do not occur.
func (m *merger) wanted() []string {
	for _, name := range m.c.Ignore {
		if m.where[name] == nil {
			m.fault("ignore: no file has a column %q%s", name, m.hint(name))
		}
	}
	if len(m.c.Columns) == 0 {
		return slices.DeleteFunc(slices.Clone(m.names), func(n string) bool { return !m.read(n) })
	}
	var out []string
	for _, name := range m.c.Columns {
		switch {
		case m.where[name] == nil:
			m.fault("columns: no file has a column %q%s", name, m.hint(name))
		case slices.Contains(out, name):
			m.fault("columns: %q is named twice", name)
		case m.read(name):
			out = append(out, name)
		}
	}
	return out
}

// column merges one column over all files.
func (m *merger) column(name string) (arrow.Field, bool) {
	field := arrow.Field{Name: name}
	var first *file
	ok := true
	var missing []string
	for _, f := range m.files {
		_, inPath := f.hive[name]
		i := f.find(name)
		var t arrow.DataType
		switch {
		case inPath && i >= 0:
			m.fault("%s: %q is a column and a folder's key: rename one, or read without hive folders", f.path, name)
			return field, false
		case inPath:
			t = stringType
			field.Nullable = true
		case i < 0:
			missing = append(missing, f.path)
			continue
		case f.all[i].Err != nil:
			m.fault("%s: %w", f.path, f.all[i].Err)
			return field, false
		default:
			t = f.all[i].Type
			field.Nullable = field.Nullable || f.all[i].Nullable
		}
		if first == nil {
			first, field.Type = f, t
			continue
		}
		wide := widest(field.Type, t)
		if wide == nil {
			m.fault("column %q is %v in %s but %v in %s: write them as one type, or leave the column out", name, typeName(field.Type), first.path, typeName(t), f.path)
			ok = false
			break
		}
		field.Type = wide
	}
	if len(missing) > 0 {
		m.fault("column %q of %s is missing in %s%s: add it there, or leave it out", name, first.path, some(missing), m.hintIn(name, missing[0]))
		ok = false
	}
	return field, ok
}

// some names a few of many files.
func some(paths []string) string {
	if len(paths) <= 3 {
		return strings.Join(paths, ", ")
	}
	return fmt.Sprintf("%s and %d more files", strings.Join(paths[:2], ", "), len(paths)-2)
}

func typeName(t arrow.DataType) string {
	if t.ID() == arrow.DICTIONARY {
		return "string"
	}
	return t.String()
}

// widest returns the type that holds both without loss, nil if none does.
func widest(a, b arrow.DataType) arrow.DataType {
	if arrow.TypeEqual(a, b) {
		return a
	}
	for _, family := range [][]arrow.DataType{
		{arrow.PrimitiveTypes.Int8, arrow.PrimitiveTypes.Int16, arrow.PrimitiveTypes.Int32, arrow.PrimitiveTypes.Int64},
		{arrow.PrimitiveTypes.Uint8, arrow.PrimitiveTypes.Uint16, arrow.PrimitiveTypes.Uint32, arrow.PrimitiveTypes.Uint64},
		{arrow.PrimitiveTypes.Float32, arrow.PrimitiveTypes.Float64},
	} {
		at := func(t arrow.DataType) int {
			return slices.IndexFunc(family, func(x arrow.DataType) bool { return arrow.TypeEqual(x, t) })
		}
		if i, j := at(a), at(b); i >= 0 && j >= 0 {
			return family[max(i, j)]
		}
	}
	if arrow.TypeEqual(a, b) {
		return a
	}
	return nil
}

// hint suggests the nearest of all names.
func (m *merger) hint(name string) string { return nearest(name, m.names) }

// hintIn suggests the nearest name in one file.
func (m *merger) hintIn(name, path string) string {
	for _, f := range m.files {
		if f.path == path {
			var names []string
			for _, c := range f.all {
				names = append(names, c.Name)
			}
			return nearest(name, names)
		}
	}
	return ""
}

// nearest returns a hint at the name that is at most a third of the letters
// away, or nothing.
func nearest(name string, names []string) string {
	best, far := "", len(name)/3+1
	for _, n := range names {
		if d := distance(strings.ToLower(name), strings.ToLower(n)); d < far || d == far && best == "" {
			best, far = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// distance is the number of letters to insert, delete or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diag
			if a[i] != b[j] {
				d = 1 + min(diag, row[j], row[j+1])
			}
			diag, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
