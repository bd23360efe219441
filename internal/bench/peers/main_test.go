package main

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/elbo-stream/elbo/internal/bench"
)

// folder writes the weights of net B as the other systems read them.
func folder(t *testing.T) string {
	t.Helper()
	n, err := bench.Find("B")
	if err != nil {
		t.Fatal(err)
	}
	var b []byte
	for _, w := range n.RandomWeights(1) {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(w))
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "nets"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "nets", "netB.bin"), b, 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestLines holds the output to what the harness reads.
func TestLines(t *testing.T) {
	env := map[string]string{"PEERS_NETS": "B", "PEERS_BATCHES": "1,64", "PEERS_SECONDS": "0.001", "PEERS_DIR": folder(t)}
	var out bytes.Buffer
	if err := run(nil, func(k string) string { return env[k] }, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 7 || !strings.HasPrefix(lines[0], "note ") {
		t.Fatalf("output %q, want a note, and for each precision a check and two rates", out.String())
	}
	var sums [2][2]float64
	for p, precision := range []string{"fp32", "int8"} {
		lines := lines[1+3*p:]
		check := strings.Fields(lines[0])
		if len(check) != 6 || strings.Join(check[:4], " ") != "check ours "+precision+" B" {
			t.Fatalf("check line %q", lines[0])
		}
		for k, text := range check[4:] {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil || !(v > 1 && v < 1e4) {
				t.Errorf("check line %q: a sum over 64 rows of %q", lines[0], text)
			}
			sums[p][k] = v
		}
		for i, batch := range []string{"1", "64"} {
			f := strings.Fields(lines[1+i])
			if len(f) != 5 || f[0] != "B" || f[1] != batch || f[3] != precision || f[4] != "full" {
				t.Errorf("rate line %q", lines[1+i])
			}
			if v, err := strconv.ParseFloat(f[2], 64); err != nil || !(v > 0) {
				t.Errorf("rate line %q", lines[1+i])
			}
		}
	}
	for k, v := range sums[0] {
		if d := math.Abs(sums[1][k]-v) / v; d > 0.05 {
			t.Errorf("int8 adds up to %v, float32 to %v", sums[1][k], v)
		}
	}
	out.Reset()
	if err := run([]string{"train"}, func(k string) string { return env[k] }, &out); err != nil {
		t.Fatal(err)
	}
	trained := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(trained) != 3 || !strings.HasPrefix(trained[1], "B 128 ") || !strings.HasPrefix(trained[2], "B 1024 ") {
		t.Errorf("training printed %q", out.String())
	}
	env["PEERS_FORMS"] = "int4"
	if err := run(nil, func(k string) string { return env[k] }, &out); err == nil || !strings.Contains(err.Error(), `PEERS_FORMS: unknown form "int4"`) {
		t.Errorf("an unknown form gives %v", err)
	}
}

func TestSettings(t *testing.T) {
	dir := folder(t)
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		want string
	}{
		{"no folder", map[string]string{"PEERS_NETS": "B"}, nil, "PEERS_DIR"},
		{"unknown net", map[string]string{"PEERS_NETS": "B,Q", "PEERS_DIR": dir}, nil, `unknown net "Q"`},
		{"bad batch", map[string]string{"PEERS_BATCHES": "64,many", "PEERS_DIR": dir}, nil, `"many" is not a number`},
		{"bad time", map[string]string{"PEERS_SECONDS": "-1", "PEERS_DIR": dir}, nil, "PEERS_SECONDS"},
		{"unknown job", map[string]string{"PEERS_NETS": "B", "PEERS_DIR": dir}, []string{"sleep"}, `unknown job "sleep"`},
		{"no weights", map[string]string{"PEERS_NETS": "A", "PEERS_DIR": dir}, nil, "netA.bin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := run(c.args, func(k string) string { return c.env[k] }, &bytes.Buffer{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	if err := os.WriteFile(filepath.Join(dir, "nets", "netB.bin"), []byte("short"), 0o666); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"PEERS_NETS": "B", "PEERS_DIR": dir}
	if err := run(nil, func(k string) string { return env[k] }, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "5 bytes") {
		t.Errorf("weights of another size: %v", err)
	}
}
