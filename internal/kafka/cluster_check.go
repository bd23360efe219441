package kafka

import (
	"bytes"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/segmentio/kafka-go/protocol"
)

// Kafka-go believes every length in an answer: one flipped bit makes it ask for
// gigabytes, which ends the process. So an answer is walked through before it is
// decoded, after the same struct tags that kafka-go goes by.

// shapes holds the shapes of the answers that a connection has seen. Nil holds none.
type shapes map[shapeKey]*shape

// A shapeKey names an answer.
type shapeKey struct {
	key     protocol.ApiKey
	version int16
}

// check reports whether the lengths in an answer's frame (see readFrame) fit into it.
func (all shapes) check(frame []byte, version int16, key protocol.ApiKey) error {
	s, err := all.of(shapeKey{key, version})
	if err != nil {
		return err
	}
	r := fieldReader{b: frame[8:]}
	if s.flexible {
		r.tags()
	}
	s.walk(&r)
	return r.err()
}

// of returns the shape of an answer.
func (all shapes) of(k shapeKey) (*shape, error) {
	if s := all[k]; s != nil {
		return s, nil
	}
	_, empty, err := protocol.ReadResponse(bytes.NewReader([]byte{0, 0, 0, 4, 0, 0, 0, 1}), k.key, k.version)
	if empty == nil { // kafka-go makes the message before it misses its fields
		return nil, err
	}
	typ := reflect.TypeOf(empty).Elem()
	s, err := shapeOf(typ, k.version, isFlexible(typ, k.version))
	if err == nil && all != nil {
		all[k] = s
	}
	return s, err
}

// A shape is how a type lies on the wire in one version.
type shape struct {
	size     int      // bytes of a number
	prefix   int      // bytes of the length in front of a string (2) or of bytes (4)
	elem     *shape   // of an array
	fields   []*shape // of a struct
	flexible bool     // lengths are varints, and tagged fields follow a struct (KIP-482)
}

// shapeOf returns the shape of a field's type.
func shapeOf(typ reflect.Type, version int16, flexible bool) (*shape, error) {
	s := &shape{flexible: flexible}
	switch kind := typ.Kind(); {
	case kind == reflect.Bool || kind >= reflect.Int8 && kind <= reflect.Int64 || kind == reflect.Float64:
		s.size = int(typ.Size())
	case kind == reflect.String:
		s.prefix = 2
	case kind == reflect.Slice && typ.Elem().Kind() == reflect.Uint8:
		s.prefix = 4
	case kind == reflect.Slice:
		elem, err := shapeOf(typ.Elem(), version, flexible)
		if err != nil {
			return nil, err
		}
		s.elem = elem
	case kind == reflect.Struct:
		s.fields = []*shape{}
		for f := range typ.Fields() {
			if in, tagged := inVersion(f, version); !in || tagged {
				continue
			}
			field, err := shapeOf(f.Type, version, flexible)
			if err != nil {
				return nil, err
			}
			s.fields = append(s.fields, field)
		}
	default:
		return nil, fmt.Errorf("no way to check a %v", typ)
	}
	return s, nil
}

// inVersion reports whether a message has a field in a version, and then whether it is
// one of those with a tag.
func inVersion(f reflect.StructField, version int16) (in, tagged bool) {
	for alternative := range strings.SplitSeq(f.Tag.Get("kafka"), "|") {
		lo, hi, tag := -1, -1, false
		for word := range strings.SplitSeq(alternative, ",") {
			name, value, _ := strings.Cut(word, "=")
			n, _ := strconv.Atoi(strings.TrimPrefix(value, "v"))
			switch name {
			case "min":
				lo = n
			case "max":
				hi = n
			case "tag":
				tag = true
			}
		}
		if lo <= int(version) && int(version) <= hi {
			return true, tag
		}
	}
	return false, false
}

// isFlexible reports whether a message has tagged fields in a version.
func isFlexible(typ reflect.Type, version int16) bool {
	for f := range typ.Fields() {
		if in, tagged := inVersion(f, version); in && tagged {
			return true
		}
	}
	return false
}

// walk reads a value of the shape.
func (s *shape) walk(r *fieldReader) {
	switch {
	case r.bad:
	case s.size > 0:
		r.take(s.size)
	case s.prefix > 0:
		n := s.length(r)
		if n > 0 {
			r.take(n)
		}
	case s.elem != nil:
		n := s.length(r)
		if n > len(r.b) { // no element is empty
			r.bad = true
			return
		}
		for range max(0, n) {
			s.elem.walk(r)
		}
	default:
		for _, f := range s.fields {
			f.walk(r)
		}
		if s.flexible {
			r.tags()
		}
	}
}

// length reads the length of a string, bytes or an array; -1 is null.
func (s *shape) length(r *fieldReader) int {
	switch {
	case s.flexible:
		return r.uvarint() - 1
	case s.prefix == 2:
		return int(r.int16())
	}
	return int(r.int32())
}

// uvarint reads an unsigned varint, of which those beyond an int32 are none here.
func (r *fieldReader) uvarint() int {
	x := 0
	for shift := 0; shift < 35; shift += 7 {
		b := r.take(1)
		if b == nil {
			return 0
		}
		x |= int(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			if x > 1<<31-1 {
				break
			}
			return x
		}
	}
	r.bad = true
	return 0
}

// tags skips tagged fields.
func (r *fieldReader) tags() {
	for range r.uvarint() {
		if r.bad {
			return
		}
		r.uvarint()
		r.take(r.uvarint())
	}
}
