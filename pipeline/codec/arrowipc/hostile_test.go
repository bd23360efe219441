package arrowipc_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/arrowipc"
)

// TestLZ4Frames has frames by hand: every flag, and every way to be broken.
func TestLZ4Frames(t *testing.T) {
	frame := func(flags byte, parts ...[]byte) []byte {
		return slices.Concat([]byte{0x04, 0x22, 0x4d, 0x18, flags, 0x40}, slices.Concat(parts...))
	}
	sum, end := []byte{0}, []byte{0, 0, 0, 0}
	stored := []byte{3, 0, 0, 0x80, 'a', 'b', 'c'}
	// One literal, a match of 4+15+1 bytes one back, and five literals.
	packed := []byte{11, 0, 0, 0, 0x1f, 'x', 1, 0, 1, 0x50, 'v', 'w', 'x', 'y', 'z'}
	linked := []byte{4, 0, 0, 0, 0x00, 3, 0, 0x00} // a match of 4 bytes in the block before
	for _, tc := range []struct {
		name  string
		frame []byte
		want  string
		ok    bool
	}{
		{"stored", frame(0x60, sum, stored, end), "abc", true},
		{"nothing", frame(0x60, sum, end), "", true},
		{"a match over itself", frame(0x60, sum, packed, end), strings.Repeat("x", 21) + "vwxyz", true},
		{"a match in the block before", frame(0x40, sum, stored, linked, end), "abcabca", true},
		{"content size", frame(0x68, make([]byte, 8), sum, stored, end), "abc", true},
		{"sums of blocks and content", frame(0x74, sum, stored, end, stored, end, end, end), "abcabc", true},
		{"a dictionary", frame(0x61, make([]byte, 4), sum, stored, end), "", false},
		{"version 2", frame(0xa0, sum, stored, end), "", false},
		{"no end", frame(0x60, sum, stored), "abc", false},
		{"no sum of the content", frame(0x64, sum, stored, end), "abc", false},
		{"no sum of a block", frame(0x70, sum, stored), "abc", false},
		{"more than there is room for", frame(0x60, sum, []byte{0xff, 0, 0, 0x80}, make([]byte, 255), end), "", false},
		{"a block that ends early", frame(0x60, sum, []byte{9, 0, 0, 0, 1}), "", false},
		{"more literals than bytes", frame(0x60, sum, []byte{2, 0, 0, 0, 0xf0, 'x'}, end), "", false},
		{"half an offset", frame(0x60, sum, []byte{3, 0, 0, 0, 0x10, 'x', 1}, end), "x", false},
		{"an offset of nothing", frame(0x60, sum, []byte{4, 0, 0, 0, 0x10, 'x', 0, 0}, end), "x", false},
		{"an offset before the begin", frame(0x60, sum, []byte{4, 0, 0, 0, 0x10, 'x', 2, 0}, end), "x", false},
		{"a match that is too long", frame(0x60, sum, []byte{6, 0, 0, 0, 0x1f, 'x', 1, 0, 255, 9}, end), "x", false},
		{"a length without an end", frame(0x60, sum, []byte{5, 0, 0, 0, 0x1f, 'x', 1, 0, 255}, end), "x", false},
	} {
		got, err := arrowipc.UnpackLZ4(make([]byte, 0, 100), tc.frame)
		if (err == nil) != tc.ok || string(got) != tc.want {
			t.Errorf("%s: %q, %v", tc.name, got, err)
		}
		for i := range tc.frame { // no prefix may panic
			if got, _ := arrowipc.UnpackLZ4(make([]byte, 0, 100), tc.frame[:i]); len(got) > 100 {
				t.Errorf("%s: %d bytes, there is room for 100", tc.name, len(got))
			}
		}
	}
}

