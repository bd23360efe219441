package vae_test

import (
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae"
)

func allOptions(samples int) vae.Options {
	return vae.Options{TopAll: true, Contributions: true, Latent: true, Reconstruction: true, Error: true, Samples: samples, Seed: 7}
}

// rowBits is everything that a row was scored to, as text that tells bits apart.
func rowBits(r *vae.Result, i, columns, latent, features int) string {
	bits := func(v []float32) (out []uint32) {
		for _, x := range v {
			out = append(out, math.Float32bits(x))
		}
		return out
	}
	return fmt.Sprint(bits([]float32{r.Recon[i], r.KL[i], r.Score[i], r.Error[i]}), math.Float64bits(r.P[i]), r.Flags[i], r.Anomaly[i],
		bits(r.Columns[i*columns:(i+1)*columns]), bits(r.Latents[i*latent:(i+1)*latent]), bits(r.Mu[i*latent:(i+1)*latent]),
		bits(r.LogVar[i*latent:(i+1)*latent]), bits(r.Out[i*features:(i+1)*features]), r.Top[i])
}

func TestScoreDependsOnTheRowOnly(t *testing.T) {
	m := mixedModel(t)
	size, columns := m.Size(), len(m.Spec.Columns)
	for _, samples := range []int{0, 2} {
		rec := mixedRecord(2001, 5)
		defer rec.Release()
		whole := mustScore(t, m, rec, allOptions(samples))
		want := make([]string, rec.NumRows())
		for i := range want {
			want[i] = rowBits(whole, i, columns, size.Latent, size.Features)
		}
		for _, split := range []int64{1, 7, 64, 1000, 65536} {
			s, err := m.NewScorer(rec.Schema(), allOptions(samples))
			if err != nil {
				t.Fatal(err)
			}
			for from := int64(0); from < rec.NumRows(); from += split {
				part := rec.NewSlice(from, min(from+split, rec.NumRows()))
				res, err := s.Score(part)
				if err != nil {
					t.Fatal(err)
				}
				for i := range int(part.NumRows()) {
					if got := rowBits(res, i, columns, size.Latent, size.Features); got != want[int(from)+i] {
						t.Fatalf("samples %d, batches of %d, row %d:\n got %s\nwant %s", samples, split, int(from)+i, got, want[int(from)+i])
					}
				}
				part.Release()
			}
		}
	}
}

func TestContributionsAddUpToTheScore(t *testing.T) {
	m := mixedModel(t)
	columns, latent := len(m.Spec.Columns), m.Size().Latent
	rec := mixedRecord(1500, 9)
	defer rec.Release()
	for _, samples := range []int{0, 3} {
		r := mustScore(t, m, rec, allOptions(samples))
		for i, score := range r.Score {
			sum, size := 0.0, 1.0
			for _, v := range append(append([]float32(nil), r.Columns[i*columns:(i+1)*columns]...), r.Latents[i*latent:(i+1)*latent]...) {
				sum, size = sum+float64(v), size+math.Abs(float64(v))
			}
			if math.Abs(sum-float64(score)) > 1e-5*size {
				t.Errorf("samples %d, row %d: contributions add up to %g, score is %g", samples, i, sum, score)
			}
			if score != r.Recon[i]+r.KL[i] {
				t.Errorf("row %d: score %g, recon %g + kl %g", i, score, r.Recon[i], r.KL[i])
			}
		}
	}
}

// Recon and KL of a Gaussian model against float64 sums over what Rebuild and
// the latents say.
func TestScoreAgainstAnIndependentSum(t *testing.T) {
	m, err := numericModel()
	if err != nil {
		t.Fatal(err)
	}
	values := []float64{10, 8, 14, -30, 9.5, 1e4}
	rec := xRecord(values...)
	defer rec.Release()
	r := mustScore(t, m, rec, allOptions(0))
	arrays := m.Rebuild(memory.DefaultAllocator, r.Out, true)
	rebuilt, sds := arrays[0].(*array.Float64), arrays[1].(*array.Float64)
	latent := m.Size().Latent
	for i, x := range values {
		sd := sds.Value(i) / 2 // on the standardised scale
		d := (x - rebuilt.Value(i)) / 2
		want := d*d/(2*sd*sd) + math.Log(sd) + 0.5*math.Log(2*math.Pi)
		if got := float64(r.Recon[i]); math.Abs(got-want) > 1e-5*(1+math.Abs(want)) {
			t.Errorf("x = %g: recon %g, want %g", x, got, want)
		}
		kl := 0.0
		for l := range latent {
			mu, lv := float64(r.Mu[i*latent+l]), float64(r.LogVar[i*latent+l])
			kl += 0.5 * (mu*mu + math.Exp(lv) - lv - 1)
		}
		if got := float64(r.KL[i]); math.Abs(got-kl) > 1e-5*(1+kl) {
			t.Errorf("x = %g: kl %g, want %g", x, got, kl)
		}
	}
	for _, a := range arrays {
		a.Release()
	}
}

