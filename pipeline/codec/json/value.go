package json

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/bitutil"
)

// quick reads the usual value of a node that is one column and nothing else: a
// plain decimal, a string without escapes. It returns the position behind it, or 0
// when the value wants a closer look.
func (d *decoder) quick(nd *node, doc []byte, p int) (end int) {
	c := nd.leaf
	switch nd.kind {
	case kindFloat32:
		c.f32[d.at], end = quick32(doc, p)
	case kindFloat64:
		m, scale, neg, e := decimal(doc, p)
		v, ok := exact64(m, scale, neg)
		if c.f64[d.at] = v; ok {
			end = e
		}
	case kindInt64:
		m, scale, neg, e := decimal(doc, p)
		if c.i64[d.at] = int64(m) * int64(1-2*neg); scale == 0 {
			end = e
		}
	case kindInt32:
		m, scale, neg, e := decimal(doc, p)
		if c.i32[d.at] = int32(m) * int32(1-2*neg); scale == 0 && m <= math.MaxInt32 {
			end = e
		}
	case kindString:
		if p >= len(doc) || doc[p] != '"' {
			return 0
		}
		e, escaped := d.text(doc, p)
		if e > 0 && !escaped && c.store(d.at, doc[p+1:e-1]) {
			end = e
		}
	case kindList:
		end = d.quickList(c, doc, p)
	default:
		return 0
	}
	if end > 0 {
		c.set, c.bad = d.row, 0
	}
	return end
}

// quickList reads a list of plain decimals.
func (d *decoder) quickList(c *column, doc []byte, p int) int {
	if p >= len(doc) || doc[p] != '[' {
		return 0
	}
	p = space(doc, p+1)
	for i := range c.width {
		v, end := quick32(doc, p)
		if end == 0 {
			return 0
		}
		c.setElement(d.at, i, v, false)
		p = space(doc, end)
		if p < len(doc) && doc[p] == ']' && i == c.width-1 {
			return p + 1
		}
		if p >= len(doc) || doc[p] != ',' {
			return 0
		}
		p = space(doc, p+1)
	}
	return 0
}

// convert stores a checked value, which stands at p, in a column, or notes why the
// column cannot hold it.
func (d *decoder) convert(c *column, tok []byte, p int) {
	if tok[0] == 'n' {
		return
	}
	var err error
	switch c.kind {
	case kindFloat32:
		c.f32[d.at], err = d.float32Of(tok)
	case kindFloat64:
		c.f64[d.at], err = d.float64Of(tok, 64)
	case kindInt32:
		var v int64
		v, err = d.int64Of(tok)
		if c.i32[d.at] = int32(v); err == nil && int64(int32(v)) != v {
			err = errRange
		}
	case kindInt64:
		c.i64[d.at], err = d.int64Of(tok)
	case kindBool:
		if tok[0] != 't' && tok[0] != 'f' {
			err = errType
		}
		bitutil.SetBitTo(c.bits, d.at, tok[0] == 't')
	case kindString, kindBinary:
		err = d.bytesOf(c, tok)
	case kindTime:
		c.i64[d.at], err = d.timeOf(c, tok)
	case kindList:
		if tok[0] != '[' {
			err = errType
			break
		}
		d.listOf(c, tok, p)
		return
	}
	if err != nil {
		d.refuse(c, c.path, tok, p, c.typ, err)
		return
	}
	c.set = d.row
}

var (
	errType     = errors.New("another type")
	errRange    = errors.New("out of range")
	errFraction = errors.New("not a whole number")
	errBase64   = errors.New("not base64")
	errTime     = errors.New("not an RFC 3339 time")
	errLarge    = errors.New("the batch has more than 2 GiB of it")
)

// refuse notes that a column cannot hold the value tok, which stands at p.
func (d *decoder) refuse(c *column, path string, tok []byte, p int, want arrow.DataType, why error) {
	c.set, c.bad = 0, d.row
	if why == errType {
		c.err = fmt.Errorf("%s at byte %d: %s, want %s", path, p+d.base, what(tok), want)
	} else {
		c.err = fmt.Errorf("%s at byte %d: %s as %s: %w", path, p+d.base, quote(tok), want, why)
	}
}

// what says what a checked value is.
func what(tok []byte) string {
	switch tok[0] {
	case '"':
		return "the string " + quote(tok[1:len(tok)-1])
	case '{':
		return "an object"
	case '[':
		return "an array"
	case 't', 'f', 'n':
		return string(tok)
	}
	return "the number " + quote(tok)
}

