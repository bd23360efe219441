package eval_test

import (
	"fmt"
	"os"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/eval"
)

func ExampleAUROC() {
	scores := []float32{0.2, 3.1, 0.4, 0.4}
	labels := []bool{false, true, false, true}
	auroc, err := eval.AUROC(scores, labels)
	fmt.Println(auroc, err)
	// Output: 0.875 <nil>
}

func ExampleAt() {
	scores := []float64{1, 9, 2, 8, 7}
	labels := []bool{false, true, false, true, false}
	at, err := eval.At(scores, labels, 6)
	fmt.Printf("precision %.2f, recall %.2f, F1 %.2f, %v\n", at.Precision(), at.Recall(), at.F1(), err)
	// Output: precision 0.67, recall 1.00, F1 0.80, <nil>
}

func ExampleRate() {
	r, err := eval.Rate(14, 10_000, 0.001, 0.95)
	fmt.Printf("%.4f within %.5f and %.5f, kept: %v, %v\n", r.Achieved, r.Low, r.High, r.Kept, err)
	// Output: 0.0014 within 0.00077 and 0.00235, kept: true, <nil>
}

func ExampleFlipRate() {
	before, after := []float32{1, 5, 9}, []float32{1, 7, 9}
	f, err := eval.FlipRate(before, 6, after, 6)
	fmt.Printf("%+v %v\n", f, err)
	// Output: {Rows:3 On:1 Off:0 Rate:0.3333333333333333} <nil>
}

func ExampleHistogram_WriteText() {
	h, err := eval.NewHistogram([]float64{1, 1, 1, 2, 2, 3, 4}, []bool{false, false, false, false, false, false, true}, 3)
	if err != nil {
		fmt.Println(err)
		return
	}
	limit := 3.5
	h.WriteText(os.Stdout, 40, &limit)
	// Output:
	// 1.00 ▏███████████████████ 3
	// 2.00 ▏████████████▋ 2
	// 3.00 ▏██████▍▒▒▒▒▒▒ 1 + 1 < limit
}

func ExampleBuild() {
	limit := 5.0
	r, err := eval.Build(eval.Input{
		Title:  "payments",
		Scores: []float64{1, 2, 9, 3, 8},
		Labels: []bool{false, false, true, false, true},
		Limit:  &limit,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	r.WriteText(os.Stdout, eval.TextOptions{NoPlot: true})
	// Output:
	// payments
	//   rows                 5, 2 anomalies
	//   AUROC                1.0000
	//   average precision    1.0000
	//   precision at k       1.0000
	//
	// alerts
	//   limit                5.00 nats
	//   flagged              2 of 5 rows
	//   precision            1.000
	//   recall               1.000
	//   F1                   1.000
	//   best F1 possible     1.000 at limit 5.50
}

func ExampleInject() {
	f64 := arrow.PrimitiveTypes.Float64
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{{Name: "x", Type: f64}, {Name: "y", Type: f64}}, nil))
	defer b.Release()
	b.Field(0).(*array.Float64Builder).AppendValues([]float64{1, 2, 3}, nil)
	b.Field(1).(*array.Float64Builder).AppendValues([]float64{10, 20, 30}, nil)
	rec := b.NewRecord()
	defer rec.Release()
	columns := []vae.Column{{Name: "x", Kind: vae.Numeric}, {Name: "y", Kind: vae.Numeric}}
	in, err := eval.Inject(rec, eval.Injection{Kind: eval.Swap, Columns: columns, Seed: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer in.Release()
	fmt.Println(in.Record.Column(0), in.Record.Column(1), len(in.Changed[0]), "columns changed")
	// Output: [10 20 30] [1 2 3] 2 columns changed
}
