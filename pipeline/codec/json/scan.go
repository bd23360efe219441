package json

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unicode/utf8"

	"github.com/elbo-stream/elbo/pipeline/codec"
)

// The scanner's methods take the document and a position, and return the position
// behind what they read, or -1 after they have noted a fault. Every byte of a
// document passes through them.

// failed notes a syntax fault at position p and returns -1.
func (d *decoder) failed(p int, format string, args ...any) int {
	d.class, d.err = codec.Syntax, fmt.Errorf("byte %d: "+format, append([]any{p + d.base}, args...)...)
	return -1
}

// unexpected notes that something else than want stands at p.
func (d *decoder) unexpected(doc []byte, p int, want string) int {
	if p >= len(doc) {
		return d.failed(p, "the document ends, want %s", want)
	}
	return d.failed(p, "%s, want %s", quote(doc[p:min(p+1, len(doc))]), want)
}

// space returns the position of the next byte that is no white space.
func space(doc []byte, p int) int {
	for p < len(doc) && (doc[p] == ' ' || doc[p] == '\n' || doc[p] == '\r' || doc[p] == '\t') {
		p++
	}
	return p
}

// document reads all of doc.
func (d *decoder) document(doc []byte) bool {
	p := space(doc, 0)
	if p < len(doc) && doc[p] == '{' {
		d.root.row = d.row
		p = d.object(d.root, doc, p, 1)
	} else {
		p = d.place(d.root, doc, p, 0)
	}
	if p < 0 {
		return false
	}
	if p = space(doc, p); p < len(doc) {
		d.failed(p, "%s after the document", quote(doc[p:]))
		return false
	}
	return true
}

// place reads the value of a node that columns may be bound to.
func (d *decoder) place(nd *node, doc []byte, p, depth int) int {
	if nd.row == d.row || nd.leaf != nil && nd.leaf.set == d.row {
		d.forget(nd) // a key that came before
	}
	nd.row = d.row
	if len(nd.leaves) == 0 && p < len(doc) {
		if doc[p] == '{' {
			return d.object(nd, doc, p, depth+1)
		}
		if doc[p] == '[' && len(nd.items) > 0 {
			return d.array(nd, doc, p, depth+1)
		}
	}
	end := d.skip(doc, p, depth)
	if end < 0 {
		return -1
	}
	for _, c := range nd.leaves {
		d.convert(c, doc[p:end], p)
	}
	if len(nd.below) == 0 {
		return end
	}
	switch c := doc[p]; {
	case c == '{':
		return d.object(nd, doc, p, depth+1)
	case c == '[' && len(nd.items) > 0:
		return d.array(nd, doc, p, depth+1)
	case c == 'n' && nd != d.root:
	default:
		d.spoil(nd, doc[p:end], p)
	}
	return end
}

// object reads an object, whose brace is at p.
func (d *decoder) object(nd *node, doc []byte, p, depth int) int {
	if depth > MaxDepth {
		return d.failed(p, "nested deeper than %d", MaxDepth)
	}
	p++
	first := true
	for at := 0; ; first = false {
		if p < len(doc) && doc[p] == '}' {
			return p + 1
		}
		var to int
		next := -1
		if at >= 0 && !d.exact {
			e := &nd.fields[at].next
			if next = e.match(doc, p); next > 0 {
				to = e.to
			}
		}
		if next < 0 {
			var end bool
			if next, to, end = d.key(nd, doc, p, first); end || next < 0 {
				return next
			}
			nd.learn(at, to, doc[p:next])
		}
		p, at = next, to
		var child *node
		if at >= 0 {
			child = nd.fields[at].node
		}
		// A guessed edge may end before white space: nothing quick begins with that.
		switch {
		case child == nil:
			p = d.skip(doc, space(doc, next), depth)
		case child.kind == kindFloat32: // what quick does, without the call
			c := child.leaf
			if c.f32[d.at], p = quick32(doc, next); p > 0 {
				c.set, c.bad = d.row, 0
				continue
			}
			p = d.place(child, doc, space(doc, next), depth)
		default:
			if p = d.quick(child, doc, next); p <= 0 {
				p = d.place(child, doc, space(doc, next), depth)
			}
		}
		if p < 0 {
			return -1
		}
	}
}

// match returns the position behind the edge's bytes, or -1.
func (e *edge) match(doc []byte, p int) int {
	n := len(e.text)
	if n == 0 || len(doc)-p < max(n, 8) || (binary.LittleEndian.Uint64(doc[p:])^e.word)&e.mask != 0 {
		return -1
	}
	if n > 8 && string(doc[p+8:p+n]) != string(e.text[8:]) {
		return -1
	}
	return p + n
}

// key reads what stands between two values of an object: a comma unless it is the
// first, a key and a colon. It returns the value's position and the key's field, or
// the position behind the object.
func (d *decoder) key(nd *node, doc []byte, p int, first bool) (next, to int, end bool) {
	p = space(doc, p)
	switch {
	case p < len(doc) && doc[p] == '}':
		return p + 1, 0, true
	case first:
	case p < len(doc) && doc[p] == ',':
		p = space(doc, p+1)
	default:
		return d.unexpected(doc, p, `"," or "}"`), 0, false
	}
	if p >= len(doc) || doc[p] != '"' {
		return d.unexpected(doc, p, "a key"), 0, false
	}
	q, escaped := d.text(doc, p)
	if q < 0 {
		return -1, 0, false
	}
	name := doc[p+1 : q-1]
	if escaped {
		d.scratch = unescape(d.scratch[:0], name)
		name = d.scratch
	}
	to = nd.field(name)
	if p = space(doc, q); p >= len(doc) || doc[p] != ':' {
		return d.unexpected(doc, p, `":"`), 0, false
	}
	return space(doc, p+1), to, false
}

