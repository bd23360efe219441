package vae

import (
	"errors"
	"fmt"
	"math"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// A Compression says how a model was made smaller or faster than another one, its
// parent. It stays with the model for good.
type Compression struct {
	Parent string `json:"parent"` // name@digest of the model that it was made from, all 64 digits
	Recipe string `json:"recipe"` // what was asked for
	// Forms has an entry for each layer whose weights are not plain float32, in the
	// order of the layers, the mixture's last.
	Forms []Form `json:"forms,omitempty"`
	Gate  Gate   `json:"gate"`
}

// A Gate compares a compressed model with its parent on rows that neither was
// fitted to.
type Gate struct {
	Rows     int64   `json:"rows"`
	Spearman float64 `json:"spearman"` // rank correlation of the scores
	// Changed is the share of rows that one model takes for an anomaly and the other
	// does not, each by its own limit.
	Changed float64 `json:"changed"`
	// Labels holds the figures on labelled rows; nil without labels.
	Labels *GateLabels `json:"labels,omitempty"`
	// Failed lists the rules that the model did not keep. Such a model is only
	// written by force.
	Failed []string `json:"failed,omitempty"`
}

// GateLabels are both models' figures on labelled rows.
type GateLabels struct {
	Rows        int64   `json:"rows"`
	ParentAUROC float64 `json:"parent_auroc"`
	AUROC       float64 `json:"auroc"`
	ParentAP    float64 `json:"parent_ap"` // average precision
	AP          float64 `json:"ap"`
}

// A Form is how one layer's weights are held, in the file and in memory.
type Form struct {
	Layer     string    `json:"layer"`     // encoder.0 and so on, decoder.0 and so on, or mixture
	Precision Precision `json:"precision"` // float32, bf16 or int8
	Pattern   Pattern   `json:"pattern"`
	// WeightsOnly says that only the weights are int8: they are multiplied as float32.
	WeightsOnly bool `json:"weights_only,omitempty"`
	// Scale, Low and Step belong to int8: the scale of each output's weights, and for
	// each input the value of byte 0 and of a byte's step. Low and Step are bfloat16
	// numbers; weights alone have none.
	Scale []float32 `json:"-"`
	Low   []float32 `json:"-"`
	Step  []float32 `json:"-"`
}

// A Pattern says which weights are other than zero. Blocks: neighbouring outputs,
// four at a time, share their inputs. Weights: any.
type Pattern string

// The patterns.
const (
	Dense   Pattern = "dense"
	Blocks  Pattern = "blocks"
	Weights Pattern = "weights"
)

// Int8 is the precision of layers of signed 8-bit weights and unsigned 8-bit
// inputs, whose products are summed exactly. It is a layer's, never a Scorer's.
const Int8 Precision = "int8"

// bytes says whether inputs are bytes too.
func (f *Form) bytes() bool { return f != nil && f.Precision == Int8 && !f.WeightsOnly }

// kernelForm returns what the kernels want to know, nil for float32.
func (f *Form) kernelForm() *kernel.Form {
	if !f.bytes() {
		return nil
	}
	return &kernel.Form{Scale: f.Scale, Low: f.Low, Step: f.Step}
}

// Whole returns the whole number from -127 to 127 that weight k of output o of an int8
// layer stands for.
func (f *Form) Whole(w float32, o, k int) int8 {
	v := float64(w) / float64(f.Scale[o])
	if f.bytes() {
		v *= float64(f.Step[k])
	}
	return int8(min(max(math.RoundToEven(v), -127), 127))
}

// Weight is the inverse of Whole.
func (f *Form) Weight(q int8, o, k int) float32 {
	v := float64(q) * float64(f.Scale[o])
	if f.bytes() {
		v /= float64(f.Step[k])
	}
	return float32(v)
}

// form returns the form of a layer, nil for plain float32.
func (m *Model) form(layer string) *Form { return m.Compression.form(layer) }

func (c *Compression) form(layer string) *Form {
	if c == nil {
		return nil
	}
	for i := range c.Forms {
		if f := &c.Forms[i]; f.Layer == layer {
			return f
		}
	}
	return nil
}

// attach hands the forms to the layers of net.
func (c *Compression) attach(net *kernel.Net) {
	for _, stack := range stacks(net) {
		for i := range stack.layers {
			stack.layers[i].Form = c.form(fmt.Sprintf("%s.%d", stack.name, i)).kernelForm()
		}
	}
}

// A stack is the encoder's or the decoder's layers.
type stack struct {
	name   string
	layers []kernel.Layer
}

func stacks(n *kernel.Net) []stack { return []stack{{"encoder", n.Encoder}, {"decoder", n.Decoder}} }

// Density returns the share of a layer's weights that are multiplied; see Form.Layer.
// It is 0 for a layer that is not there.
func (m *Model) Density(layer string) float64 {
	for _, w := range m.matrices() {
		if w.layer == layer {
			return float64(m.form(layer).products(w)) / float64(w.out*w.in)
		}
	}
	return 0
}

// A weightMatrix is one layer's weights: out*in numbers of the model's parameters.
type weightMatrix struct {
	layer   string
	out, in int
	w       []float32
	groups  [][2]int // outputs that share their inputs when the pattern is blocks
}

// matrices lists the weights that may have a form, in the order of the layers.
func (m *Model) matrices() (list []weightMatrix) {
	for _, stack := range stacks(m.net) {
		for i, l := range stack.layers {
			last := stack.name == "decoder" && i == len(stack.layers)-1
			list = append(list, weightMatrix{fmt.Sprintf("%s.%d", stack.name, i), l.Out, l.In, m.params[l.W : l.W+l.In*l.Out], m.net.Groups(l, last)})
		}
	}
	if s := m.Spec.Mixture; s != nil {
		list = append(list, weightMatrix{MemberMixture, s.Components, m.net.Features, m.mixture[:s.Components*m.net.Features],
			m.net.Groups(kernel.Layer{Out: s.Components}, false)})
	}
	return list
}

// validateForms checks what is said of the layers' weights, and hands it to the
// layers.
func (m *Model) validateForms() error {
	c := m.Compression
	if c == nil {
		return nil
	}
	list := m.matrices()
	next := 0
	for i := range c.Forms {
		f := &c.Forms[i]
		for next < len(list) && list[next].layer != f.Layer {
			next++
		}
		if next == len(list) {
			return fmt.Errorf("form of layer %q: no such layer, or not in order", f.Layer)
		}
		if err := f.validate(list[next]); err != nil {
			return fmt.Errorf("form of layer %q: %w", f.Layer, err)
		}
		next++
	}
	c.attach(m.net)
	return nil
}

func (f *Form) validate(of weightMatrix) error {
	switch f.Pattern {
	case Dense, Blocks, Weights:
	default:
		return fmt.Errorf("unknown pattern %q (dense, blocks or weights)", string(f.Pattern))
	}
	switch f.Precision {
	case Float32, BF16:
		if f.Scale != nil || f.Low != nil || f.Step != nil {
			return errors.New("scales are for int8")
		}
		return nil
	case Int8:
	default:
		return fmt.Errorf("unknown precision %q (float32, bf16 or int8)", string(f.Precision))
	}
	ranges := of.in
	if f.WeightsOnly {
		ranges = 0
	}
	if len(f.Scale) != of.out || len(f.Low) != ranges || len(f.Step) != ranges {
		return fmt.Errorf("%d scales and %d and %d ranges for %d outputs and %d inputs", len(f.Scale), len(f.Low), len(f.Step), of.out, of.in)
	}
	if err := f.validateRanges(); err != nil {
		return err
	}
	for o := range of.out {
		for i, w := range of.w[o*of.in : (o+1)*of.in] {
			if f.Weight(f.Whole(w, o, i), o, i) != w {
				return fmt.Errorf("weight %v of output %d and input %d is no multiple of its scale", w, o, i)
			}
		}
	}
	return nil
}

// validateRanges checks the scales and ranges of int8.
func (f *Form) validateRanges() error {
	for _, v := range f.Scale {
		if !(v > 0 && v < maxPart) {
			return fmt.Errorf("scale %v, want above 0", v)
		}
	}
	for k, v := range f.Step {
		if !(v > 0 && v < maxPart) || !finite(float64(f.Low[k])) {
			return fmt.Errorf("input %d ranges from %v in steps of %v", k, f.Low[k], v)
		}
	}
	return nil
}

// LayerName returns the name of layer i of a network, counted from the encoder's
// first, of which encoder layers are the encoder's.
func LayerName(i, encoder int) string {
	if i < encoder {
		return fmt.Sprintf("encoder.%d", i)
	}
	return fmt.Sprintf("decoder.%d", i-encoder)
}
