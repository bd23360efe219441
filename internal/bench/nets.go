package bench

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae"
)

// A Net is the shape of a measured network: relu inside, sigmoid at the end, one
// float32 column for each input.
type Net struct {
	Name string
	// Encoder and Decoder are the widths from the inputs to the latents and back.
	// The encoder's last layer has a mean and a log-variance for each latent.
	Encoder, Decoder []int
	// MaxBatch is the largest batch that is measured without being asked for.
	MaxBatch int
}

// Nets returns the three nets of the comparison: images, a small table, and one
// whose weights do not fit into the inner caches.
func Nets() []Net {
	return []Net{
		{"A", []int{784, 128, 64, 32, 2}, []int{2, 256, 128, 64, 784}, 65536},
		{"B", []int{32, 64, 32, 8}, []int{8, 32, 64, 32}, 65536},
		{"C", []int{1024, 1024, 512, 64}, []int{64, 512, 1024, 1024}, 4096},
	}
}

// Find returns the net of that name.
func Find(name string) (Net, error) {
	var names []string
	for _, n := range Nets() {
		if n.Name == name {
			return n, nil
		}
		names = append(names, n.Name)
	}
	return Net{}, fmt.Errorf("unknown net %q: want one of %s", name, strings.Join(names, ", "))
}

// layers calls f with inputs and outputs of each layer, encoder first.
func (n Net) layers(f func(in, out int)) {
	last := len(n.Encoder) - 1
	for i, in := range n.Encoder[:last] {
		out := n.Encoder[i+1]
		if i+1 == last {
			out *= 2
		}
		f(in, out)
	}
	for i, in := range n.Decoder[:len(n.Decoder)-1] {
		f(in, n.Decoder[i+1])
	}
}

// Weights returns how many weights and biases the net has.
func (n Net) Weights() (total int) {
	n.layers(func(in, out int) { total += in*out + out })
	return total
}

// RandomWeights draws weights (He-uniform) and small biases, layer by layer
// [out][in] and then [out], the layout that Model takes.
func (n Net) RandomWeights(seed uint64) []float32 {
	rnd := rand.New(rand.NewPCG(seed, 0))
	var w []float32
	draw := func(count int, bound float64) {
		for range count {
			w = append(w, float32((rnd.Float64()*2-1)*bound))
		}
	}
	n.layers(func(in, out int) {
		draw(in*out, math.Sqrt(6/float64(in)))
		draw(out, 0.1)
	})
	return w
}

// barely is a share of missing values so small that presence costs nothing: the
// reconstruction error is then the squared error and Offset.
const barely = 1e-300

// Offset returns the nats of a row's reconstruction error that do not depend on
// the row: with a standard deviation of sqrt(1/2), the rest is the squared error.
func (n Net) Offset() float64 {
	return float64(n.Encoder[0]) * 0.5 * math.Log(math.Pi)
}

// Spec returns the specification of a model of this shape, without parameters.
func (n Net) Spec() vae.Spec {
	spec := vae.Spec{Latent: n.Decoder[0], Output: "sigmoid", SDFloor: 0.1, MaxMissing: 1}
	for k := range n.Encoder[0] {
		spec.Columns = append(spec.Columns, vae.Column{Name: fmt.Sprintf("c%d", k), Kind: vae.Numeric, Type: "float32",
			Transform: vae.Raw, Head: vae.GaussianFixed, SD: math.Sqrt(0.5), MissingRate: barely,
			Mean: []float64{0}, Scale: []float64{1}, Constant: []bool{false}})
	}
	hidden := func(widths []int) (layers []vae.Layer) {
		for _, w := range widths[1 : len(widths)-1] {
			layers = append(layers, vae.Layer{Width: w, Activation: "relu"})
		}
		return layers
	}
	spec.Encoder, spec.Decoder = hidden(n.Encoder), hidden(n.Decoder)
	return spec
}

// calibrationRows is how many rows the limit of a net's model is set by.
const calibrationRows = 128

// Model returns a model of this shape with the given weights, which it copies,
// calibrated on the first rows of Record.
func (n Net) Model(weights []float32) (*vae.Model, error) {
	if len(weights) != n.Weights() {
		return nil, fmt.Errorf("net %s: %d weights, want %d", n.Name, len(weights), n.Weights())
	}
	params := make([]float32, len(weights)+n.Encoder[0]) // log standard deviations, not used by fixed ones
	copy(params, weights)
	first, err := vae.Calibrate(make([]float32, vae.MinCalibration), 0.001)
	if err != nil {
		return nil, err
	}
	m, err := vae.NewModel("net"+n.Name, n.Spec(), params, first, vae.Training{})
	if err != nil {
		return nil, err
	}
	rec := n.Record(calibrationRows)
	defer rec.Release()
	s, err := m.NewScorer(rec.Schema(), vae.Options{Top: -1})
	if err != nil {
		return nil, err
	}
	res, err := s.Score(rec)
	if err != nil {
		return nil, err
	}
	cal, err := vae.Calibrate(res.Score, 0.001)
	if err != nil {
		return nil, err
	}
	return m.Recalibrated(m.Name, cal)
}

// Value is the input of column k in row i, in [0, 1): a hash that is the same in
// every language.
func Value(k, i uint32) float32 {
	return float32((k*2654435761+i*40503+(k^i)*2246822519)>>8) / (1 << 24)
}

// Record returns that many rows of Values, one float32 buffer for each column.
// The caller releases it.
func (n Net) Record(rows int) arrow.Record {
	fields := make([]arrow.Field, n.Encoder[0])
	cols := make([]arrow.Array, n.Encoder[0])
	for k := range cols {
		v := make([]float32, rows)
		for i := range v {
			v[i] = Value(uint32(k), uint32(i))
		}
		fields[k] = arrow.Field{Name: fmt.Sprintf("c%d", k), Type: arrow.PrimitiveTypes.Float32}
		data := array.NewData(fields[k].Type, rows, []*memory.Buffer{nil, memory.NewBufferBytes(arrow.Float32Traits.CastToBytes(v))}, nil, 0, 0)
		cols[k] = array.NewFloat32Data(data)
		data.Release()
	}
	rec := array.NewRecord(arrow.NewSchema(fields, nil), cols, int64(rows))
	for _, c := range cols {
		c.Release()
	}
	return rec
}
