package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Fault is one thing wrong with a configuration file.
type Fault struct {
	// File is the name that the file was loaded under.
	File string
	// Line and Col count from 1, Col in characters; 0 means that the fault is
	// of the file as a whole.
	Line, Col int
	// Path leads to the value, as in operators[1].score.model; it may be empty.
	Path string
	// Message says what is wrong and, where it can, what to do.
	Message string
	// Err is the cause where there is one, for errors.Is.
	Err error
}

// Error returns the fault as file:line:col: path: message.
func (f Fault) Error() string {
	var sb strings.Builder
	sb.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&sb, ":%d:%d", f.Line, f.Col)
	}
	sb.WriteString(": ")
	if f.Path != "" {
		sb.WriteString(f.Path + ": ")
	}
	sb.WriteString(f.Message)
	return sb.String()
}

// Unwrap returns the cause.
func (f Fault) Unwrap() error { return f.Err }

// Faults are everything wrong with a file, sorted by place. No faults is nil.
type Faults []Fault

// Error returns one line for each fault.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the faults as errors.
func (fs Faults) Unwrap() []error {
	errs := make([]error, len(fs))
	for i, f := range fs {
		errs[i] = f
	}
	return errs
}

// Err returns fs as an error, and nil when there are no faults.
func (fs Faults) Err() error {
	if len(fs) == 0 {
		return nil
	}
	return fs
}

// sort orders the faults by place, and those of one place as they were found.
func (fs Faults) sort() {
	slices.SortStableFunc(fs, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
}

// flatten returns the errors that err joins, or err itself.
func flatten(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		if all := joined.Unwrap(); len(all) > 0 && err.Error() == errors.Join(all...).Error() {
			var flat []error
			for _, e := range all {
				flat = append(flat, flatten(e)...)
			}
			return flat
		}
	}
	return []error{err}
}
