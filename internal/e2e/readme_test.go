package e2e_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// runMark stands on the line before a fenced sh block that this test runs.
const runMark = "<!-- run -->"

// A block is the commands of one marked fence.
type block struct {
	line     int // of the fence
	commands []string
}

// marked returns the marked sh blocks of a Markdown text. Only lines that begin
// with "go " or "elbo " are commands (with their continuations, and without a
// comment that follows two spaces); a mark without an sh block is an error.
func marked(text string) (blocks []block, err error) {
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		if strings.TrimSpace(lines[i]) != runMark {
			continue
		}
		i++
		if i == len(lines) || strings.TrimSpace(lines[i]) != "```sh" {
			return nil, fmt.Errorf("line %d: %s without ```sh on the next line", i, runMark)
		}
		b := block{line: i + 1}
		for i++; ; i++ {
			if i == len(lines) {
				return nil, fmt.Errorf("line %d: fence is not closed", b.line)
			}
			line := strings.TrimSpace(lines[i])
			if line == "```" {
				break
			}
			if !strings.HasPrefix(line, "go ") && !strings.HasPrefix(line, "elbo ") {
				continue
			}
			for strings.HasSuffix(line, "\\") && i+1 < len(lines) {
				i++
				line = strings.TrimSuffix(line, "\\") + " " + strings.TrimSpace(lines[i])
			}
			command, _, _ := strings.Cut(line, "  #")
			b.commands = append(b.commands, command)
		}
		if len(b.commands) == 0 {
			return nil, fmt.Errorf("line %d: block has no command that begins with go or elbo", b.line)
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}

func TestMarked(t *testing.T) {
	got, err := marked("x\n```sh\nelbo not run\n```\n<!-- run -->\n```sh\n# words\ngo build ./...\ncd x\nelbo demo \\\n  --rows 5  # few\n```\n")
	want := []string{"go build ./...", "elbo demo  --rows 5"}
	if err != nil || len(got) != 1 || got[0].line != 6 || !slices.Equal(got[0].commands, want) {
		t.Errorf("marked = %+v, %v, want line 6 with %q", got, err, want)
	}
	for _, bad := range []string{runMark, runMark + "\ntext", runMark + "\n```sh\nelbo x", runMark + "\n```sh\nls\n```"} {
		if _, err := marked(bad); err == nil {
			t.Errorf("marked(%q): got no error", bad)
		}
	}
}

// TestReadmeCommands runs the marked blocks of README.md, in order, in one copy
// of the repository, so that a block may use files that an earlier one wrote.
func TestReadmeCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: -short; the README's commands were not run")
	}
	top := root(t)
	text, err := os.ReadFile(filepath.Join(top, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := marked(string(text))
	if err != nil {
		t.Fatalf("README.md: %v", err)
	}
	if len(blocks) == 0 {
		t.Fatalf("README.md has no block marked %s: none of its commands would be tested", runMark)
	}
	if _, err := exec.LookPath("sh"); err != nil || runtime.GOOS == "windows" {
		t.Skip("SKIPPED: no POSIX shell")
	}
	dir, bin := t.TempDir(), t.TempDir()
	copyRepository(t, top, dir)
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "elbo"), "./cmd/elbo")
	build.Dir = top
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build elbo: %v\n%s", err, out)
	}
	for _, b := range blocks {
		for _, command := range b.commands {
			if strings.HasPrefix(command, "go test") {
				t.Logf("README.md: block at line %d: %s is this very test run, passed over", b.line, command)
				continue
			}
			runCommand(t, dir, bin, b.line, command)
		}
	}
}

func runCommand(t *testing.T, dir, bin string, line int, command string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", command)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"), "NO_COLOR=1", "GOBIN="+bin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("README.md: block at line %d: %s: %v\n%s", line, command, err, out)
	}
	t.Logf("%s\n%s", command, out)
}

// copyRepository copies what a reader who has just cloned sees.
func copyRepository(t *testing.T, from, to string) {
	t.Helper()
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = from
	out, err := list.Output()
	if err != nil {
		t.Skipf("SKIPPED: git does not list the files: %v", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		info, err := os.Lstat(filepath.Join(from, name))
		if err != nil || !info.Mode().IsRegular() { // deleted but not yet committed, or a link
			continue
		}
		b, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o777)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), b, info.Mode().Perm()|fs.FileMode(0o200))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
