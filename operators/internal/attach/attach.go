// Package attach adds columns to schemas and records for the operators.
//
// The mistake it prevents is silent shadowing: a new column whose name the
// input already has is an error.
package attach

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// Schema returns in with fields appended. The error names every field that is
// there already, or that stands twice among the new ones.
func Schema(in *arrow.Schema, fields []arrow.Field) (*arrow.Schema, error) {
	var there, twice []string
	for i, f := range fields {
		if len(in.FieldIndices(f.Name)) > 0 {
			there = append(there, f.Name)
		}
		if slices.ContainsFunc(fields[:i], func(g arrow.Field) bool { return g.Name == f.Name }) {
			twice = append(twice, f.Name)
		}
	}
	if twice != nil {
		return nil, fmt.Errorf("two new columns would be named %s: rename the model's columns", strings.Join(twice, ", "))
	}
	if there != nil {
		return nil, fmt.Errorf("the input has the columns %s already: drop or rename them first (select: {drop: [...]}, or --ignore)", strings.Join(there, ", "))
	}
	meta := in.Metadata()
	return arrow.NewSchema(slices.Concat(in.Fields(), fields), &meta), nil
}

// Record returns rec with columns appended; it takes over the columns and
// borrows rec. The caller owns the result.
func Record(schema *arrow.Schema, rec arrow.Record, columns []arrow.Array) arrow.Record {
	out := array.NewRecord(schema, slices.Concat(rec.Columns(), columns), rec.NumRows())
	for _, c := range columns {
		c.Release()
	}
	return out
}

// A FreeList keeps scratch objects between calls of Apply. Its zero value with
// New set is ready; it is safe for concurrent use and never holds more objects
// than were in use at once.
type FreeList[T any] struct {
	New func() (T, error)

	mu   sync.Mutex
	free []T
}

// Get returns a free object or a new one.
func (f *FreeList[T]) Get() (T, error) {
	f.mu.Lock()
	if n := len(f.free); n > 0 {
		x := f.free[n-1]
		f.free = f.free[:n-1]
		f.mu.Unlock()
		return x, nil
	}
	f.mu.Unlock()
	return f.New()
}

// Put gives an object back.
func (f *FreeList[T]) Put(x T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free = append(f.free, x)
}
