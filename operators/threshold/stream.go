package threshold

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/vae"
)

// MaxWindow is the most rows in a window.
const MaxWindow = 1_000_000

// StreamConfig bounds the share of false discoveries in windows of rows.
type StreamConfig struct {
	// FDR is the expected share of normal rows among the flagged rows of a window, at
	// most; above 0 and below 1.
	FDR float64
	// Window is how many judged rows make a window; 0 means 1000. A smaller window
	// takes more for an anomaly, since fewer rows can be so by chance.
	Window int
	// By is a key column: the rows of each value have windows of their own. Empty
	// counts all rows together. Null keys, and all keys behind the first MaxKeys, share
	// windows.
	By string
	// AnyDependence holds the bound for p-values that depend on one another in any
	// way, at the price of a limit stricter by the harmonic sum of Window (7.5 for
	// 1000). Without it they are independent, or positively dependent as conformal
	// p-values are.
	AnyDependence bool
	// Conformal gives rows their p-value: that of vae.Calibration.Conformal. Nil
	// reads elbo_p, whose tail is fitted.
	Conformal *vae.Calibration
	// Model is the name@digest that Conformal belongs to; Bind refuses the rows of
	// another one. Empty takes all.
	Model     string
	Allocator memory.Allocator // nil means the default one
}

// Stream flags rows as they come, with their false discovery rate bounded in every
// window (LOND: Javanmard and Montanari 2015; under positive dependence Zrnic,
// Ramdas and Jordan 2021). With d rows of the window flagged so far, the next is
// flagged where its p-value is at most FDR/Window (d+1). What it flags, Discoveries
// with BH flags too, which knows the whole window. A row's verdict depends on the
// rows before it, of its key, and not on where records were cut.
type Stream struct {
	c               StreamConfig
	step            float64 // FDR/Window
	at, target, key int
	out             *arrow.Schema
	windows         map[string]*window
	shared          window
}

// A window counts judged rows and flagged ones.
type window struct{ rows, found int }

var _ pipeline.Stateful = (*Stream)(nil)

// NewStream checks the configuration.
func NewStream(c StreamConfig) (*Stream, error) {
	if c.Window == 0 {
		c.Window = 1000
	}
	var errs []error
	if !(c.FDR > 0 && c.FDR < 1) {
		errs = append(errs, fmt.Errorf("fdr %v: want the share of flagged rows that may be normal, above 0 and below 1, such as 0.1", c.FDR))
	}
	if c.Window < 1 || c.Window > MaxWindow {
		errs = append(errs, fmt.Errorf("window %d: want 1 to %d rows", c.Window, MaxWindow))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s := &Stream{c: c, step: c.FDR / float64(c.Window), windows: map[string]*window{}}
	if c.AnyDependence {
		s.step /= harmonic(c.Window)
	}
	if cal := c.Conformal; cal != nil && 1/float64(cal.Rows+1) > s.step {
		return nil, fmt.Errorf("window %d: of %d normal rows the smallest p-value is %.2g, and no row is flagged before one has at most %.2g: "+
			"calibrate on more rows, take a smaller window, or p: tail", c.Window, cal.Rows, 1/float64(cal.Rows+1), s.step)
	}
	if s.c.Allocator == nil {
		s.c.Allocator = memory.DefaultAllocator
	}
	return s, nil
}

// Bind finds the columns; the schema stays as it is.
func (s *Stream) Bind(in *arrow.Schema) (*arrow.Schema, error) {
	name := score.P
	if s.c.Conformal != nil {
		name = score.Score
	}
	at, err := find(in, name, arrow.FLOAT32, arrow.FLOAT64)
	target, err2 := find(in, score.Anomaly, arrow.BOOL)
	key, err3 := findKey(in, s.c.By)
	if err := errors.Join(err, err2, err3, sameModel(in, s.c.Model)); err != nil {
		return nil, err
	}
	s.at, s.target, s.key, s.out = at, target, key, in
	return in, nil
}

// Apply judges rec.
func (s *Stream) Apply(_ context.Context, rec arrow.Record) (arrow.Record, error) {
	of := func(int) *window { return &s.shared }
	if s.key >= 0 {
		column := rec.Column(s.key)
		read, err := Keys(column)
		if err != nil {
			return nil, fmt.Errorf("by: column %q: %w", s.c.By, err)
		}
		of = s.byKey(column, read)
	}
	return rewrite(s.c.Allocator, rec, s.out, s.target, s.at, func(i int, p float64) bool {
		if s.c.Conformal != nil {
			p = s.c.Conformal.Conformal(p)
		}
		return s.next(of(i), p)
	}), nil
}

// byKey returns the window of each row.
func (s *Stream) byKey(column arrow.Array, read KeyReader) func(i int) *window {
	var buf []byte
	return func(i int) *window {
		if column.IsNull(i) {
			return &s.shared
		}
		buf = read(buf[:0], i)
		w, ok := s.windows[string(buf)]
		switch {
		case ok:
		case len(s.windows) >= MaxKeys || len(buf) > maxKeyBytes:
			w = &s.shared
		default:
			w = new(window)
			s.windows[string(buf)] = w
		}
		return w
	}
}

// next judges the next row of a window.
func (s *Stream) next(w *window, p float64) bool {
	found := p <= s.step*float64(w.found+1)
	w.rows++
	if found {
		w.found++
	}
	if w.rows >= s.c.Window {
		*w = window{}
	}
	return found
}

// state is a Stream's snapshot.
type state struct {
	Window int           `json:"window"`
	Shared windowState   `json:"shared"`
	Keys   []windowState `json:"keys,omitempty"` // in rising order
}

type windowState struct {
	Key   string `json:"key,omitempty"`
	Rows  int    `json:"rows"`
	Found int    `json:"found"`
}

// Snapshot returns the windows that are not full yet.
func (s *Stream) Snapshot() ([]byte, error) {
	st := state{Window: s.c.Window, Shared: windowState{Rows: s.shared.rows, Found: s.shared.found}}
	for key, w := range s.windows {
		st.Keys = append(st.Keys, windowState{key, w.rows, w.found})
	}
	slices.SortFunc(st.Keys, func(a, b windowState) int { return cmp.Compare(a.Key, b.Key) })
	return json.Marshal(st)
}

// Restore takes what Snapshot of a Stream with the same window gave.
func (s *Stream) Restore(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var st state
	if err := d.Decode(&st); err != nil {
		return fmt.Errorf("state of threshold: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("state of threshold: more follows")
	}
	if st.Window != s.c.Window {
		return fmt.Errorf("state of threshold: its windows have %d rows, now %d are asked for", st.Window, s.c.Window)
	}
	if len(st.Keys) > MaxKeys {
		return fmt.Errorf("state of threshold: %d keys", len(st.Keys))
	}
	windows := make(map[string]*window, len(st.Keys))
	for _, w := range append(st.Keys, st.Shared) {
		if w.Found < 0 || w.Found > w.Rows || w.Rows >= st.Window {
			return fmt.Errorf("state of threshold: %d rows with %d flagged in a window of %d", w.Rows, w.Found, st.Window)
		}
	}
	for _, w := range st.Keys {
		windows[w.Key] = &window{w.Rows, w.Found}
	}
	s.windows, s.shared = windows, window{st.Shared.Rows, st.Shared.Found}
	return nil
}
