// Package generate is a source of made-up payments, for the demo, for tests and
// for benchmarks. It needs no file and no broker.
//
//	src, err := generate.New(generate.Config{Rows: 10_000, Seed: 1, AnomalyRate: 0.01, Label: true})
//
// The stream looks like payments next to readings of the machine that handled
// them: four clusters with correlations of their own, a merchant kind that goes
// with the cluster, a boolean, an event time and an id. A share of the rows
// holds planted anomalies of named kinds.
//
// Row i is a pure function of the seed and i, built from whole numbers and
// correctly rounded arithmetic: batch size, resuming and the kind of machine
// change no bit of it. The mistake to avoid is training on the columns label
// and anomaly_kind: they are the answer.
package generate

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline"
)

// Config says what to generate. The zero value is an endless stream of normal
// rows.
type Config struct {
	// Rows is the length of the stream; 0 means endless.
	Rows int64 `yaml:"rows" doc:"Number of rows; 0 means endless."`
	// Seed selects the stream; every value is a good one.
	Seed uint64 `yaml:"seed" doc:"Selects the stream: the same seed gives the same rows."`
	// BatchRows is the number of rows in one batch; 0 means 8192. It changes
	// no row.
	BatchRows int `yaml:"batch_rows" default:"8192" doc:"Rows in one batch. It changes no row."`
	// AnomalyRate is the share of rows that hold a planted anomaly, 0 to 1.
	AnomalyRate float64 `yaml:"anomaly_rate" doc:"Share of rows that hold a planted anomaly, from 0 to 1."`
	// Kinds are the kinds of anomalies to plant; empty means all of Kinds().
	Kinds []string `yaml:"kinds" enum:"spike,broken_correlation,swap,scale,wrong_category,unseen_category,missing" doc:"Kinds of anomalies to plant; empty means all."`
	// Partitions is the number of partitions that the rows are dealt to in
	// turn; 0 means 1, at most 4096.
	Partitions int `yaml:"partitions" default:"1" doc:"Number of partitions that the rows are dealt to in turn."`
	// Label adds the columns label (int32, 1 for an anomaly) and anomaly_kind
	// (string, empty for a normal row).
	Label bool `yaml:"label" doc:"Add the columns label (0 or 1) and anomaly_kind, which hold the truth."`
	// Allocator provides the memory of the batches; nil means Go's own.
	Allocator memory.Allocator `yaml:"-"`
}

func (c Config) withDefaults() Config {
	if c.BatchRows == 0 {
		c.BatchRows = 8192
	}
	if len(c.Kinds) == 0 {
		c.Kinds = Kinds()
	}
	if c.Partitions == 0 {
		c.Partitions = 1
	}
	if c.Allocator == nil {
		c.Allocator = memory.DefaultAllocator
	}
	return c
}

// The bounds keep one batch's memory (about 150 bytes a row) and the set of
// marks within reason, and event times before the year 3000.
const (
	maxRows       = 30_000_000_000
	maxBatchRows  = 1 << 20
	maxPartitions = 4096
)

func (c Config) validate() error {
	var errs []error
	if c.Rows < 0 || c.Rows > maxRows {
		errs = append(errs, fmt.Errorf("rows: %d is not between 0 (endless) and %d", c.Rows, int64(maxRows)))
	}
	if c.BatchRows < 1 || c.BatchRows > maxBatchRows {
		errs = append(errs, fmt.Errorf("batch_rows: %d is not between 1 and %d", c.BatchRows, maxBatchRows))
	}
	if !(c.AnomalyRate >= 0 && c.AnomalyRate <= 1) {
		errs = append(errs, fmt.Errorf("anomaly_rate: %v is not between 0 and 1", c.AnomalyRate))
	}
	for _, k := range c.Kinds {
		if !slices.Contains(Kinds(), k) {
			errs = append(errs, fmt.Errorf("kinds: %q is not one of %s", k, strings.Join(Kinds(), ", ")))
		}
	}
	if c.Partitions < 1 || c.Partitions > maxPartitions {
		errs = append(errs, fmt.Errorf("partitions: %d is not between 1 and %d", c.Partitions, maxPartitions))
	}
	return errors.Join(errs...)
}

// A Source generates rows. Row and Schema may be called by many goroutines at
// once; each sequence of Batches belongs to one.
type Source struct {
	config Config
	rows   rows
	schema *arrow.Schema
	levels []string // of the merchant column
	epoch  int64
}

