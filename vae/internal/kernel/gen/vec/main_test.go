package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestFilesAreCurrent writes everything again and compares it with what the
// repository holds.
func TestFilesAreCurrent(t *testing.T) {
	dir := t.TempDir()
	if err := write(dir, functions()); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		got, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		have, err := os.ReadFile(filepath.Join("..", "..", f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, have) {
			t.Errorf("%s is stale: run go generate ./vae/internal/kernel", f.Name())
		}
	}
}

func TestOffsets(t *testing.T) {
	f := function{params: params("y x *float32, n int, a float32, total *float64")}
	for _, c := range []struct {
		name     string
		at, size int
	}{{"y", 0, 40}, {"x", 8, 40}, {"n", 16, 40}, {"a", 24, 40}, {"total", 32, 40}, {"none", -1, 40}} {
		if at, size := f.offset(c.name); at != c.at || size != c.size {
			t.Errorf("offset(%q) = %d, %d, want %d, %d", c.name, at, size, c.at, c.size)
		}
	}
	if got, want := f.signature(), "y, x *float32, n int, a float32, total *float64"; got != want {
		t.Errorf("signature() = %q, want %q", got, want)
	}
}

// TestWrongPrograms holds the checks of the little language to mistakes.
func TestWrongPrograms(t *testing.T) {
	for name, build := range map[string]func(*program){
		"unused result": func(p *program) { p.plus(k(1), k(2)) },
		"across a loop": func(p *program) {
			p.arg("x", "n")
			v := p.load("x", 0)
			p.loop("n", func() { p.store(v, "x", 0) })
		},
		"used before it is set": func(p *program) {
			p.arg("x")
			p.store(value{reg: p.newReg(vreg{})}, "x", 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("lower did not panic")
				}
			}()
			f := &function{name: "Wrong", params: params("x *float32, n int"), build: build}
			lower(f, targets[0], &constants{target: targets[0]})
		})
	}
}
