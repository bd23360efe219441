package mixed

import (
	"testing"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/train"
)

// A mixed table is no worse than the same rows as numbers: by .01 of AUROC and .03
// of average precision at most.
func (s *set) compare(t *testing.T, plain, mixed maker, of, with train.Config) {
	t.Helper()
	a, p := s.judged(t, plain, of)
	b, q := s.judged(t, mixed, with)
	t.Logf("numbers %.3f / %.3f, mixed %.3f / %.3f", a, p, b, q)
	if b < a-0.01 || q < p-0.03 {
		t.Errorf("AUROC / average precision of the mixed table are %.3f / %.3f, of numbers alone %.3f / %.3f", b, q, a, p)
	}
}

// kinds asks for one kind of every column that is chosen.
func (s *set) kinds(k vae.Kind, chosen func(j int) bool) train.Config {
	kinds := map[string]vae.Kind{}
	for j := range s.columns {
		if chosen(j) {
			kinds[columnName(j)] = k
		}
	}
	return train.Config{Overrides: vae.Overrides{Kinds: kinds}}
}

// Strings and booleans find what the same rows as numbers find, whole and with a
// tenth of the cells missing.
func TestMixedTables(t *testing.T) {
	for _, c := range []struct {
		name, set string
		make      maker
	}{
		{"strings", "nslkdd", strings},
		{"one string of many levels", "nslkdd", oneString},
		{"booleans", "campaign", booleans},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := load(t, c.set)
			t.Run("whole", func(t *testing.T) { s.compare(t, numbers, c.make, train.Config{}, train.Config{}) })
			t.Run("gaps", func(t *testing.T) { s.compare(t, withGaps(numbers), withGaps(c.make), train.Config{}, train.Config{}) })
		})
	}
}

// Numbers of few values may be asked to be categories, and zeros and ones numbers.
func TestKindsThatAreAskedFor(t *testing.T) {
	for _, name := range []string{"campaign", "nslkdd"} {
		t.Run(name, func(t *testing.T) {
			s := load(t, name)
			s.compare(t, numbers, codes, train.Config{}, s.kinds(vae.Categorical, s.coded))
			s.compare(t, numbers, numbers, s.kinds(vae.Numeric, func(int) bool { return true }), train.Config{})
		})
	}
}

// Heavy tails: bytes and seconds, with a logarithm asked for and without one, are as
// good as the logarithms that the file has.
func TestHeavyTails(t *testing.T) {
	s := load(t, "http")
	log1p := train.Config{Overrides: vae.Overrides{Transforms: map[string]vae.Transform{"": vae.Log1p}}}
	s.compare(t, numbers, raw, train.Config{}, log1p)
	s.compare(t, numbers, raw, train.Config{}, train.Config{})
}