var _ pipeline.Source = (*Source)(nil)

// New returns a source, or an error that names everything wrong with c.
func New(c Config) (*Source, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	s := &Source{
		config: c,
		rows:   rows{seed: c.Seed, limit: uint64(math.Round(c.AnomalyRate * (1 << 53))), kinds: slices.Clone(c.Kinds)},
		schema: schemaOf(c.Label),
		epoch:  epochOf(c),
	}
	normal, odd := merchantLevels()
	s.levels = normal
	if c.AnomalyRate > 0 && slices.Contains(c.Kinds, UnseenCategory) {
		s.levels = append(s.levels, odd...)
	}
	return s, nil
}

// epochOf is a fingerprint of what the rows depend on, so that a mark made
// under another configuration is recognised. It is never 0.
func epochOf(c Config) int64 {
	h := mix(c.Seed + golden)
	h = mix(h ^ math.Float64bits(c.AnomalyRate))
	h = mix(h ^ uint64(c.Partitions))
	for _, k := range c.Kinds {
		for _, b := range []byte(k) {
			h = mix(h ^ uint64(b))
		}
		h = mix(h)
	}
	return int64(h>>1) | 1
}

// Row returns row i of the stream, counted from 0 over all partitions: row i is
// row i/Partitions of partition i%Partitions. It ignores Config.Rows.
func (s *Source) Row(i int64) Row {
	var r Row
	s.rows.at(i, &r)
	return r
}

// Schema returns the schema of every batch.
func (s *Source) Schema(context.Context) (*arrow.Schema, error) { return s.schema, nil }

// PartitionName returns the name of partition p, for marks.
func PartitionName(p int) string { return fmt.Sprintf("generate-%d", p) }

// Batches yields the rows after the marks, a batch of each partition in turn. A
// mark whose epoch is of another configuration is ignored: its partition starts
// at its beginning. A mark of a partition that the source does not have is an
// error.
func (s *Source) Batches(ctx context.Context, from []pipeline.Mark) iter.Seq2[*pipeline.Batch, error] {
	return func(yield func(*pipeline.Batch, error) bool) {
		next, err := s.positions(from)
		if err != nil {
			yield(nil, err)
			return
		}
		fill := newFiller(s)
		defer fill.release()
		for more := true; more; {
			more = false
			for p := range next {
				if err := ctx.Err(); err != nil {
					yield(nil, err)
					return
				}
				n := min(int64(s.config.BatchRows), s.partitionRows(p)-next[p])
				if n <= 0 {
					continue
				}
				more = true
				b := &pipeline.Batch{
					Record: fill.record(p, next[p], n),
					Mark:   pipeline.Mark{Partition: PartitionName(p), Epoch: s.epoch, Next: next[p] + n},
					First:  next[p],
				}
				next[p] += n
				if !yield(b, nil) {
					return
				}
			}
		}
	}
}

// positions returns the first row wanted of each partition.
func (s *Source) positions(from []pipeline.Mark) ([]int64, error) {
	next := make([]int64, s.config.Partitions)
	byName := make(map[string]int, len(next))
	for p := range next {
		byName[PartitionName(p)] = p
	}
	for _, m := range from {
		p, ok := byName[m.Partition]
		switch {
		case !ok && m.Epoch == s.epoch:
			return nil, fmt.Errorf("generate: resume: there is no partition %q among the %d partitions", m.Partition, len(next))
		case m.Epoch != s.epoch:
			continue
		case m.Next < 0:
			return nil, fmt.Errorf("generate: resume: mark %d of partition %q is negative", m.Next, m.Partition)
		}
		next[p] = m.Next
	}
	return next, nil
}

// partitionRows returns the length of partition p.
func (s *Source) partitionRows(p int) int64 {
	total := s.config.Rows
	if total == 0 {
		total = maxRows
	}
	parts := int64(s.config.Partitions)
	return (total - int64(p) + parts - 1) / parts
}

// Commit does nothing: every row can be made again.
func (s *Source) Commit(context.Context, []pipeline.Mark) error { return nil }

// BatchRows returns the most rows that a batch has.
func (s *Source) BatchRows() int { return s.config.BatchRows }

// Rows returns the length of the stream, 0 when it is endless.
func (s *Source) Rows() int64 { return s.config.Rows }

// Close does nothing.
func (s *Source) Close() error { return nil }
