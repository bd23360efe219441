package oracle

import (
	"strings"
	"testing"
)

func TestParseKcat(t *testing.T) {
	out := "2 7 1700000000000 -1 3\na\nbh=1,n=NULL\x1e\n" + "0 8 5 2 -1\nk\n\x1e\n" + "0 9 5 0 0\n\x1e\n"
	rs, err := parseKcat(strings.NewReader(out), "t")
	if err != nil || len(rs) != 3 {
		t.Fatalf("parseKcat = %v, %v, want three records", rs, err)
	}
	a, b, c := rs[0], rs[1], rs[2]
	if a.Partition != 2 || a.Offset != 7 || a.Timestamp != 1700000000000 || a.Key != nil || string(a.Value) != "a\nb" || len(a.Headers) != 2 ||
		string(a.Headers[0].Value) != "1" || a.Headers[1].Value != nil {
		t.Errorf("first record = %+v", a)
	}
	if string(b.Key) != "k\n" || b.Value != nil || b.Headers != nil {
		t.Errorf("second record = %+v, want key k and a newline, and no value", b)
	}
	if c.Key == nil || c.Value == nil {
		t.Errorf("third record = %+v, want empty key and value, not null ones", c)
	}
	for _, bad := range []string{"1 2 3\n", "0 0 0 5 5\nab", "0 0 0 0 0\nno end"} {
		if rs, err := parseKcat(strings.NewReader(bad), "t"); err == nil {
			t.Errorf("parseKcat(%q) = %+v, want an error", bad, rs)
		}
	}
}

func TestTidyKeepsOneRecordOfAPlace(t *testing.T) {
	got := tidy([]Record{{Topic: "b"}, {Topic: "a", Offset: 2}, {Topic: "a", Offset: 1}, {Topic: "b"}, {Topic: "a", Partition: 1}})
	if len(got) != 4 || got[0].Offset != 1 || got[2].Partition != 1 || got[3].Topic != "b" {
		t.Errorf("tidy = %+v", got)
	}
}
