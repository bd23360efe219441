package vae_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae"
)

func ExampleModel_NewScorer() {
	model, err := numericModel() // or vae.Load("pay.elbo")
	if err != nil {
		log.Fatal(err)
	}
	rec := xRecord(10, 1000)
	defer rec.Release()
	scorer, err := model.NewScorer(rec.Schema(), vae.Options{Top: 1})
	if err != nil {
		log.Fatal(err)
	}
	res, err := scorer.Score(rec)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Anomaly)
	fmt.Println(res.Top[1][0].Column, res.Top[1][0].Value)
	// Output:
	// [false true]
	// x 1000
}

func ExampleLoad() {
	model, err := numericModel()
	if err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "elbo")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "pay.elbo")
	if err := model.Save(path, false); err != nil {
		log.Fatal(err)
	}
	loaded, err := vae.Load(path)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(loaded.Name, loaded.ID() == model.ID(), loaded.Size().Features)
	// Output: test true 1
}

func ExampleCalibrate() {
	scores := make([]float32, 1000) // of held-out normal rows
	for i := range scores {
		scores[i] = float32(i) / 100
	}
	c, err := vae.Calibrate(scores, 0.2)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("limit %.2f, P(5) %.2f\n", c.Limit, c.P(5))
	// Output: limit 8.00, P(5) 0.50
}

func ExampleCalibration_SetLimit() {
	c, err := vae.Calibrate([]float32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 0.1)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.SetLimit(7.5), c.Limit, c.Fixed)
	// Output: <nil> 7.5 true
}

func ExampleSeverity() {
	fmt.Println(vae.Severity(1), vae.Severity(0.001), vae.Severity(1e-12))
	// Output: 0 30 100
}

func ExampleNewProfile() {
	rec := xRecord(1, 2, 3)
	defer rec.Release()
	p, err := vae.NewProfile(rec.Schema(), nil, vae.Overrides{})
	if err != nil {
		log.Fatal(err)
	}
	if err := p.Add(rec); err != nil {
		log.Fatal(err)
	}
	cols, warnings := p.Columns()
	fmt.Printf("%s %s mean %g sd %.3f, %d warnings\n", cols[0].Name, cols[0].Head, cols[0].Mean[0], cols[0].Scale[0], len(warnings))
	// Output: x gaussian mean 2 sd 0.816, 0 warnings
}

func ExampleModel_Rebuild() {
	model, err := numericModel()
	if err != nil {
		log.Fatal(err)
	}
	out := []float32{0, 1.5} // decoder outputs, as Result.Out has them
	for _, a := range model.Rebuild(memory.DefaultAllocator, out, false) {
		fmt.Println(a.(*array.Float64).Float64Values())
		a.Release()
	}
	// Output: [10 13]
}

func ExampleNameOf() {
	fmt.Println(vae.NameOf("models/pay v2.elbo"))
	// Output: pay-v2
}
