package kernel

import (
	"slices"
	"strings"
	"testing"
)

func TestChooseLevel(t *testing.T) {
	have := []Level{Generic, AVX2, AVX512, BF16}
	for _, c := range []struct {
		name string
		have []Level
		want Level
		err  string
	}{
		{"", have, AVX512, ""},
		{"", []Level{Generic}, Generic, ""},
		{"generic", have, Generic, ""},
		{"avx2", have, AVX2, ""},
		{"avx512bf16", have, Generic, "--precision bf16"},
		{"neon", have, Generic, "does not have that level; it has generic, avx2, avx512, avx512bf16"},
		{"AVX2", have, Generic, `"AVX2" is unknown; want one of generic, neon`},
	} {
		got, err := choose(c.name, c.have)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("choose(%q, %v) = %v, %v; want %v, error with %q", c.name, c.have, got, err, c.want, c.err)
		}
	}
	if l := Levels(); l[0] != Generic || slices.Contains(l[1:], Generic) {
		t.Errorf("Levels() = %v", l)
	}
}
