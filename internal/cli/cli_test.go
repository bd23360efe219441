package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/pipeline/config"
	"github.com/elbo-stream/elbo/vae"
)

// run executes the program in this process.
func run(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = Main(args, &out, &err)
	return code, out.String(), err.String()
}

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want int
	}{
		{"any error", errors.New("disk on fire"), ExitFailed},
		{"usage, wrapped", fmt.Errorf("a: %w", usage("no input")), ExitUsage},
		{"bad config", badConfig(errors.New("x")), ExitConfig},
		{"schema, wrapped", fmt.Errorf("bind: %w", &vae.SchemaError{}), ExitConfig},
		{"faults", config.Faults{{File: "a.yaml", Message: "x"}}, ExitConfig},
		{"canceled, wrapped", fmt.Errorf("read: %w", context.Canceled), ExitInterrupted},
		{"output exists", fmt.Errorf("bind: a %w", durable.ErrExists), ExitUsage},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := exitCode(c.err); got != c.want {
				t.Errorf("exitCode(%v) = %d, want %d", c.err, got, c.want)
			}
		})
	}
}

func TestMessage(t *testing.T) {
	root := &cobra.Command{Use: "elbo"}
	verb := &cobra.Command{Use: "score"}
	root.AddCommand(verb)
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"one line", errors.New("a.parquet: no"), "elbo: score: a.parquet: no"},
		{"every line has the place", errors.New("a: no\nb: no"), "elbo: score: a: no\nelbo: score: b: no"},
		{"full disk tells what to do", fmt.Errorf("write x: %w", syscall.ENOSPC), "elbo: score: write x: no space left on device: free some space or write elsewhere"},
		{"faults stand as they are", config.Faults{{File: "a.yaml", Line: 2, Col: 3, Message: "no"}}, "a.yaml:2:3: no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := message(verb, c.err); got != c.want {
				t.Errorf("message = %q, want %q", got, c.want)
			}
		})
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 7: "7", 999: "999", 1000: "1,000", 1234567: "1,234,567", -5: "-5", -999: "-999", -1000: "-1,000"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestRateAndLeft(t *testing.T) {
	if got, want := rate(3000, 2*time.Second), "1,500 rows/s"; got != want {
		t.Errorf("rate = %q, want %q", got, want)
	}
	if got := rate(1, 0); got != "-" {
		t.Errorf("rate without time = %q, want -", got)
	}
	if got, want := left(10*time.Second, 0.25), "30s"; got != want {
		t.Errorf("left = %q, want %q", got, want)
	}
	if got := left(time.Second, 0); got != "?" {
		t.Errorf("left at the start = %q, want ?", got)
	}
}

func TestCutLast(t *testing.T) {
	for in, want := range map[string][2]string{"log1p": {"", "log1p"}, "amount=log1p": {"amount", "log1p"}, "a=b=raw": {"a=b", "raw"}, "=raw": {"", "raw"}} {
		if name, value := cutLast(in); name != want[0] || value != want[1] {
			t.Errorf("cutLast(%q) = %q, %q, want %q", in, name, value, want)
		}
	}
}

func TestShorten(t *testing.T) {
	if got, want := shorten([]string{"a", "b"}), "a, b"; got != want {
		t.Errorf("shorten = %q, want %q", got, want)
	}
	if got, want := shorten(strings.Split("abcdefghij", "")), "a, b, c, d, e, f, g, h and 2 more"; got != want {
		t.Errorf("shorten = %q, want %q", got, want)
	}
}

// Each verb has a help page with its example, a short line in the list, and no
// flag without a description.
func TestHelp(t *testing.T) {
	root := (&app{}).root()
	for _, c := range root.Commands() {
		t.Run(c.Name(), func(t *testing.T) {
			code, stdout, stderr := run(c.Name(), "--help")
			if code != ExitDone || stderr != "" || !strings.Contains(stdout, c.Short) {
				t.Errorf("--help: code %d, stderr %q, stdout %q", code, stderr, stdout)
			}
			if c.Short == "" || strings.HasSuffix(c.Short, ".") {
				t.Errorf("Short = %q, want a line without a full stop", c.Short)
			}
		})
	}
}

// Data goes to stdout and everything else to stderr.
func TestStreams(t *testing.T) {
	t.Chdir(t.TempDir())
	const pipe = "source: {generate: {rows: 10}}\nsinks: [{parquet: {path: x.parquet}}]\n"
	if err := os.WriteFile("x.yaml", []byte(pipe), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string // what each holds; "" means that it is empty
	}{
		{"data", []string{"list"}, 0, "generate", ""},
		{"a check", []string{"check", "x.yaml"}, 0, "runnable", ""},
		{"a run", []string{"run", "x.yaml"}, 0, "", "10 rows"},
		{"a quiet run", []string{"run", "-q", "--overwrite", "x.yaml"}, 0, "", ""},
		{"JSON", []string{"run", "--json", "--overwrite", "x.yaml"}, 0, `"rows":10`, ""},
		{"an error", []string{"inspect", "absent.elbo"}, ExitConfig, "", "absent.elbo: no such file"},
		{"quiet errors too", []string{"inspect", "-q", "absent.elbo"}, ExitConfig, "", "absent.elbo: no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, stdout, stderr := run(c.args...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for name, pair := range map[string][2]string{"stdout": {stdout, c.stdout}, "stderr": {stderr, c.stderr}} {
				if got, want := pair[0], pair[1]; (want == "") != (got == "") || !strings.Contains(got, want) {
					t.Errorf("%s = %q, want %q in it", name, got, want)
				}
			}
		})
	}
}

// A training on many constant columns does not drown its user in warnings.
func TestManyWarnings(t *testing.T) {
	var stderr bytes.Buffer
	a := &app{err: &stderr, out: &stderr}
	for _, f := range []struct{ warnings, lines int }{{mostWarnings, mostWarnings}, {200, mostWarnings + 1}} {
		stderr.Reset()
		m := &vae.Model{}
		for i := range f.warnings {
			m.Training.Warnings = append(m.Training.Warnings, fmt.Sprintf("column %d is constant", i))
		}
		a.warnings(m, "x.elbo")
		if got := strings.Count(stderr.String(), "\n"); got != f.lines {
			t.Errorf("%d warnings: %d lines, want %d", f.warnings, got, f.lines)
		}
	}
}

func ExampleMain() {
	fmt.Println("exit code", Main([]string{"inspect", "absent/m.elbo"}, os.Stdout, os.Stdout))
	// Output:
	// elbo: inspect: model: absent/m.elbo: no such file; `elbo train` makes one
	// exit code 3
}