// numeral returns the text of a number: tok itself, or what a string holds.
func (d *decoder) numeral(tok []byte) ([]byte, error) {
	switch c := tok[0]; {
	case c == '-' || c-'0' <= 9 || c == 'N' || c == 'I':
		return tok, nil
	case c != '"' || !d.c.NumbersInStrings:
		return nil, errType
	}
	d.scratch = unescape(d.scratch[:0], tok[1:len(tok)-1])
	if !isNumeral(d.scratch) && !(d.c.NonFinite && nonFinite(d.scratch) != 0) {
		return nil, errType
	}
	return d.scratch, nil
}

// float64Of reads a number with the precision of bits.
func (d *decoder) float64Of(tok []byte, bits int) (float64, error) {
	s, err := d.numeral(tok)
	if err != nil {
		return 0, err
	}
	if v := nonFinite(s); v != 0 {
		return v, nil
	}
	v, ok := parseFloat(s, bits)
	if !ok {
		return 0, errRange
	}
	return v, nil
}

func (d *decoder) float32Of(tok []byte) (float32, error) {
	v, err := d.float64Of(tok, 32)
	return float32(v), err
}

func (d *decoder) int64Of(tok []byte) (int64, error) {
	s, err := d.numeral(tok)
	if err != nil {
		return 0, err
	}
	if nonFinite(s) != 0 {
		return 0, errRange
	}
	v, b := parseScaled(s, 0)
	switch b {
	case fraction:
		return 0, errFraction
	case beyond:
		return 0, errRange
	}
	return v, nil
}

// store makes b the value of row r.
func (c *column) store(r int, b []byte) bool {
	dst, ok := c.room(r, len(b))
	c.keep(r, copy(dst, b))
	return ok
}

func (d *decoder) bytesOf(c *column, tok []byte) error {
	if tok[0] != '"' {
		return errType
	}
	s := tok[1 : len(tok)-1]
	for _, b := range s {
		if b == '\\' {
			d.scratch = unescape(d.scratch[:0], s)
			s = d.scratch
			break
		}
	}
	if c.kind == kindString {
		if !c.store(d.at, s) {
			return errLarge
		}
		return nil
	}
	dst, ok := c.room(d.at, base64.StdEncoding.DecodedLen(len(s)))
	if !ok {
		return errLarge
	}
	n, err := base64.StdEncoding.Decode(dst, s)
	if err != nil {
		return errBase64
	}
	c.keep(d.at, n)
	return nil
}

// listOf stores a checked array that stands at p.
func (d *decoder) listOf(c *column, tok []byte, p int) {
	elem := c.typ.(*arrow.FixedSizeListType).Elem()
	n := 0
	for q := space(tok, 1); tok[q] != ']'; n++ {
		end := d.skip(tok, q, 0)
		if n < c.width {
			e := tok[q:end]
			var v float32
			var err error
			if e[0] != 'n' {
				v, err = d.float32Of(e)
			}
			if err != nil {
				d.refuse(c, fmt.Sprintf("%s.%d", c.path, n), e, p+q, elem, err)
				return
			}
			c.setElement(d.at, n, v, e[0] == 'n')
		}
		if q = space(tok, end); tok[q] == ',' {
			q = space(tok, q+1)
		}
	}
	if n != c.width {
		c.set, c.bad = 0, d.row
		c.err = fmt.Errorf("%s at byte %d: %d elements, want %d", c.path, p+d.base, n, c.width)
		return
	}
	c.set = d.row
}

// spoil notes that tok, which stands at p, is neither an array nor an object though
// columns lie below it.
func (d *decoder) spoil(nd *node, tok []byte, p int) {
	path := nd.path
	if nd == d.root {
		path = "the document"
	}
	err := fmt.Errorf("%s at byte %d: %s, want an object", path, p+d.base, what(tok))
	nd.eachBelow(func(c *column) { c.set, c.bad, c.err = 0, d.row, err })
}

// forget undoes what a value of nd has set in this row.
func (d *decoder) forget(nd *node) {
	nd.row = 0
	for _, c := range nd.leaves {
		c.set, c.bad = 0, 0
	}
	for _, below := range nd.below {
		d.forget(below)
	}
}

// eachBelow calls f with the columns whose paths lead through nd.
func (nd *node) eachBelow(f func(*column)) {
	for _, below := range nd.below {
		for _, c := range below.leaves {
			f(c)
		}
		below.eachBelow(f)
	}
}