func TestExtremeInputsScoreFinite(t *testing.T) {
	m, err := numericModel()
	if err != nil {
		t.Fatal(err)
	}
	spec := m.Spec // so narrow a likelihood that float32 cannot hold its errors
	spec.Columns = append([]vae.Column(nil), spec.Columns...)
	spec.Columns[0].Head, spec.Columns[0].SD = vae.GaussianFixed, 1e-16
	narrow, err := vae.NewModel("narrow", spec, m.Params(), m.Calibration, m.Training)
	if err != nil {
		t.Fatal(err)
	}
	models := []*vae.Model{m, narrow}
	rec := xRecord(1e300, -1e300, math.MaxFloat32, -math.MaxFloat32, math.MaxFloat64, 5e-324, math.Inf(1), math.NaN())
	defer rec.Release()
	for _, m := range models {
		for _, samples := range []int{0, 2} {
			r := mustScore(t, m, rec, vae.Options{Samples: samples, TopAll: true})
			for i, s := range r.Score {
				if math.IsNaN(float64(s)) || math.IsInf(float64(s), 0) || !(r.P[i] > 0 && r.P[i] <= 1) {
					t.Errorf("model %s, row %d: score %v, p %v", m.Name, i, s, r.P[i])
				}
			}
			if !r.Anomaly[0] || r.Flags[6] != vae.NonFinite|vae.TooMissing || r.Flags[0] != 0 {
				t.Errorf("model %s: anomaly %v, flags %v", m.Name, r.Anomaly, r.Flags)
			}
		}
	}
}

func TestRebuiltFieldsMatchRebuild(t *testing.T) {
	m := mixedModel(t)
	rec := mixedRecord(70, 2)
	defer rec.Release()
	r := mustScore(t, m, rec, allOptions(0))
	for _, sd := range []bool{false, true} {
		mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
		arrays, fields := m.Rebuild(mem, r.Out, sd), m.Spec.RebuiltFields(sd)
		if len(arrays) != len(fields) {
			t.Fatalf("%d arrays for %d fields", len(arrays), len(fields))
		}
		for i, a := range arrays {
			if !arrow.TypeEqual(a.DataType(), fields[i].Type) || a.Len() != 70 {
				t.Errorf("%s: %s of %d rows, want %s", fields[i].Name, a.DataType(), a.Len(), fields[i].Type)
			}
			a.Release()
		}
		mem.AssertSize(t, 0)
	}
	s, err := m.NewScorer(rec.Schema(), vae.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := m.NewDecoder().Decode(r.Mu); !reflect.DeepEqual(got, r.Out) {
		t.Error("Decode of the posterior means differs from Result.Out")
	}
	if res, err := s.Score(rec.NewSlice(0, 0)); err != nil || len(res.Score) != 0 {
		t.Errorf("no rows: %v, %v", res, err)
	}
}

func TestScoresOnlyAreTheSameScores(t *testing.T) {
	m := mixedModel(t)
	rec := mixedRecord(300, 11)
	defer rec.Release()
	whole, few := mustScore(t, m, rec, vae.Options{}), mustScore(t, m, rec, vae.Options{ScoresOnly: true})
	if !reflect.DeepEqual(few.Score, whole.Score) || !reflect.DeepEqual(few.Recon, whole.Recon) || !reflect.DeepEqual(few.Flags, whole.Flags) {
		t.Error("scores alone differ from scores with all else")
	}
	if len(few.P) > 0 || len(few.Anomaly) > 0 || len(few.Top) > 0 {
		t.Errorf("P %v, Anomaly %v, Top %v: want none", few.P, few.Anomaly, few.Top)
	}
}
