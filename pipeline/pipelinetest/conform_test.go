package pipelinetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/pipeline"
)

var testSchema = arrow.NewSchema([]arrow.Field{
	{Name: "word", Type: &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}, Nullable: true},
	{Name: "value", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
	{Name: "list", Type: arrow.ListOf(arrow.PrimitiveTypes.Float32), Nullable: true},
}, nil)

// testRecord returns n rows; the values follow from first.
func testRecord(tb testing.TB, first, n int) arrow.Record {
	tb.Helper()
	b := array.NewRecordBuilder(memory.NewGoAllocator(), testSchema)
	defer b.Release()
	for i := first; i < first+n; i++ {
		if i%5 == 4 {
			for _, f := range b.Fields() {
				f.AppendNull()
			}
			continue
		}
		if err := b.Field(0).(*array.BinaryDictionaryBuilder).AppendString(fmt.Sprint("w", i%3)); err != nil {
			tb.Fatal(err)
		}
		b.Field(1).(*array.Float64Builder).Append(float64(i) / 3)
		list := b.Field(2).(*array.ListBuilder)
		list.Append(true)
		for k := range i % 4 {
			list.ValueBuilder().(*array.Float32Builder).Append(float32(k))
		}
	}
	return b.NewRecord()
}

func testRecords(tb testing.TB) []arrow.Record {
	return []arrow.Record{testRecord(tb, 0, 20), testRecord(tb, 20, 1), testRecord(tb, 21, 33)}
}

func testBatches(tb testing.TB) []MarkedBatch {
	recs := testRecords(tb)
	return []MarkedBatch{
		{recs[0], 0, pipeline.Mark{Partition: "a", Next: 20}},
		{recs[1], 0, pipeline.Mark{Partition: "b", Next: 1}},
		{recs[2], 20, pipeline.Mark{Partition: "a", Next: 53}},
	}
}

func TestTopicSource(t *testing.T) {
	gaps := make([]int64, 33)
	for i := range gaps {
		gaps[i] = int64(i * i)
	}
	for _, seed := range []uint64{0, 5} {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			topic := NewTopic(testSchema,
				Partition{Name: "a", Epoch: 3, Rows: testRecord(t, 0, 50)},
				Partition{Name: "none", Rows: testRecord(t, 0, 0)},
				Partition{Name: "gaps", Rows: testRecord(t, 50, 33), Positions: gaps})
			Source(t, SourceTest{New: func(*testing.T, memory.Allocator) pipeline.Source {
				return topic.Open(SourceOptions{Seed: seed})
			}})
		})
	}
}

func TestEndlessSource(t *testing.T) {
	topic := NewTopic(testSchema, Partition{Name: "a", Rows: testRecord(t, 0, 50)})
	Source(t, SourceTest{MaxRows: 40, New: func(*testing.T, memory.Allocator) pipeline.Source {
		return topic.Open(SourceOptions{Endless: true})
	}})
}

// An adder adds a column with its running sum of values, or 0 when it keeps none.
type adder struct {
	mem     memory.Allocator
	running bool
	sum     float64
}

func (a *adder) Bind(in *arrow.Schema) (*arrow.Schema, error) {
	return arrow.NewSchema(append(in.Fields(), arrow.Field{Name: "sum", Type: arrow.PrimitiveTypes.Float64}), nil), nil
}

func (a *adder) Apply(_ context.Context, rec arrow.Record) (arrow.Record, error) {
	b := array.NewFloat64Builder(a.mem)
	defer b.Release()
	values := rec.Column(1).(*array.Float64)
	for i := range values.Len() {
		if a.running && values.IsValid(i) {
			a.sum += values.Value(i)
		}
		b.Append(a.sum)
	}
	col := b.NewArray()
	defer col.Release()
	out, _ := a.Bind(rec.Schema())
	return array.NewRecord(out, append(append([]arrow.Array(nil), rec.Columns()...), col), rec.NumRows()), nil
}

func (a *adder) Snapshot() ([]byte, error) { return binary.Append(nil, binary.LittleEndian, a.sum) }

func (a *adder) Restore(state []byte) error {
	if len(state) != 8 {
		return errors.New("a state has 8 bytes")
	}
	_, err := binary.Decode(state, binary.LittleEndian, &a.sum)
	return err
}

func TestOperator(t *testing.T) {
	Operator(t, OperatorTest{Inputs: testRecords(t), New: func(_ *testing.T, mem memory.Allocator) pipeline.Operator {
		return &adder{mem: mem}
	}})
}

func TestStateful(t *testing.T) {
	Stateful(t, StatefulTest{Inputs: testRecords(t), New: func(_ *testing.T, mem memory.Allocator) pipeline.Stateful {
		return &adder{mem: mem, running: true}
	}})
}

func TestTableSink(t *testing.T) {
	for roll := range 3 {
		t.Run(fmt.Sprint("roll ", roll), func(t *testing.T) {
			Sink(t, SinkTest{Inputs: testRecords(t), New: func(t *testing.T, _ *FS) (pipeline.Sink, error) {
				table := NewTable()
				t.Cleanup(table.Release)
				return releasing{table.Open(SinkOptions{Roll: roll}), table}, nil
			}})
		})
	}
}

// releasing empties its table at Close, since a Table keeps records.
type releasing struct {
	*TableSink
	table *Table
}

func (r releasing) Close() error {
	defer r.table.Release()
	return r.TableSink.Close()
}

