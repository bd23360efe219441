package parquet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/internal/parquetio"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
	"github.com/elbo-stream/elbo/sinks/parquet"
)

var schema = arrow.NewSchema([]arrow.Field{
	{Name: "z", Type: arrow.PrimitiveTypes.Float32, Nullable: true},
	{Name: "a", Type: arrow.PrimitiveTypes.Int64},
}, nil)

// record has rows rows that begin at from.
func record(from, rows int) arrow.Record {
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for i := from; i < from+rows; i++ {
		if i%3 == 0 {
			b.Field(0).AppendNull()
		} else {
			b.Field(0).(*array.Float32Builder).Append(float32(i) / 2)
		}
		b.Field(1).(*array.Int64Builder).Append(int64(i))
	}
	return b.NewRecord()
}

// found reads every Parquet file under its final name, sorted by path.
func found(t *testing.T, fsys *pipelinetest.FS) []arrow.Record {
	t.Helper()
	var out []arrow.Record
	for _, path := range fsys.Files() {
		if strings.HasPrefix(filepath.Base(path), ".") {
			continue
		}
		b, err := fsys.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, readAll(t, b)...)
	}
	return out
}

func readAll(t *testing.T, b []byte) (out []arrow.Record) {
	t.Helper()
	f, err := parquetio.Open(bytes.NewReader(b), int64(len(b)), "found")
	if err != nil {
		t.Fatal(err)
	}
	for g := range f.Groups() {
		for rec, err := range f.Read(context.Background(), g, parquetio.ReadOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, rec)
		}
	}
	return out
}

func TestConformance(t *testing.T) {
	inputs := []arrow.Record{record(0, 5), record(5, 1), record(6, 7), record(13, 4)}
	for _, c := range []struct {
		name string
		conf parquet.Config
	}{
		{"one file", parquet.Config{Path: "out/scores.parquet"}},
		{"folder, rolled by rows", parquet.Config{Path: "out", RollRows: 6}},
		{"folder, one part", parquet.Config{Path: "out/"}},
		{"folder, row groups of two rows", parquet.Config{Path: "out", RollBytes: 900, GroupRows: 2}},
		{"append", parquet.Config{Path: "out", RollRows: 1, Append: true}},
		{"overwrite", parquet.Config{Path: "out", RollRows: 1, Overwrite: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			pipelinetest.Sink(t, pipelinetest.SinkTest{
				New: func(_ *testing.T, fsys *pipelinetest.FS) (pipeline.Sink, error) {
					conf := c.conf
					conf.FS = fsys
					return parquet.New(conf)
				},
				Inputs: inputs, Read: found, OneOutput: strings.HasSuffix(c.conf.Path, ".parquet"),
			})
		})
	}
}

// bind makes a bound sink on fsys.
func bind(fsys durable.FS, c parquet.Config) (*parquet.Sink, error) {
	c.FS = fsys
	s, err := parquet.New(c)
	if err != nil {
		return nil, err
	}
	return s, s.Bind(schema)
}

