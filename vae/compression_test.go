package vae_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/elbo-stream/elbo/vae"
)

// compressedModel is mixedModel with a form of each kind, made by hand: pruned in
// blocks, pruned one by one in bfloat16, int8, and int8 for the weights alone.
func compressedModel(t testing.TB) *vae.Model {
	t.Helper()
	p := mixedModel(t).Parts()
	p.Params = slices.Clone(p.Params)
	net := p.Spec.Net()
	rng := rand.New(rand.NewPCG(8, 8))
	ones := func(n int) []float32 { return slices.Repeat([]float32{1}, n) }
	c := &vae.Compression{Parent: "mixed@" + strings.Repeat("0", 64), Recipe: "by hand",
		Gate: vae.Gate{Rows: 10, Spearman: 0.9995, Labels: &vae.GateLabels{Rows: 5, AUROC: 0.9}, Failed: []string{"a rule"}}}

	l := net.Encoder[0]
	for from := 0; from < l.Out; from += 4 { // blocks of four outputs
		for k := range l.In {
			if rng.IntN(2) == 0 {
				for o := from; o < min(from+4, l.Out); o++ {
					p.Params[l.W+o*l.In+k] = 0
				}
			}
		}
	}
	c.Forms = append(c.Forms, vae.Form{Layer: "encoder.0", Precision: vae.Float32, Pattern: vae.Blocks})

	l = net.Encoder[1]
	for i := range l.In * l.Out {
		w := &p.Params[l.W+i]
		if *w = math.Float32frombits(math.Float32bits(*w) &^ 0xffff); rng.IntN(2) == 0 {
			*w = 0
		}
	}
	c.Forms = append(c.Forms, vae.Form{Layer: "encoder.1", Precision: vae.BF16, Pattern: vae.Weights})

	l = net.Decoder[0]
	f := vae.Form{Layer: "decoder.0", Precision: vae.Int8, Pattern: vae.Dense, Scale: ones(l.Out), Low: slices.Repeat([]float32{-4}, l.In), Step: slices.Repeat([]float32{1.0 / 32}, l.In)}
	whole(&f, p.Params[l.W:l.W+l.In*l.Out], l.Out, l.In)
	c.Forms = append(c.Forms, f)

	l = net.Decoder[1]
	f = vae.Form{Layer: "decoder.1", Precision: vae.Int8, Pattern: vae.Dense, WeightsOnly: true, Scale: ones(l.Out)}
	whole(&f, p.Params[l.W:l.W+l.In*l.Out], l.Out, l.In)
	c.Forms = append(c.Forms, f)

	p.Compression = c
	m, err := vae.Assemble(p)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// whole makes weights multiples of their scale.
func whole(f *vae.Form, w []float32, out, in int) {
	for o := range out {
		f.Scale[o] = 0.02 / 8
		if f.WeightsOnly {
			f.Scale[o] = 0.01
		}
		for k := range in {
			w[o*in+k] = f.Weight(f.Whole(w[o*in+k], o, k), o, k)
		}
	}
}

// TestCompressedFile: a compressed model comes back from its bytes with the same
// scores, says where it is from, and is smaller.
func TestCompressedFile(t *testing.T) {
	m := compressedModel(t)
	b, err := m.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	back, err := vae.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := back.Bytes()
	if err != nil || !bytes.Equal(again, b) || back.ID() != m.ID() {
		t.Errorf("%s became %s on its way through bytes (%v)", m.ID(), back.ID(), err)
	}
	rec := mixedRecord(200, 4)
	defer rec.Release()
	if !slices.Equal(mustScore(t, back, rec, vae.Options{}).Score, mustScore(t, m, rec, vae.Options{}).Score) {
		t.Error("a model that was read scores other bits")
	}
	if c := back.Compression; c.Recipe != "by hand" || c.Gate.Labels.AUROC != 0.9 || len(c.Forms) != 4 || c.Gate.Failed[0] != "a rule" {
		t.Errorf("the compression came back as %+v", c)
	}
	plain, small := mixedModel(t).Size(), m.Size()
	if small.Bytes >= plain.Bytes*2/3 || small.MultiplyAdds >= plain.MultiplyAdds {
		t.Errorf("size %+v, uncompressed %+v", small, plain)
	}
	other, err := m.Recalibrated("other", m.Calibration)
	if err != nil || other.Compression == nil || len(other.Compression.Gate.Failed) != 1 {
		t.Errorf("a new calibration hides where the model is from: %v", err)
	}
}

// TestFormsAreChecked: forms that do not fit the weights are refused.
func TestFormsAreChecked(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*vae.Compression)
		want   string
	}{
		"unknown layer":      {func(c *vae.Compression) { c.Forms[0].Layer = "encoder.7" }, "no such layer"},
		"order":              {func(c *vae.Compression) { c.Forms[0], c.Forms[1] = c.Forms[1], c.Forms[0] }, "not in order"},
		"twice":              {func(c *vae.Compression) { c.Forms = append(c.Forms, c.Forms[3]) }, "not in order"},
		"unknown precision":  {func(c *vae.Compression) { c.Forms[0].Precision = "int4" }, "unknown precision"},
		"unknown pattern":    {func(c *vae.Compression) { c.Forms[0].Pattern = "stripes" }, "unknown pattern"},
		"scales of float32":  {func(c *vae.Compression) { c.Forms[0].Scale = []float32{1} }, "scales are for int8"},
		"too few scales":     {func(c *vae.Compression) { c.Forms[2].Scale = c.Forms[2].Scale[1:] }, "scales"},
		"ranges of weights":  {func(c *vae.Compression) { c.Forms[3].Low = c.Forms[2].Low }, "ranges"},
		"scale of zero":      {func(c *vae.Compression) { c.Forms[2].Scale[0] = 0 }, "scale 0"},
		"step of NaN":        {func(c *vae.Compression) { c.Forms[2].Step[0] = float32(math.NaN()) }, "steps of NaN"},
		"another scale":      {func(c *vae.Compression) { c.Forms[2].Scale[0] *= 1.1 }, "no multiple of its scale"},
		"scales for another": {func(c *vae.Compression) { c.Forms[3].Scale[2] *= 1.1 }, "no multiple of its scale"},
	} {
		t.Run(name, func(t *testing.T) {
			p := compressedModel(t).Parts()
			own := *p.Compression
			own.Forms = slices.Clone(own.Forms)
			for i := range own.Forms {
				f := &own.Forms[i]
				f.Scale, f.Low, f.Step = slices.Clone(f.Scale), slices.Clone(f.Low), slices.Clone(f.Step)
			}
			c.change(&own)
			p.Compression = &own
			if _, err := vae.Assemble(p); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Assemble = %v, want an error with %q", err, c.want)
			}
		})
	}
}

