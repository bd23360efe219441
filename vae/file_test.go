package vae_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/vae"
)

func modelBytes(t testing.TB) []byte {
	t.Helper()
	b, err := mixedModel(t).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestModelFileRoundTrip(t *testing.T) {
	m, path := mixedModel(t), filepath.Join(t.TempDir(), "m.elbo")
	if err := m.Save(path, false); err != nil {
		t.Fatal(err)
	}
	if err := m.Save(path, false); !errors.Is(err, durable.ErrExists) {
		t.Errorf("second Save: %v, want durable.ErrExists", err)
	}
	if err := m.Save(path, true); err != nil {
		t.Errorf("Save with overwrite: %v", err)
	}
	back, err := vae.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := m.Bytes()
	if got, _ := back.Bytes(); !bytes.Equal(got, want) || back.ID() != m.ID() {
		t.Errorf("%s became %s on its way through a file", m.ID(), back.ID())
	}
	rec := mixedRecord(200, 4)
	defer rec.Release()
	if !slices.Equal(mustScore(t, back, rec, vae.Options{}).Score, mustScore(t, m, rec, vae.Options{}).Score) {
		t.Error("a loaded model scores other bits")
	}
}

func TestModelFileIsSafetensors(t *testing.T) {
	b := modelBytes(t)
	n := binary.LittleEndian.Uint64(b)
	if n%8 != 0 {
		t.Errorf("header of %d bytes does not align the tensors", n)
	}
	var header map[string]struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b[8:8+n], &raw); err != nil {
		t.Fatal(err)
	}
	var meta map[string]string
	if err := json.Unmarshal(raw["__metadata__"], &meta); err != nil {
		t.Fatalf("metadata must be strings only: %v", err)
	}
	delete(raw, "__metadata__")
	text, _ := json.Marshal(raw)
	if err := json.Unmarshal(text, &header); err != nil {
		t.Fatal(err)
	}
	var spans [][2]int
	for name, h := range header {
		size := 4
		for _, s := range h.Shape {
			size *= s
		}
		if h.DType != "F32" || h.Offsets[1]-h.Offsets[0] != size {
			t.Errorf("tensor %s: %+v", name, h)
		}
		spans = append(spans, h.Offsets)
	}
	slices.SortFunc(spans, func(a, b [2]int) int { return a[0] - b[0] })
	end := 0
	for _, s := range spans {
		if s[0] != end {
			t.Errorf("gap or overlap at byte %d", end)
		}
		end = s[1]
	}
	if end != len(b)-8-int(n) {
		t.Errorf("tensors end at %d of %d bytes", end, len(b)-8-int(n))
	}
}

// open takes a model file apart; sealed puts one together with a fresh digest.
func open(t testing.TB, b []byte) (meta map[string]string, tensors map[string]json.RawMessage, data []byte) {
	t.Helper()
	n := binary.LittleEndian.Uint64(b)
	if err := json.Unmarshal(b[8:8+n], &tensors); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(tensors["__metadata__"], &meta); err != nil {
		t.Fatal(err)
	}
	delete(tensors, "__metadata__")
	return meta, tensors, bytes.Clone(b[8+n:])
}

func sealed(meta map[string]string, tensors map[string]json.RawMessage, data []byte) []byte {
	zeros := strings.Repeat("0", 64)
	meta["sha256"] = zeros
	tensors["__metadata__"], _ = json.Marshal(meta)
	header, _ := json.Marshal(tensors)
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	out = append(append(out, header...), data...)
	sum := sha256.Sum256(out)
	return bytes.Replace(out, []byte(zeros), []byte(hex.EncodeToString(sum[:])), 1)
}

