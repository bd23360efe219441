package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// ByteSize is a number of bytes, written as 512, 64KiB or 128MiB (powers of
// 1024) or as 64kB or 1GB (powers of 1000). An int64 field with the tag
// unit:"bytes" is read and printed in the same way.
type ByteSize int64

// String returns the size in the largest unit of 1024 that divides it.
func (b ByteSize) String() string {
	for _, u := range byteUnits[:4] {
		if b != 0 && int64(b)%u.bytes == 0 {
			return fmt.Sprintf("%d%s", int64(b)/u.bytes, u.name)
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// byteUnits is read only.
var byteUnits = [...]struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1},
}

func parseBytes(text string) (int64, error) {
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit := strings.TrimSpace(text[len(digits):])
	scale := int64(1)
	if unit != "" {
		scale = 0
		for _, u := range byteUnits {
			if strings.EqualFold(u.name, unit) {
				scale = u.bytes
			}
		}
	}
	n, err := strconv.ParseFloat(digits, 64)
	switch {
	case err != nil || n < 0 || math.IsNaN(n) || strings.ContainsAny(digits, "xXpP"):
		return 0, errors.New("is not a size; write 64KiB, 128MiB or 1GB")
	case scale == 0 && len(unit) == 1 && strings.Contains("kKmMgGtT", unit):
		return 0, fmt.Errorf("has no clear unit; write %s%siB (powers of 1024) or %s%sB (powers of 1000)",
			digits, strings.ToUpper(unit), digits, unit)
	case scale == 0:
		return 0, fmt.Errorf("has the unknown unit %q; write KiB, MiB, GiB, kB, MB or GB", unit)
	case n*float64(scale) >= 1<<63:
		return 0, errors.New("is too large")
	}
	if whole, err := strconv.ParseInt(digits, 10, 64); err == nil {
		return whole * scale, nil
	}
	return int64(n * float64(scale)), nil
}

// Secret is a text that is never printed, logged or marshalled: all show ***.
// A string field with the tag secret:"true" is masked by this package's
// messages and by Effective, but not elsewhere. The zero value is empty.
type Secret struct {
	// A pointer, because fmt prints the unexported fields of others without
	// asking for their methods, and shows an address then.
	value *string
}

// mask stands for a secret.
const mask = "***"

// NewSecret returns a secret that holds value.
func NewSecret(value string) Secret { return Secret{&value} }

// Reveal returns the text itself, for the one place that needs it.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// Format prints *** whatever the verb is.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, mask) }

// String returns ***.
func (s Secret) String() string { return mask }

// LogValue returns ***.
func (s Secret) LogValue() slog.Value { return slog.StringValue(mask) }

// MarshalText returns ***; it serves JSON and XML too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(mask), nil }

// MarshalYAML returns ***.
func (s Secret) MarshalYAML() (any, error) { return mask, nil }

func parseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseInt(days, 10, 64); err == nil && n >= 0 && n < 100_000 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err == nil {
		return d, nil
	}
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return 0, fmt.Errorf("has no unit; write %[1]ss, %[1]sm or %[1]sh", text)
	}
	return 0, errors.New("is not a duration; write 500ms, 10s, 5m, 2h or 7d")
}

// formatDuration drops the zero parts that time.Duration prints.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// setScalar parses text into v, a scalar of any supported type. The error
// continues a sentence that begins with the text.
func setScalar(v reflect.Value, f field, text string) error {
	switch v.Interface().(type) {
	case time.Duration:
		d, err := parseDuration(text)
		v.SetInt(int64(d))
		return err
	case ByteSize:
		n, err := parseBytes(text)
		v.SetInt(n)
		return err
	case Secret:
		v.Set(reflect.ValueOf(NewSecret(text)))
		return nil
	}
	if u, ok := textUnmarshaler(v); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return errors.New("is neither true nor false")
		}
		v.SetBool(text == "true")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if f.unit == "bytes" {
			n, err := parseBytes(text)
			v.SetInt(n)
			return err
		}
		n, err := strconv.ParseInt(ungroup(text), 10, v.Type().Bits())
		if err != nil {
			return numberFault(err, "is not a whole number")
		}
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(ungroup(text), 10, v.Type().Bits())
		if err != nil && strings.HasPrefix(text, "-") {
			return errors.New("is negative; it must be 0 or more")
		}
		if err != nil {
			return numberFault(err, "is not a whole number")
		}
		v.SetUint(n)
	case reflect.Float32, reflect.Float64:
		n, err := strconv.ParseFloat(ungroup(text), v.Type().Bits())
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) || strings.ContainsAny(text, "xX") {
			return numberFault(err, "is not a number")
		}
		v.SetFloat(n)
	default:
		return fmt.Errorf("cannot be set in a file: the program has no reader for %s", v.Type())
	}
	return nil
}

// maskedFault says what is wrong with a value that must not be shown, whose own
// error may quote it.
func maskedFault(t reflect.Type, f field) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "is not a duration"
	case t == reflect.TypeFor[ByteSize]() || f.unit == "bytes":
		return "is not a size"
	case t.Kind() == reflect.Bool:
		return "is neither true nor false"
	case t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64:
		return "is not a number in range"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64:
		return "is not a whole number in range"
	}
	return "is not a text of the right form"
}

// numberFault tells a number that is out of range from one that is none.
func numberFault(err error, otherwise string) error {
	if errors.Is(err, strconv.ErrRange) {
		return errors.New("is out of range")
	}
	return errors.New(otherwise)
}

// ungroup drops the underscores between digits, as in 1_000_000.
func ungroup(text string) string {
	if !strings.Contains(text, "_") || strings.Contains(text, "__") ||
		strings.HasPrefix(text, "_") || strings.HasSuffix(text, "_") {
		return text
	}
	return strings.ReplaceAll(text, "_", "")
}
