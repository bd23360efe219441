package train_test

import (
	"context"
	"fmt"

	"github.com/elbo-stream/elbo/vae/train"
)

func ExampleRun() {
	c := tiny()
	c.Name, c.Steps = "circle", 100
	m, err := train.Run(context.Background(), c, circle(300))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Name, m.Training.Steps, "steps,", m.Training.Rows+m.Training.HeldOut, "rows")
	// Output: circle 100 steps, 300 rows
}

func ExampleRecords() {
	data := circle(250) // records of 100, 100 and 50 rows
	units, err := data.Units(context.Background())
	fmt.Println(units, err)
	// Output: [100 100 50] <nil>
}