func mustBind(t *testing.T, fsys durable.FS, c parquet.Config) *parquet.Sink {
	t.Helper()
	s, err := bind(fsys, c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func writeN(t *testing.T, s *parquet.Sink, n int) {
	t.Helper()
	for i := range n {
		if err := s.Write(t.Context(), uint64(i+1), record(i*10, 10)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestExistingOutput(t *testing.T) {
	for _, c := range []struct {
		name, there string
		conf        parquet.Config
		want        string // error; "" if none
		files       []string
	}{
		{"file", "scores.parquet", parquet.Config{Path: "scores.parquet"}, "scores.parquet exists already: choose another name, or replace it with --overwrite", []string{"scores.parquet"}},
		{"file overwritten", "scores.parquet", parquet.Config{Path: "scores.parquet", Overwrite: true}, "", []string{"scores.parquet"}},
		{"folder", "out/part-000003.parquet", parquet.Config{Path: "out"}, "out exists already and holds 1 Parquet files (part-000003.parquet): choose another folder, or replace them with --overwrite", []string{"out/part-000003.parquet"}},
		{"folder overwritten", "out/part-000003.parquet", parquet.Config{Path: "out", Overwrite: true}, "", []string{"out/part-000000.parquet"}},
		{"folder overwritten, same name", "out/part-000000.parquet", parquet.Config{Path: "out", Overwrite: true}, "", []string{"out/part-000000.parquet"}},
		{"folder appended to", "out/part-000003.parquet", parquet.Config{Path: "out", Append: true}, "", []string{"out/part-000003.parquet", "out/part-000004.parquet"}},
		{"folder of other things", "out/readme.txt", parquet.Config{Path: "out"}, "", []string{"out/part-000000.parquet", "out/readme.txt"}},
		{"draft of a dead run", "out/.part-000000.parquet.tmp-999999999", parquet.Config{Path: "out"}, "", []string{"out/part-000000.parquet"}},
		{"draft of an earlier process of our number", fmt.Sprintf("out/.part-000007.parquet.tmp-%d", os.Getpid()), parquet.Config{Path: "out"}, "", []string{"out/part-000000.parquet"}},
		{"draft of a living run", fmt.Sprintf("out/.part-000000.parquet.tmp-%d", os.Getppid()), parquet.Config{Path: "out"}, "", []string{fmt.Sprintf("out/.part-000000.parquet.tmp-%d", os.Getppid()), "out/part-000000.parquet"}},
		{"draft of another output", "out/.notes.tmp-999999999", parquet.Config{Path: "out"}, "", []string{"out/.notes.tmp-999999999", "out/part-000000.parquet"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fsys := pipelinetest.NewFS()
			fsys.Put(c.there, []byte("old"))
			s, err := bind(fsys, c.conf)
			if c.want != "" {
				if err == nil || err.Error() != c.want || !errors.Is(err, parquet.ErrExists) {
					t.Errorf("Bind: %v, want %q", err, c.want)
				}
			} else if err != nil {
				t.Fatal(err)
			} else {
				writeN(t, s, 1)
			}
			if got := fsys.Files(); !slices.Equal(got, c.files) {
				t.Errorf("files %v, want %v", got, c.files)
			}
		})
	}
}

func TestOverwriteKeepsOldFileUntilFlush(t *testing.T) {
	fsys := pipelinetest.NewFS()
	fsys.Put("s.parquet", []byte("old"))
	s := mustBind(t, fsys, parquet.Config{Path: "s.parquet", Overwrite: true})
	if err := s.Write(t.Context(), 1, record(0, 3)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := fsys.ReadFile("s.parquet"); err != nil || string(b) != "old" {
		t.Errorf("after Close without Flush the old file is %q, %v", b, err)
	}
}

func TestDiskFull(t *testing.T) {
	fsys := pipelinetest.NewFS()
	s := mustBind(t, fsys, parquet.Config{Path: "out", RollRows: 10})
	if err := s.Write(t.Context(), 1, record(0, 10)); err != nil {
		t.Fatal(err)
	}
	fsys.LimitSpace(100)
	err := s.Write(t.Context(), 2, record(10, 10))
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "out/part-000001.parquet") || !strings.Contains(err.Error(), "free some space or write elsewhere; 1 batches are safe") {
		t.Errorf("Write: %v", err)
	}
	if again := s.Flush(t.Context()); !errors.Is(again, syscall.ENOSPC) {
		t.Errorf("Flush after a failure: %v", again)
	}
	if s.Durable() != 1 {
		t.Errorf("Durable() = %d, want 1", s.Durable())
	}
	if got := fsys.Files(); !slices.Equal(got, []string{"out/part-000000.parquet"}) {
		t.Errorf("files %v", got)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestRollAge(t *testing.T) {
	fsys := pipelinetest.NewFS()
	now := time.Unix(1000, 0)
	s := mustBind(t, fsys, parquet.Config{Path: "out", RollAge: time.Minute, Now: func() time.Time { return now }})
	for i, want := range []uint64{0, 0, 3, 3} {
		if err := s.Write(t.Context(), uint64(i+1), record(i, 1)); err != nil {
			t.Fatal(err)
		}
		if got := s.Durable(); got != want {
			t.Errorf("after batch %d Durable() = %d, want %d", i+1, got, want)
		}
		now = now.Add(30 * time.Second)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestEmptyRun(t *testing.T) {
	for _, path := range []string{"s.parquet", "out"} {
		fsys := pipelinetest.NewFS()
		writeN(t, mustBind(t, fsys, parquet.Config{Path: path}), 0)
		b, err := fsys.ReadFile(fsys.Files()[0])
		if err != nil {
			t.Fatal(err)
		}
		f, err := parquetio.Open(bytes.NewReader(b), int64(len(b)), path)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := f.Schema(nil); err != nil || s.NumFields() != 2 || f.Rows() != 0 {
			t.Errorf("%s: %v, %v, %d rows", path, s, err, f.Rows())
		}
	}
}

func TestConfigFaults(t *testing.T) {
	_, err := parquet.New(parquet.Config{Compression: "brotli", RollRows: -1, Overwrite: true, Append: true})
	for _, want := range []string{"path: must be set", `compression "brotli" is not supported: use zstd`, "roll rows: -1 is negative", "overwrite and append: choose one"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v, want %q in it", err, want)
		}
	}
	if _, err := parquet.New(parquet.Config{Path: "a.parquet", RollRows: 5}); err == nil {
		t.Error("one file that rolls: no error")
	}
}

func TestBindRefusesTypes(t *testing.T) {
	s, err := parquet.New(parquet.Config{Path: "x.parquet", FS: pipelinetest.NewFS()})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Bind(arrow.NewSchema([]arrow.Field{{Name: "n", Type: arrow.Null}, {Name: "h", Type: arrow.FixedWidthTypes.Float16}}, nil))
	if err == nil || !strings.Contains(err.Error(), `column "n": type null cannot be written to Parquet`) || !strings.Contains(err.Error(), `column "h"`) {
		t.Errorf("Bind: %v", err)
	}
}

func TestRealFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "scores")
	var log bytes.Buffer
	s := mustBind(t, nil, parquet.Config{Path: dir, RollRows: 20, Log: slog.New(slog.NewTextHandler(&log, nil)),
		Metadata: map[string]string{"elbo.model": "pay@1234"}, CreatedBy: "elbo version 1.2.3 (build abc)"})
	writeN(t, s, 5)
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(names) != 3 {
		t.Fatalf("files %v, %v", names, err)
	}
	b, err := os.ReadFile(names[2])
	if err != nil {
		t.Fatal(err)
	}
	f, err := parquetio.Open(bytes.NewReader(b), int64(len(b)), names[2])
	if err != nil || f.Rows() != 10 || f.Metadata()["elbo.model"] != "pay@1234" || f.CreatedBy() != "elbo version 1.2.3 (build abc)" {
		t.Errorf("%v: %d rows, %v, %s", err, f.Rows(), f.Metadata(), f.CreatedBy())
	}
	if n := strings.Count(log.String(), "file committed"); n != 3 {
		t.Errorf("%d lines of log, want 3:\n%s", n, &log)
	}
}

func TestNoPermission(t *testing.T) {
	fsys := pipelinetest.NewFS()
	s := mustBind(t, fsys, parquet.Config{Path: "x.parquet"})
	fsys.FailNext(fs.ErrPermission)
	if err := s.Write(t.Context(), 1, record(0, 1)); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Write: %v", err)
	}
}

func ExampleSink() {
	fsys := pipelinetest.NewFS() // leave Config.FS out for real files
	sink, err := parquet.New(parquet.Config{Path: "scores.parquet", FS: fsys})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sink.Close()
	ctx := context.Background()
	if err := errors.Join(sink.Bind(schema), sink.Write(ctx, 1, record(0, 100)), sink.Flush(ctx)); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(sink.Durable(), fsys.Files())
	// Output: 1 [scores.parquet]
}
