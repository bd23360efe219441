package parquetio

import (
	"errors"
	"fmt"
	"strings"
)

// ErrNotParquet is in the chain of the error for a file that has no Parquet
// frame at all: empty, another format, cut short, or never closed.
var ErrNotParquet = errors.New("not a Parquet file")

// ErrChecksum is in the chain of the error for a page whose checksum differs.
var ErrChecksum = errors.New("page checksum does not match: the file was damaged after it was written")

// ErrNotSupported is in the chain of the error for a column, codec or encoding
// that this reader does not know.
var ErrNotSupported = errors.New("not supported")

// An Error says where in a file reading or writing went wrong. It is final:
// reading the same bytes again fails again.
type Error struct {
	File   string // path or name; "" if unknown
	Group  int    // row group, counted from 0; -1 if the fault is not in one
	Column string // dotted path; "" if the fault is not in one
	Page   int    // page in the column chunk, the dictionary included; -1 if none
	Err    error
}

// Error returns the place and the fact in one line.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File + ": ")
	}
	if e.Group >= 0 {
		fmt.Fprintf(&b, "row group %d: ", e.Group)
	}
	if e.Column != "" {
		fmt.Fprintf(&b, "column %s: ", e.Column)
	}
	if e.Page >= 0 {
		fmt.Fprintf(&b, "page %d: ", e.Page)
	}
	return b.String() + e.Err.Error()
}

// Unwrap returns the fact without its place.
func (e *Error) Unwrap() error { return e.Err }

var (
	errShort     = errors.New("ends early")
	errTooMany   = errors.New("holds more values than its header or the footer says")
	errDictIndex = errors.New("dictionary index out of range")
	errNoDict    = errors.New("refers to a dictionary, but the column chunk has none")
)

// caught turns the value of a recovered panic into an error.
func caught(v any) error { return fmt.Errorf("damaged: %v", v) }

// joinLines joins errors; one stays itself.
func joinLines(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}
