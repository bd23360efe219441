package hint_test

import (
	"fmt"
	"testing"

	"github.com/elbo-stream/elbo/internal/hint"
)

func ExampleDidYouMean() {
	fmt.Printf("unknown field%s\n", hint.DidYouMean("brokrs", []string{"brokers", "topics"}))
	fmt.Printf("unknown field%s\n", hint.DidYouMean("zebra", []string{"brokers", "topics"}))
	// Output:
	// unknown field (did you mean "brokers"?)
	// unknown field
}

func TestNearest(t *testing.T) {
	names := []string{"target_rate", "above", "column"}
	for word, want := range map[string]string{
		"targetRate": "target_rate", "TARGET-RATE": "target_rate", "taget_rate": "target_rate", "abvoe": "above",
		"colum": "column", "": "", "x": "", "completely_else": "",
	} {
		if got := hint.Nearest(word, names); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}
