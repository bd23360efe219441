package table_test

import (
	"math"
	"math/big"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/pipeline/codec/internal/table"
)

// TestScale compares with integers that have no end.
func TestScale(t *testing.T) {
	units := rapid.SampledFrom([]arrow.TimeUnit{arrow.Second, arrow.Millisecond, arrow.Microsecond, arrow.Nanosecond})
	counts := rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64, math.MinInt64 / 1000, math.MaxInt64 / 1000, -1, 0, 1}))
	perSecond := func(u arrow.TimeUnit) *big.Int { return big.NewInt(int64(1e9 / u.Multiplier())) }
	rapid.Check(t, func(t *rapid.T) {
		v, from, to := counts.Draw(t, "v"), units.Draw(t, "from"), units.Draw(t, "to")
		want := new(big.Int).Mul(big.NewInt(v), perSecond(to))
		want.Div(want, perSecond(from)) // Euclidean, which is towards the past here
		check(t, want)(table.ScaleOf(from, to).Of(v))

		days := new(big.Int).Mul(big.NewInt(v), big.NewInt(86400))
		check(t, days.Mul(days, perSecond(to)))(table.Days(to).Of(v))

		nanos := rapid.Int32Range(0, 999_999_999).Draw(t, "nanos")
		at := new(big.Int).Add(new(big.Int).Mul(big.NewInt(v), big.NewInt(1e9)), big.NewInt(int64(nanos)))
		check(t, at.Div(at, big.NewInt(int64(to.Multiplier()))))(table.Instant(v, nanos, to))
	})
}

func check(t *rapid.T, want *big.Int) func(int64, bool) {
	t.Helper()
	return func(got int64, ok bool) {
		t.Helper()
		if ok != want.IsInt64() || ok && got != want.Int64() {
			t.Fatalf("%d, %v, want %v", got, ok, want)
		}
	}
}
