package e2e_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// How our Go reads, in numbers.
const (
	maxFileLines     = 800
	maxFunctionLines = 100
	minExamples      = 20 // runnable ones, with an Output comment
)

// longFunctions may be longer than maxFunctionLines: tables, each with its
// folder and name.
var longFunctions = map[string]bool{}

// root returns the folder of go.mod.
func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test's folder")
		}
		dir = filepath.Dir(dir)
	}
}

// source is a parsed Go file.
type source struct {
	path string // from the root, with slashes
	text []byte
	file *ast.File
	fset *token.FileSet
}

func (s source) test() bool      { return strings.HasSuffix(s.path, "_test.go") }
func (s source) generated() bool { return ast.IsGenerated(s.file) }
func (s source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(n.Pos()).Line)
}

// sources parses every Go file of the repository, except in folders that the go
// command passes over.
func sources(t *testing.T) (out []source) {
	t.Helper()
	top := root(t)
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != top && (name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		s, err := parse(filepath.ToSlash(rel), b)
		out = append(out, s)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func parse(path string, text []byte) (source, error) {
	s := source{path: path, text: text, fset: token.NewFileSet()}
	var err error
	s.file, err = parser.ParseFile(s.fset, path, text, parser.ParseComments)
	return s, err
}

// lengths returns what is too long in a file.
func lengths(s source) (faults []string) {
	if s.generated() {
		return nil
	}
	if n := bytes.Count(s.text, []byte("\n")); n > maxFileLines {
		faults = append(faults, fmt.Sprintf("%s: %d lines, want at most %d", s.path, n, maxFileLines))
	}
	for _, d := range s.file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		n := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1
		if n > maxFunctionLines && !longFunctions[filepath.Dir(s.path)+"."+f.Name.Name] {
			faults = append(faults, fmt.Sprintf("%s: function %s has %d lines, want at most %d", s.at(f), f.Name.Name, n, maxFunctionLines))
		}
	}
	return faults
}

// undocumented returns the exported names of a file that have no doc comment.
// Fields and interface methods count when their type's own comment is all there is.
func undocumented(s source) (faults []string) {
	if s.test() || s.file.Name.Name == "main" {
		return nil
	}
	miss := func(n ast.Node, what, name string) {
		faults = append(faults, fmt.Sprintf("%s: exported %s %s has no doc comment", s.at(n), what, name))
	}
	for _, d := range s.file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) && !wellKnown(d) {
				miss(d, "function", d.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					if spec.Name.IsExported() && spec.Doc == nil && d.Doc == nil {
						miss(spec, "type", spec.Name.Name)
					}
				case *ast.ValueSpec:
					for _, name := range spec.Names {
						if name.IsExported() && spec.Doc == nil && spec.Comment == nil && d.Doc == nil {
							miss(spec, "name", name.Name)
						}
					}
				}
			}
		}
	}
	return faults
}

// exportedReceiver says whether a function is not a method of a hidden type.
func exportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return true
	}
	t := f.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return true
		}
	}
}

// wellKnown says whether a method's name is its contract.
func wellKnown(f *ast.FuncDecl) bool {
	switch f.Name.Name {
	case "String", "Error", "Unwrap", "Is", "Len", "Less", "Swap":
		return f.Recv != nil
	}
	return false
}

func TestLengths(t *testing.T) {
	for _, s := range sources(t) {
		for _, fault := range lengths(s) {
			t.Error(fault)
		}
	}
}

func TestEverythingIsDocumented(t *testing.T) {
	documented, seen := map[string]bool{}, map[string]string{}
	for _, s := range sources(t) {
		for _, fault := range undocumented(s) {
			t.Error(fault)
		}
		if dir := filepath.Dir(s.path); !s.test() {
			seen[dir] = s.path
			documented[dir] = documented[dir] || s.file.Doc != nil
		}
	}
	for dir, path := range seen {
		if !documented[dir] {
			t.Errorf("%s: package has no doc comment", path)
		}
	}
}

// examples counts a file's Examples that have an Output comment.
func examples(s source) (n int) {
	for _, d := range s.file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Example") {
			continue
		}
		for _, c := range s.file.Comments {
			text := strings.ToLower(strings.TrimSpace(c.Text()))
			if c.Pos() > f.Pos() && c.End() < f.End() && (strings.HasPrefix(text, "output:") || strings.HasPrefix(text, "unordered output:")) {
				n++
				break
			}
		}
	}
	return n
}

func TestEntryPointsHaveExamples(t *testing.T) {
	total := 0
	for _, s := range sources(t) {
		if s.test() {
			total += examples(s)
		}
	}
	t.Logf("%d runnable examples", total)
	if total < minExamples {
		t.Errorf("%d runnable examples in the repository, want at least %d: give each entry point one", total, minExamples)
	}
}

// TestPlantedFaults is the test of the tests above.
func TestPlantedFaults(t *testing.T) {
	text := "package x\n\nfunc Bare() {\n" + strings.Repeat("\tprintln()\n", maxFunctionLines) + "}\n\ntype Open struct{}\n\nconst Loose = 1\n" +
		"\nfunc (Open) Method() {}\n\ntype hidden int\n\nfunc (hidden) Method() {}\n" + strings.Repeat("\n", maxFileLines)
	s, err := parse("x/x.go", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(append(lengths(s), undocumented(s)...), "\n")
	for _, want := range []string{"lines, want at most 800", "function Bare has 102 lines", "exported function Bare", "exported type Open", "exported name Loose", "exported function Method"} {
		if strings.Count(got, want) != 1 {
			t.Errorf("faults of a bad file: %d times %q in:\n%s", strings.Count(got, want), want, got)
		}
	}
	e, err := parse("x/x_test.go", []byte("package x\n\nfunc ExampleA() {\n\t// Output:\n\t// 1\n}\n\nfunc ExampleB() {}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if n := examples(e); n != 1 {
		t.Errorf("examples = %d, want 1", n)
	}
}

// TestArchitectureNamesFilesThatExist holds the walk of docs/architecture.md to
// the code: every path in backquotes that ends in .go must be there.
func TestArchitectureNamesFilesThatExist(t *testing.T) {
	top := root(t)
	text, err := os.ReadFile(filepath.Join(top, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for i, quoted := range strings.Split(string(text), "`") {
		if i%2 == 0 || !strings.HasSuffix(quoted, ".go") || !strings.Contains(quoted, "/") {
			continue
		}
		named++
		if _, err := os.Stat(filepath.Join(top, filepath.FromSlash(quoted))); err != nil {
			t.Errorf("docs/architecture.md names %s: %v", quoted, err)
		}
	}
	if named < 10 {
		t.Errorf("docs/architecture.md names %d files, want the walk of a batch", named)
	}
}