// TestDictionaryOrder has streams whose dictionaries are missing, replaced or grown.
func TestDictionaryOrder(t *testing.T) {
	field := arrow.Field{Name: "d", Type: dict}
	a := arrowipc.Messages(stream(t, "", recordOf(t, `[{"d":"x"},{"d":"y"}]`, field)))
	b := arrowipc.Messages(stream(t, "", recordOf(t, `[{"d":"z"},{"d":null}]`, field)))
	null := arrowipc.Messages(stream(t, "", recordOf(t, `[{"d":null},{"d":null}]`, field)))
	f := newFormat(t, arrowipc.Config{Columns: []codec.Column{{Name: "d", Type: str}}})
	schema, words := a[0], a[1]
	for _, tc := range []struct {
		name  string
		parts [][]byte
		want  string
	}{
		{"as written", a, `["x"  "y" ]`},
		{"missing", [][]byte{schema, a[2]}, "its dictionary has not come"},
		{"missing and not needed", [][]byte{schema, null[len(null)-1]}, "[null  null ]"},
		{"replaced", [][]byte{schema, words, a[2], b[1], b[2]}, `["x"  "y"  "z"  null ]`},
		{"too small", [][]byte{schema, b[1], a[2]}, "index 1 in a dictionary of 1"},
		{"of another value", [][]byte{schema, a[2]}, "its dictionary has not come"},
		{"two schemas", [][]byte{schema, schema, words, a[2]}, "a second schema"},
		{"no rows", [][]byte{schema}, "[]"},
		{"none but a batch", [][]byte{a[2]}, "no schema before the rows"},
	} {
		rows, _, faults := decode(t, f, a[0], slices.Concat(tc.parts...))
		got := fmt.Sprint(rows)
		if len(faults) > 0 {
			got = faults[0].Error()
		}
		if !strings.Contains(got, tc.want) {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestOldStreams reads streams from before Arrow 0.15, whose messages have no
// marker before their length, and streams without an end.
func TestOldStreams(t *testing.T) {
	f := newFormat(t, arrowipc.Config{Columns: []codec.Column{{Name: "a", Type: f32}}})
	parts := arrowipc.Messages(stream(t, "", recordOf(t, `[{"a":1},{"a":2}]`, arrow.Field{Name: "a", Type: f32})))
	var old []byte
	for _, p := range parts {
		old = append(old, p[4:]...)
	}
	whole := slices.Concat(parts...)
	for name, value := range map[string][]byte{"old": append(bytes.Clone(old), 0, 0, 0, 0), "old without an end": old, "without an end": whole} {
		if rows, _, faults := decode(t, f, value); fmt.Sprint(rows) != "[1/3f800000  2/40000000 ]" {
			t.Errorf("%s: rows %v, faults %v", name, rows, faults)
		}
	}
	for name, value := range map[string]string{"a file": "ARROW1\x00\x00" + string(whole), "bytes after the end": string(whole) + "\xff\xff\xff\xff\x00\x00\x00\x00x",
		"half a marker": string(whole) + "\xff\xff", "a negative length": string(whole) + "\xff\xff\xff\xff\xf0\xff\xff\xff"} {
		if _, _, faults := decode(t, f, []byte(value)); len(faults) != 1 || faults[0].Class != codec.Syntax {
			t.Errorf("%s: %v", name, faults)
		}
	}
}

// TestPrefixes cuts streams everywhere: a fault or whole batches, never a panic.
func TestPrefixes(t *testing.T) {
	f := newFormat(t, arrowipc.Config{Columns: []codec.Column{{Name: "d", Type: str}, {Name: "v", Type: vec3}}})
	rec := recordOf(t, `[{"d":"x","v":[1,2,3]},{"d":"y"}]`, arrow.Field{Name: "d", Type: dict}, arrow.Field{Name: "v", Type: arrow.ListOf(f32)})
	for _, c := range []arrowipc.Compression{arrowipc.None, arrowipc.LZ4, arrowipc.Zstd} {
		value := stream(t, c, rec, rec)
		for i := range value {
			if rows, _, faults := decode(t, f, value[:i]); len(faults) == 0 && len(rows) != 0 && len(rows) != 2 && len(rows) != 4 {
				t.Errorf("%s, %d bytes: rows %v", c, i, rows)
			}
		}
	}
}

// TestText has strings that are not UTF-8, or are cut within a character.
func TestText(t *testing.T) {
	f := newFormat(t, arrowipc.Config{Columns: []codec.Column{{Name: "s", Type: str}}})
	value := stream(t, "", recordOf(t, `[{"s":"aé"},{"s":"b"}]`, arrow.Field{Name: "s", Type: str}))
	bad := bytes.Replace(value, []byte("aéb"), []byte("a\xff\xffb"), 1)
	cut := bytes.Replace(value, []byte{0, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0}, []byte{0, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0}, 1)
	falls := bytes.Replace(value, []byte{0, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0}, []byte{0, 0, 0, 0, 9, 0, 0, 0, 4, 0, 0, 0}, 1)
	for _, tc := range []struct {
		value []byte
		want  string
	}{{bad, "not UTF-8"}, {cut, "within a character"}, {falls, "offset 9 after 0"}} {
		if bytes.Equal(tc.value, value) {
			t.Fatal("nothing was changed")
		}
		if _, _, faults := decode(t, f, tc.value); len(faults) != 1 || faults[0].Class != codec.Syntax || !strings.Contains(faults[0].Error(), tc.want) {
			t.Errorf("faults %v, want %q", faults, tc.want)
		}
	}
}
