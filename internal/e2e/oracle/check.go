package oracle

import (
	"errors"
	"fmt"
	"strings"
)

// A Report says how a copy differs from its input.
type Report struct {
	In, Out int // records of the input and of the copy
	// Lost, Doubled, Unknown and Disorder count records: of the input that the copy lacks, in
	// the copy once too often, in the copy but not of the input, and behind a record
	// that comes after them in the same input partition.
	Lost, Doubled, Unknown, Disorder int
	// Examples are some of each, in words.
	Examples []string
}

// examplesOfEach bounds a report.
const examplesOfEach = 5

// ByKey tells records apart by their keys.
func ByKey(r Record) string { return string(r.Key) }

// ByHeader tells records apart by a header, and is "" where it lacks.
func ByHeader(key string) func(Record) string {
	return func(r Record) string {
		v, _ := r.Header(key)
		return string(v)
	}
}

// Check compares a copy with its input, both as Read returns them. id gives what
// tells a record apart, in the input and in the copy; it must not be "", and the input's must differ.
// The order is checked within each pair of an input and an output partition, by
// the output's offsets.
func Check(in, out []Record, id func(Record) string) Report {
	return check(in, out, id, true)
}

// CheckSet is Check that does not care about the order.
func CheckSet(in, out []Record, id func(Record) string) Report {
	return check(in, out, id, false)
}

func check(in, out []Record, id func(Record) string, ordered bool) Report {
	r := Report{In: len(in), Out: len(out)}
	inputs := make(map[string]int, len(in))
	for i, x := range in {
		if j, twice := inputs[id(x)]; twice || id(x) == "" {
			r.note(&r.Unknown, "the input itself is no good: id %q of %s, also of %s", id(x), place(x), place(in[j]))
			continue
		}
		inputs[id(x)] = i
	}
	type pair struct {
		from, to string
	}
	copies, last := make(map[string]int, len(out)), map[pair]int{}
	for j, y := range out {
		i, ok := inputs[id(y)]
		if !ok {
			r.note(&r.Unknown, "unknown: id %q at %s", id(y), place(y))
			continue
		}
		x := in[i]
		if k, twice := copies[id(y)]; twice {
			r.note(&r.Doubled, "doubled: %s (id %q) is at %s and at %s", place(x), id(x), place(out[k]), place(y))
			continue
		}
		copies[id(y)] = j
		p := pair{partition(x), partition(y)}
		if before, ok := last[p]; ok && ordered && in[before].Offset > x.Offset {
			r.note(&r.Disorder, "disorder: %s is at %s, behind %s", place(x), place(y), place(in[before]))
			continue
		}
		last[p] = i
	}
	for _, x := range in {
		if _, ok := copies[id(x)]; !ok {
			r.note(&r.Lost, "lost: %s (id %q)", place(x), id(x))
		}
	}
	return r
}

func partition(r Record) string { return fmt.Sprintf("%s/%d", r.Topic, r.Partition) }
func place(r Record) string     { return fmt.Sprintf("%s@%d", partition(r), r.Offset) }

// note counts a fault and keeps the first few of its kind.
func (r *Report) note(count *int, format string, args ...any) {
	if *count < examplesOfEach {
		r.Examples = append(r.Examples, fmt.Sprintf(format, args...))
	}
	*count++
}

// Err returns nil if nothing is lost, doubled, unknown or out of order.
func (r Report) Err() error {
	if r.Lost+r.Doubled+r.Unknown+r.Disorder == 0 {
		return nil
	}
	return errors.New(r.String())
}

// String tells the counts and the examples.
func (r Report) String() string {
	s := fmt.Sprintf("%d records in, %d out: %d lost, %d doubled, %d unknown, %d out of order",
		r.In, r.Out, r.Lost, r.Doubled, r.Unknown, r.Disorder)
	if len(r.Examples) == 0 {
		return s
	}
	return s + "\n  " + strings.Join(r.Examples, "\n  ")
}
