package parquet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/internal/parquetio"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
	"github.com/elbo-stream/elbo/sources/parquet"
)

// col is a column to write: its values are all of one Go type; nil is null.
type col struct {
	name   string
	values []any
}

// build makes a record of columns; an empty column is int64.
func build(cols ...col) arrow.Record {
	var fields []arrow.Field
	var arrays []arrow.Array
	for _, c := range cols {
		var b array.Builder
		for _, v := range append(c.values, int64(0)) {
			switch v.(type) {
			case int32:
				b = array.NewInt32Builder(memory.DefaultAllocator)
			case int64:
				b = array.NewInt64Builder(memory.DefaultAllocator)
			case float32:
				b = array.NewFloat32Builder(memory.DefaultAllocator)
			case float64:
				b = array.NewFloat64Builder(memory.DefaultAllocator)
			case string:
				b = array.NewStringBuilder(memory.DefaultAllocator)
			}
			if b != nil {
				break
			}
		}
		for _, v := range c.values {
			if v == nil {
				b.AppendNull()
				continue
			}
			reflect.ValueOf(b).MethodByName("Append").Call([]reflect.Value{reflect.ValueOf(v)})
		}
		a := b.NewArray()
		fields = append(fields, arrow.Field{Name: c.name, Type: a.DataType(), Nullable: true})
		arrays = append(arrays, a)
	}
	return array.NewRecord(arrow.NewSchema(fields, nil), arrays, int64(arrays[0].Len()))
}

