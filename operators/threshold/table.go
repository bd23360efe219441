package threshold

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"unicode/utf8"
)

// The bounds of a table of limits.
const (
	// MaxKeys is the most keys that have limits of their own.
	MaxKeys = 100_000
	// MinKeyRows is the fewest normal rows that a key's own limit is made of; keys
	// with fewer have the global limit.
	MinKeyRows    = 200
	maxKeyBytes   = 1024
	maxTableBytes = 64 << 20
	tableFormat   = "elbo-limits"
	tableVersion  = 1
)

// A Table holds a limit for each value of a key column and one for all other rows.
// `elbo calibrate --by COLUMN` makes it, and keeps it as JSON beside the model.
type Table struct {
	Format  string `json:"format"`  // "elbo-limits"
	Version int    `json:"version"` // 1
	Model   string `json:"model"`   // name@digest of the model whose scores these limit
	By      string `json:"by"`      // the key column
	Rule    string `json:"rule"`    // how the limits were found: rate, quantile or pot
	// TargetRate is the promised share of normal rows above their limit.
	TargetRate float64 `json:"target_rate"`
	Limit      float64 `json:"limit"`    // nats; of rows without a key of their own
	Rows       int64   `json:"rows"`     // normal rows that Limit was made of
	FewKeys    int64   `json:"few_keys"` // keys that had too few rows for a limit of their own
	// Keys are in rising order.
	Keys []KeyLimit `json:"keys"`

	limits map[string]float64
}

// A KeyLimit is the limit of one key.
type KeyLimit struct {
	Key   string  `json:"key"`   // as KeyReader has it
	Limit float64 `json:"limit"` // nats
	Rows  int64   `json:"rows"`  // normal rows that it was made of
}

// BuildTable fills in the keys of a table from the scores of normal rows by key.
// limit finds one; keys with fewer than MinKeyRows rows keep the table's Limit, as
// do keys that JSON cannot hold (no UTF-8, over 1024 bytes) and those whose limit is
// refused, for which limit returns false.
func BuildTable(t Table, groups map[string][]float32, limit func(scores []float32) (float64, bool)) (*Table, error) {
	t.Format, t.Version, t.Keys, t.FewKeys = tableFormat, tableVersion, []KeyLimit{}, 0
	for key, scores := range groups {
		if len(scores) >= MinKeyRows && len(key) <= maxKeyBytes && utf8.ValidString(key) {
			if l, ok := limit(scores); ok {
				t.Keys = append(t.Keys, KeyLimit{Key: key, Limit: l, Rows: int64(len(scores))})
				continue
			}
		}
		t.FewKeys++
	}
	slices.SortFunc(t.Keys, func(a, b KeyLimit) int { return cmp.Compare(a.Key, b.Key) })
	return &t, t.prepare()
}

// LoadTable reads a table; the error names the file.
func LoadTable(path string) (*Table, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTableBytes+1))
	if err != nil {
		return nil, err
	}
	t, err := ParseTable(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// ParseTable reads a table from its JSON and checks every part of it.
func ParseTable(b []byte) (*Table, error) {
	if len(b) > maxTableBytes {
		return nil, fmt.Errorf("a table of limits has at most %d bytes", maxTableBytes)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var t Table
	if err := d.Decode(&t); err != nil {
		return nil, fmt.Errorf("no table of limits (`elbo calibrate --by` makes one): %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more follows behind the table of limits")
	}
	return &t, t.prepare()
}

// Encode returns the table's JSON.
func (t *Table) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(t, "", " ")
	return append(b, '\n'), err
}

// LimitOf returns the limit of a key in nats, and whether it is the key's own.
func (t *Table) LimitOf(key []byte) (limit float64, own bool) {
	if l, ok := t.limits[string(key)]; ok {
		return l, true
	}
	return t.Limit, false
}

// prepare reports all that is wrong with a table and makes it ready to ask.
func (t *Table) prepare() error {
	if t.Format != tableFormat || t.Version != tableVersion {
		return fmt.Errorf("format %q version %d: this program reads %s version %d", t.Format, t.Version, tableFormat, tableVersion)
	}
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	finite := func(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
	check(t.By != "", "by: no key column")
	check(finite(t.Limit), "limit: %v", t.Limit)
	check(t.TargetRate >= 0 && t.TargetRate <= 1, "target_rate: %v is no share", t.TargetRate)
	check(t.Rows >= 0 && t.FewKeys >= 0, "rows: %d and %d keys with few", t.Rows, t.FewKeys)
	check(len(t.Keys) <= MaxKeys, "keys: %d, at most %d are taken", len(t.Keys), MaxKeys)
	if errs != nil {
		return errors.Join(errs...)
	}
	t.limits = make(map[string]float64, len(t.Keys))
	for i, k := range t.Keys {
		switch {
		case len(k.Key) > maxKeyBytes:
			return fmt.Errorf("keys[%d]: a key of %d bytes, at most %d are taken", i, len(k.Key), maxKeyBytes)
		case i > 0 && k.Key <= t.Keys[i-1].Key:
			return fmt.Errorf("keys[%d]: %q stands behind %q: the keys must rise", i, k.Key, t.Keys[i-1].Key)
		case !finite(k.Limit) || k.Rows < 0:
			return fmt.Errorf("keys[%d]: %q has limit %v of %d rows", i, k.Key, k.Limit, k.Rows)
		}
		t.limits[k.Key] = k.Limit
	}
	return nil
}
