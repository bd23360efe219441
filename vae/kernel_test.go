package vae_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/elbo-stream/elbo/vae"
)

func TestKernel(t *testing.T) {
	levels := vae.KernelLevels()
	if len(levels) == 0 || levels[0] != "generic" {
		t.Fatalf("KernelLevels() = %v, want generic first", levels)
	}
	forced := os.Getenv(vae.KernelVariable)
	if got := vae.KernelForced(); got != (forced != "") {
		t.Errorf("KernelForced() = %v with %s=%q", got, vae.KernelVariable, forced)
	}
	text, err := vae.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(text, " ")
	if !slices.Contains(levels, name) {
		t.Errorf("Kernel() = %q, none of %v", text, levels)
	}
	if forced != "" && name != forced {
		t.Errorf("Kernel() = %q, want %s", text, forced)
	}
}

func TestKernelPeak(t *testing.T) {
	one, ten := vae.KernelPeak(1), vae.KernelPeak(10)
	if !(one > 0) || ten != 10*one {
		t.Errorf("KernelPeak(1) = %v, KernelPeak(10) = %v", one, ten)
	}
}
