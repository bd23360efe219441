package bench

import (
	"runtime"
	"testing"
	"time"
)

func TestNameIn(t *testing.T) {
	for text, want := range map[string]string{
		"processor\t: 0\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel name\t: other\n": "AMD EPYC (family 25 model 1)",
		"model name : Some CPU\n":   "Some CPU",
		"BogoMIPS : 50.00\n":        runtime.GOARCH,
		"":                          runtime.GOARCH,
		"model name\t: A\n\nx: y\n": "A",
	} {
		if got := nameIn(text); got != want {
			t.Errorf("nameIn(%q) = %q, want %q", text, got, want)
		}
	}
	m, err := ThisMachine()
	if err != nil {
		t.Fatal(err)
	}
	if m.CPU == "" || m.Cores < 1 || m.Kernel == "" || m.Why == "" || m.Go == "" {
		t.Errorf("ThisMachine() = %+v", m)
	}
}

func TestMeasurePeak(t *testing.T) {
	if got := MeasurePeak(time.Millisecond); !(got > 0.01 && got < 1e5) {
		t.Errorf("MeasurePeak = %v GFLOP/s", got)
	}
}
