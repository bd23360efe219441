package pipeline_test

import (
	"context"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
)

// A run copies every row to every sink. Rows that an operator cannot take become
// dead letters.
func ExampleRun() {
	kinds := repeat(20, map[int]string{3: "bad", 11: "panic"})
	part := rows(memory.DefaultAllocator, "a", kinds, nil)
	topic := pipelinetest.NewTopic(rowSchema, part)
	out, dead := pipelinetest.NewTable(), pipelinetest.NewTable()

	stats, err := pipeline.Run(context.Background(), pipeline.Config{
		Source:      topic.Open(pipelinetest.SourceOptions{}),
		Operators:   []pipeline.NamedOperator{{Name: "picky", Operator: picky{}}},
		Sinks:       []pipeline.NamedSink{{Name: "out", Sink: out.Open(pipelinetest.SinkOptions{})}},
		OnError:     pipeline.DeadLetter,
		DeadLetters: dead.Open(pipelinetest.SinkOptions{}),
	})
	fmt.Println("error:", err)
	fmt.Println("read:", stats.RowsRead, "written:", stats.Written, "dead:", stats.Dead)
	fmt.Println("committed:", topic.Committed())
	for _, rec := range dead.Records() {
		for row := range int(rec.NumRows()) {
			fmt.Println(rec.Column(3).ValueStr(row), rec.Column(4).ValueStr(row), rec.Column(5).ValueStr(row), rec.Column(7).ValueStr(row))
		}
	}
	// Output:
	// error: <nil>
	// read: 20 written: map[out:18] dead: map[bad:1 panic:1]
	// committed: [{a 0 20}]
	// a 3 picky row 3 is bad
	// a 11 picky panic: row 11
}

// Bind checks a pipeline without reading a row.
func ExampleBind() {
	part := rows(memory.DefaultAllocator, "a", repeat(1, nil), nil)
	topic := pipelinetest.NewTopic(rowSchema, part)
	plan, err := pipeline.Bind(context.Background(), pipeline.Config{
		Source:    topic.Open(pipelinetest.SourceOptions{}),
		Operators: []pipeline.NamedOperator{{Name: "count", Operator: newCounter(memory.DefaultAllocator)}},
		Sinks:     []pipeline.NamedSink{{Sink: pipelinetest.NewTable().Open(pipelinetest.SinkOptions{})}},
	})
	fmt.Println(err)
	for _, f := range plan.Out().Fields() {
		fmt.Println(f.Name, f.Type)
	}
	// Output:
	// <nil>
	// partition dictionary<values=utf8, indices=int32, ordered=false>
	// position int64
	// kind utf8
	// seen int64
}