// array reads an array, whose bracket is at p, of which paths lead to elements.
func (d *decoder) array(nd *node, doc []byte, p, depth int) int {
	if depth > MaxDepth {
		return d.failed(p, "nested deeper than %d", MaxDepth)
	}
	p = space(doc, p+1)
	if p < len(doc) && doc[p] == ']' {
		return p + 1
	}
	for i := 0; ; i++ {
		if i >= len(nd.items) || nd.items[i] == nil {
			p = d.skip(doc, p, depth)
		} else if end := d.quick(nd.items[i], doc, p); end > 0 {
			p = end
		} else {
			p = d.place(nd.items[i], doc, p, depth)
		}
		if p < 0 {
			return -1
		}
		p = space(doc, p)
		switch {
		case p < len(doc) && doc[p] == ',':
			p = space(doc, p+1)
		case p < len(doc) && doc[p] == ']':
			return p + 1
		default:
			return d.unexpected(doc, p, `"," or "]"`)
		}
	}
}

// skip checks any value and returns the position behind it.
func (d *decoder) skip(doc []byte, p, depth int) int {
	if p >= len(doc) {
		return d.unexpected(doc, p, "a value")
	}
	switch c := doc[p]; c {
	case '"':
		p, _ = d.text(doc, p)
		return p
	case '{', '[':
		return d.skipNested(doc, p, depth+1)
	case 't':
		return d.literal(doc, p, "true")
	case 'f':
		return d.literal(doc, p, "false")
	case 'n':
		return d.literal(doc, p, "null")
	case 'N':
		if d.c.NonFinite {
			return d.literal(doc, p, "NaN")
		}
	case 'I':
		if d.c.NonFinite {
			return d.literal(doc, p, "Infinity")
		}
	case '-':
		if d.c.NonFinite && p+1 < len(doc) && doc[p+1] == 'I' {
			return d.literal(doc, p, "-Infinity")
		}
		return d.number(doc, p)
	case '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return d.number(doc, p)
	}
	return d.unexpected(doc, p, "a value")
}

func (d *decoder) literal(doc []byte, p int, want string) int {
	if len(doc)-p < len(want) || string(doc[p:p+len(want)]) != want {
		return d.failed(p, "%s, want a value", quote(doc[p:]))
	}
	return p + len(want)
}

// skipNested checks an array or an object.
func (d *decoder) skipNested(doc []byte, p, depth int) int {
	if depth > MaxDepth {
		return d.failed(p, "nested deeper than %d", MaxDepth)
	}
	object := doc[p] == '{'
	closing := doc[p] + 2 // of both brackets
	p = space(doc, p+1)
	if p < len(doc) && doc[p] == closing {
		return p + 1
	}
	for {
		if object {
			if p >= len(doc) || doc[p] != '"' {
				return d.unexpected(doc, p, "a key")
			}
			if p, _ = d.text(doc, p); p < 0 {
				return -1
			}
			if p = space(doc, p); p >= len(doc) || doc[p] != ':' {
				return d.unexpected(doc, p, `":"`)
			}
			p = space(doc, p+1)
		}
		if p = d.skip(doc, p, depth); p < 0 {
			return -1
		}
		p = space(doc, p)
		switch {
		case p < len(doc) && doc[p] == ',':
			p = space(doc, p+1)
		case p < len(doc) && doc[p] == closing:
			return p + 1
		default:
			return d.unexpected(doc, p, fmt.Sprintf(`"," or "%c"`, closing))
		}
	}
}

// text checks a string, whose quote is at p, and says whether it has escapes.
func (d *decoder) text(doc []byte, p int) (end int, escaped bool) {
	start := p
	for p++; ; {
		for !d.exact && p+8 <= len(doc) {
			n := plainBytes(binary.LittleEndian.Uint64(doc[p:]))
			p += n
			if n < 8 {
				break
			}
		}
		if p >= len(doc) {
			return d.failed(start, "a string has no end"), false
		}
		switch c := doc[p]; {
		case c == '"':
			return p + 1, escaped
		case c == '\\':
			n := escapeSize(doc[p:])
			if n == 0 {
				return d.failed(p, "%s is no escape", quote(doc[p:])), false
			}
			escaped = true
			p += n
		case c < ' ':
			return d.failed(p, "control character %#02x in a string", c), false
		case c < utf8.RuneSelf:
			p++
		default:
			r, n := utf8.DecodeRune(doc[p:])
			if r == utf8.RuneError && n <= 1 {
				return d.failed(p, "byte %#02x is not UTF-8", c), false
			}
			p += n
		}
	}
}

// plainBytes counts the leading bytes of w that need no look in a string: ASCII,
// no quote, no backslash, no control character. After the first that does, the
// borrows of the subtractions may mark others; only the first is asked for.
func plainBytes(w uint64) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	quotes := w ^ ones*'"'
	slashes := w ^ ones*'\\'
	special := (w | (w - ones*' ') | (quotes - ones) | (slashes - ones)) & tops
	return bits.TrailingZeros64(special) >> 3
}

// quote quotes at most sixteen bytes of b.
func quote(b []byte) string {
	if len(b) > 16 {
		return fmt.Sprintf("%q...", b[:16])
	}
	return fmt.Sprintf("%q", b)
}
