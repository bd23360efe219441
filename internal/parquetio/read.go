package parquetio

import (
	"context"
	"fmt"
	"iter"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// DefaultBatchRows is the number of rows of one record unless asked otherwise.
const DefaultBatchRows = 8192

// ReadOptions say what of a row group is read and how.
type ReadOptions struct {
	// Columns are positions in File.Columns, in the order wanted; nil means all.
	Columns []int
	// BatchRows is the number of rows in one record; 0 means DefaultBatchRows.
	BatchRows int
	// Skip is the number of rows of the group to pass over first.
	Skip int64
	// Allocator owns the records' buffers; nil means memory.DefaultAllocator.
	Allocator memory.Allocator
}

// Schema returns the Arrow schema of the records that Read gives for columns
// (positions in Columns; nil means all), or an error that names every column
// that cannot be read.
func (f *File) Schema(columns []int) (*arrow.Schema, error) {
	nodes, err := f.pick(columns)
	if err != nil {
		return nil, err
	}
	return arrow.NewSchema(fields(nodes), nil), nil
}

func (f *File) pick(columns []int) ([]*node, error) {
	nodes := f.columns
	if columns != nil {
		nodes = make([]*node, len(columns))
		for i, c := range columns {
			nodes[i] = f.columns[c]
		}
	}
	var faults []error
	for _, n := range nodes {
		if err := n.fault(); err != nil {
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		return nil, &Error{File: f.name, Group: -1, Page: -1, Err: joinLines(faults)}
	}
	return nodes, nil
}

// Read yields the rows of a row group in order, in records of o.BatchRows. Each
// record belongs to the caller. It decodes page by page: memory is one decoded
// page for each leaf and one record. The error that ends the sequence is an
// *Error, or that of ctx.
func (f *File) Read(ctx context.Context, group int, o ReadOptions) iter.Seq2[arrow.Record, error] {
	return func(yield func(arrow.Record, error) bool) {
		nodes, err := f.pick(o.Columns)
		if err != nil {
			yield(nil, err)
			return
		}
		s := newScan(f, group, nodes, o)
		defer s.close()
		if err := s.skip(ctx, o.Skip); err != nil {
			yield(nil, err)
			return
		}
		for s.left > 0 {
			rec, err := s.next(ctx)
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(rec, nil) {
				return
			}
		}
		if err := s.finish(); err != nil {
			yield(nil, err)
		}
	}
}

// A scan reads one row group.
type scan struct {
	f      *File
	group  int
	nodes  []*node
	schema *arrow.Schema
	asm    assembler
	sh     *shared
	left   int64
	batch  int64
}

func newScan(f *File, group int, nodes []*node, o ReadOptions) *scan {
	mem := o.Allocator
	if mem == nil {
		mem = memory.DefaultAllocator
	}
	batch := o.BatchRows
	if batch <= 0 {
		batch = DefaultBatchRows
	}
	s := &scan{f: f, group: group, nodes: nodes, schema: arrow.NewSchema(fields(nodes), nil), sh: &shared{},
		left: f.GroupRows(group), batch: int64(batch), asm: assembler{mem: mem, leaves: map[*node]*leafReader{}}}
	for _, n := range nodes {
		n.eachLeaf(func(l *node) { s.asm.leaves[l] = newLeafReader(f, group, l, mem, s.sh) })
	}
	return s
}

// skip decodes and drops rows.
func (s *scan) skip(ctx context.Context, rows int64) error {
	rows = min(rows, s.left)
	for rows > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		k := min(rows, s.batch)
		for _, n := range s.nodes {
			if err := s.take(n, int(k)); err != nil {
				return err
			}
		}
		rows -= k
		s.left -= k
	}
	return nil
}

func (s *scan) next(ctx context.Context) (arrow.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rows := min(s.batch, s.left)
	cols := make([]arrow.Array, 0, len(s.nodes))
	defer func() {
		for _, c := range cols {
			c.Release()
		}
	}()
	for _, n := range s.nodes {
		if err := s.take(n, int(rows)); err != nil {
			return nil, err
		}
		a, err := s.build(n, int(rows))
		if err != nil {
			return nil, err
		}
		cols = append(cols, a)
	}
	s.left -= rows
	return array.NewRecord(s.schema, cols, rows), nil
}

// take collects rows of every leaf of n. A panic below becomes an error here.
func (s *scan) take(n *node, rows int) (err error) {
	n.eachLeaf(func(l *node) {
		if err == nil {
			err = s.takeLeaf(l, rows)
		}
	})
	return err
}

func (s *scan) takeLeaf(l *node, rows int) (err error) {
	c := s.asm.leaves[l]
	defer func() {
		if v := recover(); v != nil {
			err = caught(v)
		}
		if err != nil {
			err = s.at(l.path, c.num, err)
		}
	}()
	return c.take(rows)
}

func (s *scan) build(n *node, rows int) (a arrow.Array, err error) {
	defer func() {
		if v := recover(); v != nil {
			a, err = nil, caught(v)
		}
		if err != nil {
			err = s.at(n.path, -1, err)
		}
	}()
	d, err := s.asm.column(n, 0)
	if err != nil {
		return nil, err
	}
	defer d.Release()
	if d.Len() != rows {
		return nil, fmt.Errorf("%d rows of %d", d.Len(), rows)
	}
	return array.MakeFromData(d), nil
}

// finish checks that no column holds more rows than the footer says.
func (s *scan) finish() (err error) {
	for _, n := range s.nodes {
		n.eachLeaf(func(l *node) {
			if e := s.asm.leaves[l].finished(); e != nil && err == nil {
				err = s.at(l.path, -1, e)
			}
		})
	}
	return err
}

func (s *scan) at(column string, page int, err error) error {
	return &Error{File: s.f.name, Group: s.group, Column: column, Page: page, Err: err}
}

func (s *scan) close() {
	for _, c := range s.asm.leaves {
		c.close()
		s.f.keep(c)
	}
	s.sh.close()
}
