package pipelinetest_test

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
)

func write10(w io.Writer) error {
	_, err := io.WriteString(w, "0123456789")
	return err
}

// numbers returns n rows of one column.
func numbers(n int) arrow.Record {
	schema := arrow.NewSchema([]arrow.Field{{Name: "n", Type: arrow.PrimitiveTypes.Int64}}, nil)
	b := array.NewRecordBuilder(memory.NewGoAllocator(), schema)
	defer b.Release()
	for i := range n {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
	}
	return b.NewRecord()
}

// A Power cuts every fake off at once; the next run finds what was durable, and
// goes on behind what was committed.
func ExamplePower() {
	rec := numbers(100)
	topic := pipelinetest.NewTopic(rec.Schema(), pipelinetest.Partition{Name: "p", Rows: rec})
	table := pipelinetest.NewTable()
	for _, power := range []*pipelinetest.Power{pipelinetest.NewPower(20), nil} {
		_, err := pipeline.Run(context.Background(), pipeline.Config{
			Source: topic.Open(pipelinetest.SourceOptions{Power: power}),
			Sinks:  []pipeline.NamedSink{{Name: "out", Sink: table.OpenMarks(pipelinetest.SinkOptions{Roll: 2, Power: power})}},
			From:   topic.Committed(),
		})
		fmt.Println(err == nil, table.Rows() == 100)
	}
	// Output:
	// false false
	// true true
}

// Render shows rows as text, to compare them whatever their layout.
func ExampleRender() {
	fmt.Println(strings.Join(pipelinetest.Render(numbers(2)), "\n"))
	// Output:
	// n=0
	// n=1
}