func TestDecodeRefuses(t *testing.T) {
	good := modelBytes(t)
	meta := func(key, from, to string) []byte {
		m, tensors, data := open(t, good)
		if !strings.Contains(m[key], from) {
			t.Fatalf("%s has no %s: %.300s", key, from, m[key])
		}
		m[key] = strings.Replace(m[key], from, to, 1)
		return sealed(m, tensors, data)
	}
	weights := func(at int, v uint32) []byte {
		m, tensors, data := open(t, good)
		binary.LittleEndian.PutUint32(data[at:], v)
		return sealed(m, tensors, data)
	}
	long := bytes.Clone(good)
	binary.LittleEndian.PutUint64(long, 1<<62)
	past := bytes.Clone(good)
	binary.LittleEndian.PutUint64(past, uint64(len(good)))
	for name, c := range map[string]struct {
		in   []byte
		want string
	}{
		"empty":              {nil, "not an elbo model"},
		"text":               {[]byte("hello, this is text"), "not an elbo model"},
		"other safetensors":  {append([]byte{2, 0, 0, 0, 0, 0, 0, 0}, "{}  "...), "not an elbo model"},
		"newer version":      {meta("version", "2", "9"), "newer elbo"},
		"cut in the header":  {good[:100], "cut short"},
		"cut in the weights": {good[:len(good)-4], "sha256"},
		"longer":             {append(bytes.Clone(good), 0), "sha256"},
		"huge header":        {long, "header length"},
		"header past end":    {past, "cut short"},
		"huge width":         {meta("spec", `"width":8`, `"width":65536`), "tensors"},
		"impossible width":   {meta("spec", `"width":8`, `"width":9223372036854775807`), "width"},
		"negative width":     {meta("spec", `"width":3`, `"width":-3`), "width"},
		"huge latent":        {meta("spec", `"latent":3`, `"latent":1000000`), "latent"},
		"layer of a string":  {meta("spec", `"latent":3`, `"latent":"3"`), "spec"},
		"number too large":   {meta("spec", `"sd_floor":0.3`, `"sd_floor":1e999`), "spec"},
		"no floor":           {meta("spec", `"sd_floor":0.3`, `"sd_floor":-1`), "sd_floor"},
		"unsorted levels":    {meta("spec", `"de","fr"`, `"fr","de"`), "sorted"},
		"unknown head":       {meta("spec", `"head":"gaussian"`, `"head":"cauchy"`), "head"},
		"scale of zero":      {meta("spec", `"scale":[20]`, `"scale":[0]`), "scale"},
		"scales missing":     {meta("spec", `"scale":[20]`, `"scale":[]`), "scales"},
		"spec is null":       {meta("spec", "{", "null//"), "spec"},
		"calibration empty":  {meta("calibration", `"knots":[`, `"knot":[`), "calibration"},
		"excess negative":    {meta("calibration", `"excess":`, `"excess":-`), "spread"},
		"rows negative":      {meta("calibration", `"rows":500`, `"rows":-500`), "calibration"},
		"rows huge":          {meta("calibration", `"rows":500`, `"rows":9223372036854775807`), "calibration"},
		"golden of others":   {meta("golden", `"values":[`, `"values":[1,`), "golden row 0"},
		"golden wrong type":  {meta("golden", `"values":[`, `"values":["x",`), "golden"},
		"no golden":          {meta("golden", `[`, `[]//`), "golden"},
		"golden score":       {meta("golden", `"recon":`, `"recon":1`), "golden row 0 scores"},
		"name":               {meta("name", "test", "te/st"), "model name"},
		"weight altered":     {weights(400, 0x40a00000), "golden"},
		"weight NaN":         {weights(0, 0x7fc00000), "parameter 0"},
		"weight infinite":    {weights(40, 0xff800000), "parameter 10"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := vae.Decode(c.in)
			if err == nil || m != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Decode gave %v, %v; want an error with %q", m != nil, err, c.want)
			}
			if (c.want == "not an elbo model") != errors.Is(err, vae.ErrNotModel) && name != "huge header" {
				t.Errorf("errors.Is(%v, ErrNotModel) is wrong", err)
			}
		})
	}
	if _, err := vae.Decode(func() []byte { m, ts, d := open(t, good); return sealed(m, ts, d) }()); err != nil {
		t.Fatalf("the test's own sealing is wrong: %v", err)
	}
}

func TestLoadRefusesFolderAndAbsent(t *testing.T) {
	if _, err := vae.Load(t.TempDir()); !errors.Is(err, vae.ErrNotModel) {
		t.Errorf("folder: %v", err)
	}
	if _, err := vae.Load(filepath.Join(t.TempDir(), "x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

// mutateJSON replaces one number, string, bool or bracket of a JSON text.
func mutateJSON(rng *rand.Rand, text string) string {
	words := []string{"0", "-1", "1e308", "-1e308", "1e-320", "1e999", "9223372036854775807", "NaN", "null", "true",
		`"x"`, "[]", "{}", "[[[]]]", "3.5", `"\u0000"`, "65536", `{"a":1}`}
	starts := []int{}
	for i := range text {
		if strings.IndexByte(":,[", text[i]) >= 0 {
			starts = append(starts, i+1)
		}
	}
	at := starts[rng.IntN(len(starts))]
	end := at + strings.IndexAny(text[at:]+",", ",]}")
	return text[:at] + words[rng.IntN(len(words))] + text[end:]
}

func mutant(t testing.TB, rng *rand.Rand, good []byte) []byte {
	b := bytes.Clone(good)
	switch rng.IntN(5) {
	case 0:
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
	case 1:
		b = b[:rng.IntN(len(b))]
	case 2:
		binary.LittleEndian.PutUint64(b, rng.Uint64()>>rng.IntN(64))
	case 3:
		meta, tensors, data := open(t, good)
		binary.LittleEndian.PutUint32(data[4*rng.IntN(len(data)/4):], rng.Uint32())
		b = sealed(meta, tensors, data)
	case 4:
		meta, tensors, data := open(t, good)
		key := []string{"spec", "spec", "calibration", "golden", "training"}[rng.IntN(5)]
		meta[key] = mutateJSON(rng, meta[key])
		b = sealed(meta, tensors, data)
	}
	return b
}

// A damaged file gives an error, or a model that works.
func TestMutationsOfAModelFile(t *testing.T) {
	good, rng := modelBytes(t), rand.New(rand.NewPCG(11, 12))
	rec := mixedRecord(65, 3)
	defer rec.Release()
	loaded := 0
	for range 2000 {
		m, err := vae.Decode(mutant(t, rng, good))
		if err != nil {
			continue
		}
		loaded++
		checkWorks(t, m)
		if _, err := m.NewScorer(rec.Schema(), vae.Options{}); err != nil {
			continue // a column has another name or kind now
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

// checkWorks writes the model and reads it back, which scores its golden rows.
func checkWorks(t testing.TB, m *vae.Model) {
	t.Helper()
	p := m.Calibration.P(12)
	if !(p > 0 && p <= 1) {
		t.Errorf("P(12) = %v", p)
	}
	if _, err := m.Recalibrated("again", m.Calibration); err != nil {
		t.Errorf("a model that loads cannot be made again: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	m, err := numericModel()
	if err != nil {
		f.Fatal(err)
	}
	b, err := m.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:60])
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := vae.Decode(b); err == nil {
			checkWorks(t, m)
		}
	})
}
