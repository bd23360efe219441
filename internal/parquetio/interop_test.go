package parquetio_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/google/go-cmp/cmp"

	"github.com/elbo-stream/elbo/internal/parquetio"
)

// python is a Python with pyarrow, duckdb and polars, named by ELBO_PYTHON.
func python(t *testing.T, args ...string) []byte {
	t.Helper()
	exe := os.Getenv("ELBO_PYTHON")
	if exe == "" {
		t.Skip("SKIPPED: set ELBO_PYTHON to a Python with pyarrow, duckdb and polars to test against other programs")
	}
	cmd := exec.Command(exe, append([]string{"testdata/interop.py"}, args...)...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, &stderr)
	}
	return out.Bytes()
}

// TestReadsOthers reads what pyarrow, DuckDB and Polars write.
func TestReadsOthers(t *testing.T) {
	dir := t.TempDir()
	python(t, "write", dir)
	paths, err := filepath.Glob(filepath.Join(dir, "*.parquet"))
	if err != nil || len(paths) < 40 {
		t.Fatalf("%d files, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := os.ReadFile(path + ".json")
			if err != nil {
				t.Fatal(err)
			}
			var want struct {
				Names  []string
				Values [][]any
			}
			if err := json.Unmarshal(raw, &want); err != nil {
				t.Fatal(err)
			}
			for _, batch := range []int{97, 8192} {
				got, err := read(b, parquetio.ReadOptions{BatchRows: batch, Allocator: checked(t)})
				if err != nil {
					t.Fatal(err)
				}
				values := rowsOf(got)
				for i, name := range want.Names {
					if d := cmp.Diff(want.Values[i], values[i]); d != "" {
						t.Errorf("column %s: -want +got\n%.500s", name, d)
					}
				}
				release(got)
			}
		})
	}
}

// TestOthersRead has pyarrow, DuckDB and Polars read what we write.
func TestOthersRead(t *testing.T) {
	top := arrow.StructOf(arrow.Field{Name: "column", Type: arrow.BinaryTypes.String},
		arrow.Field{Name: "contribution", Type: arrow.PrimitiveTypes.Float32},
		arrow.Field{Name: "value", Type: arrow.BinaryTypes.String, Nullable: true})
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "z", Type: arrow.PrimitiveTypes.Float32, Nullable: true},
		{Name: "score", Type: arrow.PrimitiveTypes.Float64},
		{Name: "i8", Type: arrow.PrimitiveTypes.Int8, Nullable: true},
		{Name: "u32", Type: arrow.PrimitiveTypes.Uint32, Nullable: true},
		{Name: "u64", Type: arrow.PrimitiveTypes.Uint64},
		{Name: "flag", Type: arrow.FixedWidthTypes.Boolean, Nullable: true},
		{Name: "city", Type: &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}, Nullable: true},
		{Name: "id", Type: arrow.BinaryTypes.String},
		{Name: "raw", Type: arrow.BinaryTypes.Binary, Nullable: true},
		{Name: "day", Type: arrow.FixedWidthTypes.Date32, Nullable: true},
		{Name: "at", Type: arrow.FixedWidthTypes.Timestamp_us},
		{Name: "vec", Type: arrow.ListOf(arrow.PrimitiveTypes.Float32), Nullable: true},
		{Name: "latent", Type: arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Float32), Nullable: true},
		{Name: "elbo_top", Type: arrow.ListOf(top), Nullable: true},
	}, nil)
	rec := sampleRecord(t, schema, 2500)
	want := rowsOf([]arrow.Record{rec})
	for _, o := range []parquetio.WriterOptions{
		{}, {Compression: parquetio.Uncompressed}, {Compression: parquetio.Snappy}, {Compression: parquetio.Lz4Raw}, {Compression: parquetio.Gzip},
		{PageVersion: 1}, {PageVersion: 1, Compression: parquetio.Lz4Raw, Encoding: parquetio.Dictionary},
		{Encoding: parquetio.Delta}, {Encoding: parquetio.Plain, GroupRows: 700}, {Encoding: parquetio.Dictionary, PageBytes: 1000},
	} {
		if o.PageBytes == 0 {
			o.PageBytes = 3000
		}
		path := filepath.Join(t.TempDir(), "ours.parquet")
		if err := os.WriteFile(path, write(t, schema, []arrow.Record{rec}, o), 0o666); err != nil {
			t.Fatal(err)
		}
		for _, line := range bytes.Split(bytes.TrimSpace(python(t, "read", path)), []byte("\n")) {
			var got struct {
				By     string
				Values [][]any
				Types  []string
			}
			if err := json.Unmarshal(line, &got); err != nil {
				t.Fatal(err)
			}
			for i, f := range schema.Fields() {
				if d := cmp.Diff(want[i], got.Values[i]); d != "" {
					t.Errorf("%+v: %s: column %s: -want +got\n%.500s", o, got.By, f.Name, d)
				}
			}
			if got.By == "pyarrow" && !strings.HasPrefix(got.Types[12], "fixed_size_list<") {
				t.Errorf("pyarrow reads the fixed-size list as %s", got.Types[12])
			}
		}
	}
}

// TestOthersReadNoRows has the others read a file that is nothing but a schema.
func TestOthersReadNoRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.parquet")
	if err := os.WriteFile(path, write(t, damageSchema(), nil, parquetio.WriterOptions{}), 0o666); err != nil {
		t.Fatal(err)
	}
	out := python(t, "read", path)
	for _, by := range []string{"pyarrow", "duckdb", "polars"} {
		if !strings.Contains(string(out), `{"by": "`+by+`", "values": [[], [], `) {
			t.Errorf("%s: %s", by, out)
		}
	}
}

// sampleRecord fills a schema with values that depend on nothing but the row.
func sampleRecord(t testing.TB, schema *arrow.Schema, rows int) arrow.Record {
	b := array.NewRecordBuilder(memory.NewGoAllocator(), schema)
	defer b.Release()
	f := &filler{spread: 100, nulls: 9}
	f.draw = func(k int) int { f.seed = f.seed*6364136223846793005 + 1442695040888963407; return int(f.seed>>33) % k }
	for range rows {
		for i, fd := range schema.Fields() {
			f.add(b.Field(i), fd.Nullable)
		}
	}
	return b.NewRecord()
}
