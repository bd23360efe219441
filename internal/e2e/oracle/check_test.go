package oracle_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/internal/e2e/oracle"
)

// topic returns records "a-0" to "a-9" of each of the partitions.
func topic(name string, partitions ...int32) (rs []oracle.Record) {
	for _, p := range partitions {
		for i := range 10 {
			rs = append(rs, oracle.Record{Topic: name, Partition: p, Offset: int64(i), Key: fmt.Appendf(nil, "%d-%d", p, i)})
		}
	}
	return rs
}

// onto gives records offsets in one partition of a copy, in their order.
func onto(rs []oracle.Record) []oracle.Record {
	rs = slices.Clone(rs)
	for i := range rs {
		rs[i].Topic, rs[i].Partition, rs[i].Offset = "out", 0, int64(2*i) // holes, as transactions leave them
	}
	return rs
}

func TestCheckNamesEachFault(t *testing.T) {
	in := topic("in", 0, 1)
	for name, c := range map[string]struct {
		out  []oracle.Record
		want string
	}{
		"exact":    {onto(in), "20 records in, 20 out: 0 lost, 0 doubled, 0 unknown, 0 out of order"},
		"lost":     {onto(in[1:]), "1 lost, 0 doubled, 0 unknown, 0 out of order\n  lost: in/0@0 (id \"0-0\")"},
		"doubled":  {onto(append(slices.Clone(in), in[3])), "0 lost, 1 doubled, 0 unknown, 0 out of order\n  doubled: in/0@3 (id \"0-3\") is at out/0@6 and at out/0@40"},
		"unknown":  {onto(append(slices.Clone(in), oracle.Record{Key: []byte("who")})), "1 unknown, 0 out of order\n  unknown: id \"who\" at out/0@40"},
		"disorder": {onto(slices.Concat(in[:3], in[4:5], in[3:4], in[5:])), "1 out of order\n  disorder: in/0@3 is at out/0@8, behind in/0@4"},
		"empty":    {nil, "20 lost"},
	} {
		t.Run(name, func(t *testing.T) {
			r := oracle.Check(in, c.out, oracle.ByKey)
			if !strings.Contains(r.String(), c.want) {
				t.Errorf("Check = %v, want it to say %q", r, c.want)
			}
			if faulty := name != "exact"; (r.Err() != nil) != faulty {
				t.Errorf("Err() = %v, want an error: %v", r.Err(), faulty)
			}
		})
	}
	if r := oracle.Check(append(in, in[0]), onto(in), oracle.ByKey); r.Unknown != 1 {
		t.Errorf("an input with an id twice: %v, want it found", r)
	}
	mixed := onto(slices.Concat(in[10:], in[:10]))
	if err := oracle.Check(in, mixed, oracle.ByKey).Err(); err != nil {
		t.Errorf("partitions may mix: %v", err)
	}
	if err := oracle.CheckSet(in, onto(slices.Concat(in[5:], in[:5])), oracle.ByKey).Err(); err != nil {
		t.Errorf("CheckSet minds the order: %v", err)
	}
}

// TestCheckCounts damages a copy at random and expects the counts that follow.
func TestCheckCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := topic("in", 0, 1, 2)
		var out []oracle.Record
		lost, doubled := 0, 0
		for _, r := range in {
			n := rapid.IntRange(0, 3).Draw(t, "times")
			for range n {
				out = append(out, r)
			}
			if n == 0 {
				lost++
			}
			doubled += max(0, n-1)
		}
		r := oracle.Check(in, onto(out), oracle.ByKey)
		if r.Lost != lost || r.Doubled != doubled || r.Unknown != 0 || r.Disorder != 0 {
			t.Errorf("Check = %v, want %d lost, %d doubled", r, lost, doubled)
		}
	})
}

func TestByHeader(t *testing.T) {
	r := oracle.Record{Headers: []oracle.Header{{Key: "id", Value: []byte("7")}, {Key: "id", Value: []byte("8")}}}
	if got := oracle.ByHeader("id")(r); got != "7" {
		t.Errorf("ByHeader(id) = %q, want the first, 7", got)
	}
	if got := oracle.ByHeader("no")(r); got != "" {
		t.Errorf("ByHeader(no) = %q, want none", got)
	}
}