// put writes a record to a file in dir, in row groups of groupRows.
func put(t testing.TB, dir, name string, rec arrow.Record, groupRows int64) string {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := parquetio.NewWriter(f, rec.Schema(), parquetio.WriterOptions{GroupRows: groupRows})
	if err == nil {
		err = errors.Join(w.Write(rec), w.Close(), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func ints(from, n int) []any {
	var out []any
	for i := range n {
		out = append(out, int64(from+i))
	}
	return out
}

// rows renders everything a source gives.
func rows(t *testing.T, c parquet.Config, from ...pipeline.Mark) []string {
	t.Helper()
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	c.Allocator = mem
	s, err := parquet.New(c)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for b, err := range s.Batches(t.Context(), from) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, pipelinetest.Render(b.Record)...)
		b.Release()
	}
	mem.AssertSize(t, 0)
	return out
}

func TestConformance(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.parquet", build(col{"n", ints(0, 25)}, col{"s", strs(25)}), 10)
	put(t, dir, "b/empty.parquet", build(col{"n", ints(0, 1)}, col{"s", []any{"x"}}).NewSlice(0, 0), 10)
	put(t, dir, "c.parquet", build(col{"n", ints(100, 7)}, col{"s", strs(7)}), 3)
	pipelinetest.Source(t, pipelinetest.SourceTest{New: func(t *testing.T, mem memory.Allocator) pipeline.Source {
		s, err := parquet.New(parquet.Config{Paths: []string{dir}, BatchRows: 4, Allocator: mem})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}})
}

func strs(n int) []any {
	var out []any
	for i := range n {
		if i%4 == 0 {
			out = append(out, nil)
		} else {
			out = append(out, fmt.Sprint("s", i%3))
		}
	}
	return out
}

func TestListing(t *testing.T) {
	dir := t.TempDir()
	one := build(col{"n", ints(1, 1)})
	put(t, dir, "b.parquet", one, 0)
	put(t, dir, "a/x.parquet", one, 0)
	put(t, dir, "_tmp/x.parquet", one, 0)
	put(t, dir, "_hidden.parquet", one, 0)
	put(t, dir, ".hidden.parquet", one, 0)
	for name, text := range map[string]string{"zero.parquet": "", ".b.parquet.crc": "x", "b.parquet.crc": "x", "_SUCCESS": "", "notes.txt": "x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		paths []string
		want  []string
		log   []string
	}{
		{"folder", []string{""}, []string{"a/x.parquet", "b.parquet"}, []string{"zero.parquet", "_tmp", "_hidden.parquet", ".hidden.parquet", "b.parquet.crc", "_SUCCESS", "notes.txt"}},
		{"glob", []string{"*"}, nil, nil}, // notes.txt is named by the glob
		{"glob of files", []string{"*.parquet*"}, []string{"b.parquet"}, []string{"zero.parquet", "_hidden.parquet", "b.parquet.crc"}},
		{"glob of folders", []string{"?"}, []string{"a/x.parquet"}, nil},
		{"twice the same", []string{"b.parquet", "*.parquet", "./a/../b.parquet"}, []string{"b.parquet"}, nil},
		{"hidden by name", []string{"_hidden.parquet"}, []string{"_hidden.parquet"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			conf := parquet.Config{Log: slog.New(slog.NewTextHandler(&log, nil))}
			for _, p := range c.paths {
				conf.Paths = append(conf.Paths, filepath.Join(dir, p))
			}
			s, err := parquet.New(conf)
			if c.want == nil {
				if err == nil || !strings.Contains(err.Error(), "notes.txt: not a Parquet file") {
					t.Errorf("New: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range s.Files() {
				rel, _ := filepath.Rel(dir, f)
				got = append(got, filepath.ToSlash(rel))
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("files %v, want %v", got, c.want)
			}
			for _, name := range c.log {
				if !strings.Contains(log.String(), name) {
					t.Errorf("%s is not in the log:\n%s", name, &log)
				}
			}
		})
	}
}

func TestInputFaults(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	a := put(t, dir, "a.parquet", build(col{"amount", []any{float32(1)}}, col{"n", ints(1, 1)}, col{"label", ints(0, 1)}), 0)
	b := put(t, dir, "b.parquet", build(col{"amount", []any{"text"}}, col{"N", ints(1, 1)}, col{"label", ints(0, 1)}), 0)
	if err := os.WriteFile(at("zero.parquet"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("t.csv"), []byte("a,b,c\n1,2,3\n4,5,6\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	cut, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("cut.parquet"), cut[:len(cut)-5], 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		conf parquet.Config
		want []string
	}{
		{"nothing named", parquet.Config{BatchRows: -1}, []string{"paths: name at least one file", "batch_rows: -1 is negative"}},
		{"absent", parquet.Config{Paths: []string{at("no.parquet"), at("no*.parquet")}}, []string{"no.parquet: no such file or folder", "no*.parquet: no Parquet file found there"}},
		{"not Parquet", parquet.Config{Paths: []string{at("zero.parquet"), at("t.csv"), at("cut.parquet")}}, []string{
			"zero.parquet: not a Parquet file: too short (size 0 bytes); cut short or never closed?",
			"t.csv: not a Parquet file: no PAR1 at either end (size 18 bytes); another format?",
			fmt.Sprintf("cut.parquet: not a Parquet file: no PAR1 at its end (size %d bytes); cut short or never closed?", len(cut)-5)}},
		{"columns", parquet.Config{Paths: []string{a}, Columns: []string{"amuont", "n", "n"}, Ignore: []string{"lable"}}, []string{
			`columns: no file has a column "amuont" (did you mean "amount"?)`, `columns: "n" is named twice`, `ignore: no file has a column "lable" (did you mean "label"?)`}},
		{"schemas", parquet.Config{Paths: []string{a, b}}, []string{
			fmt.Sprintf(`column "amount" is float32 in %s but string in %s`, a, b),
			fmt.Sprintf(`%s: column "N" and column "n" of %s differ only by case`, b, a),
			fmt.Sprintf(`column "n" of %s is missing in %s (did you mean "N"?)`, a, b)}},
		{"nothing left", parquet.Config{Paths: []string{a}, Ignore: []string{"n", "amount", "label"}}, []string{"no column is left"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parquet.New(c.conf)
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("New: %v\nwant in it: %s", err, want)
				}
			}
		})
	}
	if got := rows(t, parquet.Config{Paths: []string{a, b}, Columns: []string{"label"}}); len(got) != 2 {
		t.Errorf("columns that agree: %v", got)
	}
}

func TestWidening(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.parquet", build(col{"i", []any{int32(-7), nil}}, col{"f", []any{float32(0.1), nil}}), 0)
	put(t, dir, "b.parquet", build(col{"f", []any{0.1}}, col{"i", []any{int64(1 << 40)}}), 0)
	s, err := parquet.New(parquet.Config{Paths: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	schema, _ := s.Schema(t.Context())
	if schema.Field(0).Type.ID() != arrow.INT64 || schema.Field(1).Type.ID() != arrow.FLOAT64 {
		t.Errorf("schema %v", schema)
	}
	var got []string
	for b, err := range s.Batches(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range int(b.Rows()) {
			got = append(got, b.Record.Column(0).ValueStr(i)+" "+b.Record.Column(1).ValueStr(i))
		}
		b.Release()
	}
	want := []string{"-7 0.10000000149011612", "(null) (null)", "1099511627776 0.1"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("rows %q, want %q", got, want)
	}
}

func TestHive(t *testing.T) {
	dir := t.TempDir()
	one := build(col{"n", ints(1, 2)})
	put(t, dir, "day=2024-01-01/city=K%C3%B6ln/a.parquet", one, 0)
	put(t, dir, "day=2024-01-02/city=__HIVE_DEFAULT_PARTITION__/a.parquet", one, 0)
	s, err := parquet.New(parquet.Config{Paths: []string{dir}, Hive: true, Columns: []string{"day", "n", "city"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for b, err := range s.Batches(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range int(b.Rows()) {
			line := ""
			for _, c := range b.Record.Columns() {
				if c.IsNull(i) {
					line += "null "
				} else {
					line += c.ValueStr(i) + " "
				}
			}
			got = append(got, line)
		}
		b.Release()
	}
	want := []string{"2024-01-01 1 Köln ", "2024-01-01 2 Köln ", "2024-01-02 1 null ", "2024-01-02 2 null "}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("rows %q, want %q", got, want)
	}
	put(t, dir, "other.parquet", one, 0)
	if _, err := parquet.New(parquet.Config{Paths: []string{dir}, Hive: true}); err == nil || !strings.Contains(err.Error(), `column "day" of`) {
		t.Errorf("a file outside the folders: %v", err)
	}
	put(t, dir, "n=5/other.parquet", one, 0)
	if _, err := parquet.New(parquet.Config{Paths: []string{filepath.Join(dir, "n=5")}, Hive: true}); err == nil || !strings.Contains(err.Error(), "is a column and a folder's key") {
		t.Errorf("a key that is a column: %v", err)
	}
}

func TestResumeAfterChange(t *testing.T) {
	dir := t.TempDir()
	path := put(t, dir, "a.parquet", build(col{"n", ints(0, 10)}), 3)
	s, err := parquet.New(parquet.Config{Paths: []string{path}, BatchRows: 4})
	if err != nil {
		t.Fatal(err)
	}
	var mark pipeline.Mark
	for b, err := range s.Batches(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		mark = b.Mark
		b.Release()
		break
	}
	if got := rows(t, parquet.Config{Paths: []string{path}}, mark); len(got) != 7 {
		t.Errorf("resumed rows %v", got)
	}
	resumed := func(m pipeline.Mark) (err error) {
		s, err := parquet.New(parquet.Config{Paths: []string{path}})
		if err != nil {
			t.Fatal(err)
		}
		for b, e := range s.Batches(t.Context(), []pipeline.Mark{m}) {
			if e != nil {
				return e
			}
			b.Release()
		}
		return nil
	}
	beyond := mark
	beyond.Next = 11
	if err := resumed(beyond); err == nil || !strings.Contains(err.Error(), "cannot go on at row 11: the file has 10 rows") {
		t.Errorf("mark beyond the file: %v", err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := resumed(mark); err == nil || !strings.Contains(err.Error(), "the file changed since row 3 of it was read") {
		t.Errorf("changed file: %v", err)
	}
}

func TestFileReplacedWhileRead(t *testing.T) {
	dir := t.TempDir()
	path := put(t, dir, "a.parquet", build(col{"n", ints(0, 10)}), 0)
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	s, err := parquet.New(parquet.Config{Paths: []string{path}, BatchRows: 2, Allocator: mem})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	var last error
	for b, err := range s.Batches(t.Context(), nil) {
		if last = err; err != nil {
			break
		}
		b.Release()
		if n++; n == 1 {
			os.Rename(put(t, dir, "b.parquet", build(col{"n", ints(0, 11)}), 0), path)
		}
	}
	if n != 1 || last == nil || !strings.Contains(last.Error(), "the file changed while it was being read") {
		t.Errorf("%d batches, then %v", n, last)
	}
	mem.AssertSize(t, 0)
	for _, err := range s.Batches(t.Context(), nil) {
		last = err
	}
	if last == nil || !strings.Contains(last.Error(), "the file changed") {
		t.Errorf("read again: %v", last)
	}
}

func TestUnits(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.parquet", build(col{"n", ints(0, 10)}), 4)
	put(t, dir, "b.parquet", build(col{"n", nil}), 4)
	put(t, dir, "c.parquet", build(col{"n", ints(10, 5)}), 4)
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	s, err := parquet.New(parquet.Config{Paths: []string{dir}, BatchRows: 3, Allocator: mem})
	if err != nil {
		t.Fatal(err)
	}
	units, err := s.Units(t.Context())
	if err != nil || len(units) != 5 || s.Rows() != 15 {
		t.Fatalf("%d units, %d rows, %v", len(units), s.Rows(), err)
	}
	for i := len(units) - 1; i >= 0; i-- {
		u, at := units[i], int64(0)
		for b, err := range s.ReadUnit(t.Context(), u) {
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range b.Record.Column(0).(*array.Int64).Int64Values() {
				if v != u.First+at+int64(k) {
					t.Errorf("unit %+v row %d is %d", u, at+int64(k), v)
				}
			}
			at += b.Rows()
			b.Release()
		}
		if at != u.Rows {
			t.Errorf("unit %+v gave %d rows", u, at)
		}
	}
	mem.AssertSize(t, 0)
	for _, err := range s.ReadUnit(t.Context(), parquet.Unit{Path: "other"}) {
		if err == nil {
			t.Error("a unit of another source: no error")
		}
	}
}

func ExampleSource() {
	dir, err := os.MkdirTemp("", "elbo")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	put(&testing.B{}, dir, "day.parquet", build(col{"amount", []any{1.5, 2.5, nil}}, col{"city", []any{"Bonn", "Ulm", "Bonn"}}), 0)

	src, err := parquet.New(parquet.Config{Paths: []string{filepath.Join(dir, "*.parquet")}, BatchRows: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	for b, err := range src.Batches(context.Background(), nil) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(b.First, b.Mark.Next, b.Record.Column(1).ValueStr(0))
		b.Release()
	}
	// Output:
	// 0 2 Bonn
	// 2 3 Bonn
}