// TestMutationsOfACompressedFile: a damaged file gives an error, or a model that works.
func TestMutationsOfACompressedFile(t *testing.T) {
	good, err := compressedModel(t).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(13, 14))
	rec := mixedRecord(65, 3)
	defer rec.Release()
	loaded := 0
	for range 2000 {
		b := mutant(t, rng, good)
		if rng.IntN(3) == 0 { // what a compression says, or one byte of its tensors
			meta, tensors, data := open(t, good)
			if rng.IntN(2) == 0 {
				meta["compression"] = mutateJSON(rng, meta["compression"])
			} else {
				data[len(data)-1-rng.IntN(len(data)/2)] ^= 1 << rng.IntN(8)
			}
			b = sealed(meta, tensors, data)
		}
		m, err := vae.Decode(b)
		if err != nil {
			continue
		}
		loaded++
		checkWorks(t, m)
		if again, err := m.Bytes(); err != nil || len(again) == 0 {
			t.Fatalf("a mutant that loads has no bytes: %v", err)
		}
		if _, err := m.NewScorer(rec.Schema(), vae.Options{}); err != nil {
			continue
		}
		for i, s := range mustScore(t, m, rec, vae.Options{}).Score {
			if s-s != 0 {
				t.Fatalf("a mutant scores row %d to %v", i, s)
			}
		}
	}
	if loaded == 0 || loaded > 1000 {
		t.Errorf("%d of 2000 mutants load: the mutations miss their aim", loaded)
	}
}

// TestOlderProgramsRefuseCompressedFiles: they look at the version, which only
// compressed models have raised.
func TestOlderProgramsRefuseCompressedFiles(t *testing.T) {
	b, err := compressedModel(t).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	meta, _, _ := open(t, b)
	plain, _, _ := open(t, modelBytes(t))
	if meta["version"] != "3" || plain["version"] != "2" {
		t.Errorf("versions %s and %s, want 3 for a compressed model and 2 for others", meta["version"], plain["version"])
	}
}
