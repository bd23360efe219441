package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// Dead letters are the source's own columns and these, which say where a row
// stood and why it is here.
const (
	DeadPartition = "elbo_dead_partition" // string: Mark.Partition
	DeadPosition  = "elbo_dead_position"  // int64: the row's position in it
	DeadOperator  = "elbo_dead_operator"  // string: the name of the operator that failed
	DeadReason    = "elbo_dead_reason"    // string: the label it is counted under
	DeadDetail    = "elbo_dead_detail"    // string: the error's text, 1000 bytes at most
)

const (
	deadLettersName = "dead letters"
	maxDetail       = 1000
)

// DeadLetterSchema returns the schema of dead letters: that of the source and
// the Dead columns. It fails when the source has a column of such a name.
func DeadLetterSchema(source *arrow.Schema) (*arrow.Schema, error) {
	fields := slices.Clone(source.Fields())
	for _, f := range []arrow.Field{
		{Name: DeadPartition, Type: arrow.BinaryTypes.String},
		{Name: DeadPosition, Type: arrow.PrimitiveTypes.Int64},
		{Name: DeadOperator, Type: arrow.BinaryTypes.String},
		{Name: DeadReason, Type: arrow.BinaryTypes.String},
		{Name: DeadDetail, Type: arrow.BinaryTypes.String},
	} {
		if source.HasField(f.Name) {
			return nil, fmt.Errorf("the source has a column %q, which dead letters need for themselves; leave it out", f.Name)
		}
		fields = append(fields, f)
	}
	return arrow.NewSchema(fields, nil), nil
}

// A flow is a record on its way through the chain.
type flow struct {
	rec arrow.Record
	// origin holds the row of the batch that each row of rec came from; nil means
	// that they are the same rows.
	origin []int
	// known is false once an operator has dropped rows: nobody knows which.
	known bool
}

// from returns the row of the batch that row i came from.
func (f flow) from(i int64) int {
	if f.origin == nil {
		return int(i)
	}
	return f.origin[i]
}

// A deadRow is a row of a batch that an operator could not take.
type deadRow struct {
	row int
	err *opError
}

// reason returns the label that the row is counted under.
func (d deadRow) reason() string {
	var r interface{ Reason() string }
	if errors.As(d.err.err, &r) {
		return r.Reason()
	}
	return "error"
}

// A parting is the search for the rows that a segment cannot take: a part that
// fails is halved, down to single rows.
type parting struct {
	*engine
	seg    segment
	in     flow
	pieces []arrow.Record // results of the parts that passed, in order
	origin []int
	known  bool
	dead   []deadRow
}

// part applies a segment that failed with err to parts of f, until only the rows
// at fault are left, which join the job's dead rows. It borrows f; the caller owns
// the record of the result.
func (e *engine) part(ctx context.Context, seg segment, f flow, j *job, err error) (flow, error) {
	p := parting{engine: e, seg: seg, in: f, known: f.known}
	defer p.release()
	if err := p.halve(ctx, 0, f.rec.NumRows(), err); err != nil {
		return flow{}, err
	}
	j.dead = append(j.dead, p.dead...)
	if len(p.pieces) == 0 {
		return flow{rec: emptyRecord(e.cfg.Allocator, e.plan.Steps[seg.end-1].Schema), known: true}, nil
	}
	rec, err := concat(e.cfg.Allocator, p.pieces)
	if err != nil {
		return flow{}, fmt.Errorf("join the rows that operator %s could take: %w", e.cfg.Operators[seg.end-1].Name, err)
	}
	return flow{rec: rec, origin: p.origin, known: p.known}, nil
}

// halve deals with rows [lo, hi), which failed with err.
func (p *parting) halve(ctx context.Context, lo, hi int64, err error) error {
	var failed *opError
	if !errors.As(err, &failed) || failed.fatal || ctx.Err() != nil || hi == lo {
		return err
	}
	if !p.in.known {
		return fmt.Errorf("%w (the rows at fault cannot be told apart, because an operator before it drops rows: "+
			"move that one behind the stateful operators)", err)
	}
	if hi-lo == 1 {
		p.dead = append(p.dead, deadRow{row: p.in.from(lo), err: failed})
		return nil
	}
	mid := lo + (hi-lo)/2
	for _, r := range [][2]int64{{lo, mid}, {mid, hi}} {
		if err := p.try(ctx, r[0], r[1]); err != nil {
			return err
		}
	}
	return nil
}

func (p *parting) try(ctx context.Context, lo, hi int64) error {
	slice := p.in.rec.NewSlice(lo, hi)
	out, err := p.applySegment(ctx, p.seg, slice)
	slice.Release()
	if err != nil {
		return p.halve(ctx, lo, hi, err)
	}
	p.pieces = append(p.pieces, out)
	if out.NumRows() != hi-lo {
		p.known = false
	}
	for i := lo; i < hi && p.known; i++ {
		p.origin = append(p.origin, p.in.from(i))
	}
	return nil
}

func (p *parting) release() {
	for _, rec := range p.pieces {
		rec.Release()
	}
}