// A fileSink writes one file for each batch, and Flush writes what is held back.
// It is as small as a sink of files can be; fault makes it a wrong one.
type fileSink struct {
	fsys    *FS
	fault   string
	schema  *arrow.Schema
	pending []func() error
	written uint64
	durable uint64
}

func newFileSink(fsys *FS, fault string) (pipeline.MarkWriter, error) {
	for _, temp := range fsys.Temporaries() {
		if err := fsys.Remove(temp); err != nil {
			return nil, err
		}
	}
	return &fileSink{fsys: fsys, fault: fault}, fsys.MkdirAll("out")
}

func (s *fileSink) Bind(in *arrow.Schema) error { s.schema = in; return nil }
func (s *fileSink) Durable() uint64 {
	if s.fault == "early" {
		return s.written
	}
	return s.durable
}
func (s *fileSink) Write(ctx context.Context, n uint64, rec arrow.Record) error {
	return s.WriteBatch(ctx, n, rec, 0, pipeline.Mark{})
}

func (s *fileSink) WriteBatch(_ context.Context, n uint64, rec arrow.Record, first int64, m pipeline.Mark) error {
	if len(s.pending) == 2 {
		if err := s.Flush(context.Background()); err != nil {
			return err
		}
	}
	var buf bytes.Buffer
	w := ipc.NewWriter(&buf, ipc.WithSchema(rec.Schema()))
	if err := errors.Join(w.Write(rec), w.Close()); err != nil {
		return err
	}
	path := fmt.Sprintf("out/%06d-%s-%d-%d.arrow", n, m.Partition, first, m.Next)
	if s.fault == "skip" && n == 2 {
		path, buf = "out/lost.txt", bytes.Buffer{}
	}
	s.written = n
	s.pending = append(s.pending, func() error {
		if s.fault != "direct" && s.fault != "open" {
			d, err := durable.Create(s.fsys, path, durable.Options{})
			if err != nil {
				return err
			}
			_, err = d.Write(buf.Bytes())
			if err != nil && s.fault == "drafts" {
				return err
			}
			if err != nil {
				return errors.Join(err, d.Abort())
			}
			return d.Commit()
		}
		f, err := s.fsys.Create(path)
		if err != nil {
			return err
		}
		_, err = f.Write(buf.Bytes())
		if s.fault == "open" {
			return err
		}
		return errors.Join(err, f.Sync(), f.Close(), s.fsys.SyncDir("out"))
	})
	return nil
}

func (s *fileSink) Flush(context.Context) error {
	for len(s.pending) > 0 {
		if err := s.pending[0](); err != nil {
			return err
		}
		s.pending = s.pending[1:]
		s.durable++
	}
	return nil
}

func (s *fileSink) Close() error {
	if s.fault == "flushes" {
		return s.Flush(context.Background())
	}
	return nil
}

func (s *fileSink) Position(context.Context, []pipeline.Mark) ([]pipeline.Mark, error) {
	names, err := s.fsys.ReadDir("out")
	next := make(map[string]int64)
	for _, name := range names {
		part := strings.Split(strings.TrimSuffix(name, ".arrow"), "-")
		var n int64
		if _, err := fmt.Sscan(part[len(part)-1], &n); err == nil {
			next[part[1]] = max(n, next[part[1]])
		}
	}
	var marks []pipeline.Mark
	for p, n := range next {
		marks = append(marks, pipeline.Mark{Partition: p, Next: n})
	}
	return marks, err
}

// readFiles reads what fileSinks wrote. A broken file ends the test, unless
// tolerant.
func readFiles(t *testing.T, fsys *FS) []arrow.Record {
	var recs []arrow.Record
	for _, path := range fsys.Files() {
		if filepath.Ext(path) != ".arrow" {
			continue
		}
		data, err := fsys.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := ipc.NewReader(bytes.NewReader(data))
		if err != nil {
			recs = append(recs, testRecord(t, 999, 1)) // shows as a wrong row
			continue
		}
		for r.Next() {
			r.Record().Retain()
			recs = append(recs, r.Record())
		}
		r.Release()
	}
	return recs
}

func TestFileSink(t *testing.T) {
	Sink(t, SinkTest{Inputs: testRecords(t), Read: readFiles, New: func(_ *testing.T, fsys *FS) (pipeline.Sink, error) {
		return newFileSink(fsys, "")
	}})
}

func TestFileMarkWriter(t *testing.T) {
	MarkWriter(t, MarkWriterTest{Inputs: testBatches(t), Read: readFiles, New: func(_ *testing.T, fsys *FS) (pipeline.MarkWriter, error) {
		return newFileSink(fsys, "")
	}})
}

// TestSinkFindsFaults checks that wrong sinks do not pass.
func TestSinkFindsFaults(t *testing.T) {
	for _, fault := range []string{"early", "direct", "open", "drafts", "flushes", "skip"} {
		t.Run(fault, func(t *testing.T) {
			c := sinkCheck{batches: testBatches(t), marked: true}
			c.SinkTest = SinkTest{Read: readFiles, New: func(_ *testing.T, fsys *FS) (pipeline.Sink, error) {
				return newFileSink(fsys, fault)
			}}
			err := errors.Join(c.testDurable(t), c.testNothing(t), c.testAfterFlush(t), c.testGiveUp(t),
				c.testBorrows(t), c.testFailures(t), c.testDiskFull(t), c.testCrashes(t))
			if err == nil {
				t.Fatal("it passes")
			}
			t.Log(err)
		})
	}
}
