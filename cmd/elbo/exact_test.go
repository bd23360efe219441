package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline"
	sink "github.com/elbo-stream/elbo/sinks/parquet"
)

// exactFiles writes one row for each position of a partition, from the first of
// bounds to the last, and one file between each two of them, as an exactly-once
// sink does. Every file has one dead letter.
func exactFiles(dir, partition string, bounds []string) error {
	schema := arrow.NewSchema([]arrow.Field{{Name: "position", Type: arrow.PrimitiveTypes.Int64}}, nil)
	s, err := sink.NewExact(sink.ExactConfig{Path: dir})
	if err != nil {
		return err
	}
	if err := errors.Join(s.Bind(schema), s.BindLetters(schema)); err != nil {
		return errors.Join(err, s.Close())
	}
	rows := func(from, to int64) arrow.Record {
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		defer b.Release()
		for p := from; p < to; p++ {
			b.Field(0).(*array.Int64Builder).Append(p)
		}
		return b.NewRecord()
	}
	ctx := context.Background()
	for i := range len(bounds) - 1 {
		from, err1 := strconv.ParseInt(bounds[i], 10, 64)
		to, err2 := strconv.ParseInt(bounds[i+1], 10, 64)
		n, mark := uint64(i+1), pipeline.Mark{Partition: partition, Epoch: 1, Next: to}
		err := errors.Join(err1, err2)
		if err == nil {
			err = s.WriteLetters(ctx, n, rows(from, from+1), mark)
		}
		if err == nil {
			err = s.WriteBatch(ctx, n, rows(from+1, to), from, mark)
		}
		if err == nil {
			err = s.Flush(ctx)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("%s: %w", partition, err), s.Close())
		}
	}
	return s.Close()
}