// bury builds the record of a job's dead letters.
func (e *engine) bury(j *job) error {
	if len(j.dead) == 0 {
		return nil
	}
	slices.SortStableFunc(j.dead, func(a, b deadRow) int { return cmp.Compare(a.row, b.row) })
	// A message is one dead letter, however many of its rows failed.
	j.dead = slices.CompactFunc(j.dead, func(a, b deadRow) bool { return a.row == b.row })
	var rows []arrow.Record
	defer func() {
		for _, r := range rows {
			r.Release()
		}
	}()
	for i := 0; i < len(j.dead); {
		n := 1
		for i+n < len(j.dead) && j.dead[i+n].row == j.dead[i].row+n {
			n++
		}
		rows = append(rows, j.batch.Record.NewSlice(int64(j.dead[i].row), int64(j.dead[i].row+n)))
		i += n
	}
	own, err := concat(e.cfg.Allocator, rows)
	if err != nil {
		return fmt.Errorf("gather the dead letters: %w", err)
	}
	defer own.Release()
	schema, err := DeadLetterSchema(own.Schema())
	if err != nil {
		return err
	}
	reasons := e.reasonColumns(j)
	defer releaseArrays(reasons)
	j.letters = array.NewRecord(schema, append(slices.Clone(own.Columns()), reasons...), own.NumRows())
	return nil
}

// position returns where a row of the job's batch stands in its partition.
func (j *job) position(row int) int64 {
	if j.batch.Positions != nil {
		return j.batch.Positions[row]
	}
	return j.batch.First + int64(row)
}

func (e *engine) reasonColumns(j *job) []arrow.Array {
	var text [4]*array.StringBuilder
	for i := range text {
		text[i] = array.NewStringBuilder(e.cfg.Allocator)
		defer text[i].Release()
	}
	position := array.NewInt64Builder(e.cfg.Allocator)
	defer position.Release()
	for _, d := range j.dead {
		detail := d.err.err.Error()
		detail = strings.ToValidUTF8(detail[:min(len(detail), maxDetail)], "")
		text[0].Append(j.batch.Mark.Partition)
		position.Append(j.position(d.row))
		text[1].Append(d.err.operator)
		text[2].Append(d.reason())
		text[3].Append(detail)
	}
	return []arrow.Array{text[0].NewArray(), position.NewArray(), text[1].NewArray(), text[2].NewArray(), text[3].NewArray()}
}

// concat joins records of one schema. It borrows them; the caller owns the result.
// There is at least one record. Empty ones are left out, because Arrow cannot
// join the dictionaries of some of them.
func concat(mem memory.Allocator, recs []arrow.Record) (arrow.Record, error) {
	whole := recs
	recs = nil
	for _, r := range whole {
		if r.NumRows() > 0 {
			recs = append(recs, r)
		}
	}
	if len(recs) == 0 {
		recs = whole[:1]
	}
	if len(recs) == 1 {
		recs[0].Retain()
		return recs[0], nil
	}
	var cols []arrow.Array
	defer func() { releaseArrays(cols) }()
	var rows int64
	for _, r := range recs {
		rows += r.NumRows()
	}
	for i := range recs[0].Columns() {
		parts := make([]arrow.Array, len(recs))
		for k, r := range recs {
			parts[k] = r.Column(i)
		}
		col, err := array.Concatenate(parts, mem)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", recs[0].ColumnName(i), err)
		}
		cols = append(cols, col)
	}
	return array.NewRecord(recs[0].Schema(), cols, rows), nil
}

func emptyRecord(mem memory.Allocator, schema *arrow.Schema) arrow.Record {
	b := array.NewRecordBuilder(mem, schema)
	defer b.Release()
	return b.NewRecord()
}

func releaseArrays(arrays []arrow.Array) {
	for _, a := range arrays {
		a.Release()
	}
}

// poison watches the share of dead letters, in batch order.
type poison struct {
	limit DeadLetterLimit
	inRow map[string]int64 // by partition: dead rows at the end of what was seen
	rows  int64            // since the last look at the share
	dead  int64
}

// shareWindow is how many rows must have passed before their share is judged.
const shareWindow = 10_000

// see counts a batch and returns an error when a limit is passed.
func (p *poison) see(partition string, rows int64, dead []deadRow) error {
	p.rows += rows
	p.dead += int64(len(dead))
	run, next := p.inRow[partition], int64(0)
	for _, d := range dead {
		if int64(d.row) != next {
			run = 0
		}
		run++
		next = int64(d.row) + 1
		if p.limit.InRow > 0 && run > p.limit.InRow {
			return fmt.Errorf("dead letters: more than %d rows of partition %q failed one after the other, the last: %w",
				p.limit.InRow, partition, d.err)
		}
	}
	if next != rows {
		run = 0
	}
	p.inRow[partition] = run
	if p.rows < shareWindow {
		return nil
	}
	if share := float64(p.dead) / float64(p.rows); p.limit.Share > 0 && share > p.limit.Share {
		return fmt.Errorf("dead letters: %.1f%% of the last %d rows failed, more than the limit of %.1f%%, the last: %w",
			100*share, p.rows, 100*p.limit.Share, lastError(dead))
	}
	p.rows, p.dead = 0, 0
	return nil
}

func lastError(dead []deadRow) error {
	if len(dead) == 0 {
		return errors.New("in an earlier batch")
	}
	return dead[len(dead)-1].err
}
