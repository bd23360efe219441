package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/elbo-stream/elbo/internal/cli"
	sink "github.com/elbo-stream/elbo/sinks/parquet"
	source "github.com/elbo-stream/elbo/sources/parquet"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"elbo": main,
		"fixture": func() {
			if err := fixture(os.Args[1:]); err != nil {
				fmt.Fprintln(os.Stderr, "fixture:", err)
				os.Exit(1)
			}
		},
	})
}

// shared are the files that every script finds in its folder: 3,000 normal
// payments, 2,000 with planted anomalies, and a small model of the first.
var shared = []string{"normal.parquet", "payments.parquet", "pay.elbo"}

// prepare makes the shared files with the program itself.
func prepare(t *testing.T, dir string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	generate := "source: {generate: {rows: %d, seed: %d, anomaly_rate: %g, label: true}}\nsinks: [{parquet: {path: %q}}]\n"
	for name, text := range map[string]string{
		"normal.yaml":   fmt.Sprintf(generate, 3000, 1, 0.0, at("normal.parquet")),
		"payments.yaml": fmt.Sprintf(generate, 2000, 2, 0.02, at("payments.parquet")),
	} {
		if err := os.WriteFile(at(name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"run", "-q", at("normal.yaml")},
		{"run", "-q", at("payments.yaml")},
		{"train", "-q", "-i", at("normal.parquet"), "-o", at("pay.elbo"), "--ignore", "id,time,label,anomaly_kind",
			"--seed", "1", "--steps", "200", "--batch", "64", "--hidden", "16", "--latent", "3"},
	} {
		var stderr strings.Builder
		if code := cli.Main(args, &stderr, &stderr); code != 0 {
			t.Fatalf("elbo %s: exit code %d\n%s", strings.Join(args, " "), code, stderr.String())
		}
	}
}

// TestScripts runs the promises of the command line, one script each.
func TestScripts(t *testing.T) {
	data := t.TempDir()
	prepare(t, data)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			examples, err := filepath.Abs(filepath.Join("..", "..", "examples"))
			if err != nil {
				return err
			}
			env.Setenv("EXAMPLES", examples)
			for _, name := range shared {
				b, err := os.ReadFile(filepath.Join(data, name))
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(env.WorkDir, name), b, 0o666); err != nil {
					return err
				}
			}
			return nil
		},
		Condition: condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "signal": signalled, "disk": disk, "same": same,
		},
	})
}

// exits CODE PROGRAM ARGS... runs a program and checks its exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	code := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// signalled is signal NAME CODE GLOB PROGRAM ARGS...: it starts a program, sends
// the signal as soon as a file that matches GLOB is there, and checks the exit
// code (-1 for a program that died of the signal). Its stderr goes to the file
// signal.stderr.
func signalled(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: signal INT|TERM|KILL CODE GLOB PROGRAM ARGS...")
	}
	signals := map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM, "KILL": os.Kill}
	cmd := exec.Command(args[3], args[4:]...)
	cmd.Dir = ts.MkAbs(".")
	stderr, err := os.Create(ts.MkAbs("signal.stderr"))
	ts.Check(err)
	defer stderr.Close()
	cmd.Stderr = stderr
	ts.Check(cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	if err := await(done, ts.MkAbs(args[2])); err != nil {
		_ = cmd.Process.Kill() // it may have ended
		ts.Fatalf("%v", err)
	}
	ts.Check(cmd.Process.Signal(signals[args[0]]))
	select {
	case <-done:
	case <-time.After(time.Minute):
		_ = cmd.Process.Kill() // the test fails anyhow
		ts.Fatalf("%s still runs a minute after the signal", args[3])
	}
	if code := cmd.ProcessState.ExitCode(); fmt.Sprint(code) != args[1] {
		ts.Fatalf("exit code %d, want %s\n%s", code, args[1], ts.ReadFile("signal.stderr"))
	}
}

// await returns when a file matches glob, or with an error when done was sent to
// or a minute has passed.
func await(done <-chan error, glob string) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.After(time.Minute)
	for {
		select {
		case err := <-done:
			return fmt.Errorf("the program ended before there was %s: %v", glob, err)
		case <-late:
			return fmt.Errorf("no %s after a minute", glob)
		case <-tick.C:
			if found, err := filepath.Glob(glob); err != nil || len(found) > 0 {
				return err
			}
		}
	}
}

// disk FOLDER KIB mounts a file system of that size until the script ends.
func disk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: disk FOLDER KIB")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(mount(dir, args[1]))
	ts.Defer(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			ts.Logf("umount %s: %v: %s", dir, err, out)
		}
	})
}

func mount(dir, kib string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+kib+"k", "tmpfs", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("mount: %w: %s", err, out)
	}
	return nil
}

// condition answers [mount]: whether this user may mount a small file system.
func condition(name string) (bool, error) {
	if name != "mount" {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	dir, err := os.MkdirTemp("", "elbo-mount")
	if err != nil {
		return false, err
	}
	able := mount(dir, "64") == nil
	if able {
		err = exec.Command("umount", dir).Run()
	}
	return able, errors.Join(err, os.Remove(dir))
}

// same FILE FILE fails unless two files have the same bytes; cmp would print
// them.
func same(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: same FILE FILE")
	}
	if (ts.ReadFile(args[0]) == ts.ReadFile(args[1])) == neg {
		ts.Fatalf("%s and %s: same bytes = %v", args[0], args[1], neg)
	}
}

// fixture makes odd inputs and shows columns:
//
//	fixture null|nan|inf|mixed|extra COLUMN IN OUT   change a column, or add one
//	fixture holes COLUMN IN OUT                every third value of any column is null
//	fixture head ROWS IN OUT                   keep the first rows
//	fixture column COLUMN FILE...              print every value, floats as bits
//	fixture flip FILE OFFSET                   invert a byte; from the end below 0
//	fixture cut FILE BYTES                     cut a file short
//	fixture replace FILE OLD NEW               replace text in a file
//	fixture exact DIR PARTITION FIRST NEXT...  files of an exactly-once sink, one
//	                                           between each two positions
func fixture(args []string) error {
	if len(args) < 3 {
		return errors.New("see the comment of fixture")
	}
	switch what := args[0]; what {
	case "column":
		return printColumn(args[1], args[2:])
	case "flip", "cut", "replace":
		return damage(what, args[1], args[2:])
	case "exact":
		return exactFiles(args[1], args[2], args[3:])
	default:
		return rewrite(what, args[1], args[2], args[3])
	}
}

func damage(what, file string, args []string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if what == "replace" {
		if !strings.Contains(string(b), args[0]) {
			return fmt.Errorf("%s does not hold %q", file, args[0])
		}
		return os.WriteFile(file, []byte(strings.Replace(string(b), args[0], args[1], 1)), 0o666)
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if n < 0 {
		n += len(b)
	}
	if what == "cut" {
		b = b[:n]
	} else {
		b[n] ^= 0xff
	}
	return os.WriteFile(file, b, 0o666)
}

// records reads whole files.
func records(files []string) (recs []arrow.Record, schema *arrow.Schema, err error) {
	ctx := context.Background()
	src, err := source.New(source.Config{Paths: files})
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if schema, err = src.Schema(ctx); err != nil {
		return nil, nil, err
	}
	for b, err := range src.Batches(ctx, nil) {
		if err != nil {
			return nil, nil, err
		}
		recs = append(recs, b.Record)
	}
	return recs, schema, nil
}

func printColumn(column string, files []string) error {
	recs, schema, err := records(files)
	if err != nil {
		return err
	}
	at := schema.FieldIndices(column)
	if len(at) != 1 {
		return fmt.Errorf("no column %q among %v", column, schema)
	}
	for _, rec := range recs {
		col := rec.Column(at[0])
		for i := range col.Len() {
			switch c := col.(type) {
			case *array.Float32:
				fmt.Printf("%08x %v\n", math.Float32bits(c.Value(i)), c.IsValid(i))
			default:
				fmt.Println(col.ValueStr(i))
			}
		}
	}
	return nil
}

func rewrite(what, column, in, out string) error {
	recs, schema, err := records([]string{in})
	if err != nil {
		return err
	}
	left := int64(math.MaxInt64)
	if what == "head" {
		if left, err = strconv.ParseInt(column, 10, 64); err != nil {
			return err
		}
	}
	if what == "extra" {
		schema = arrow.NewSchema(append([]arrow.Field{{Name: column, Type: arrow.PrimitiveTypes.Float64, Nullable: true}}, schema.Fields()...), nil)
	}
	if what == "holes" {
		fields := schema.Fields()
		fields[schema.FieldIndices(column)[0]].Nullable = true
		schema = arrow.NewSchema(fields, nil)
	}
	s, err := sink.New(sink.Config{Path: out, Overwrite: true})
	if err != nil {
		return err
	}
	if err := s.Bind(schema); err != nil {
		return err
	}
	ctx := context.Background()
	for i, rec := range recs {
		rec = rec.NewSlice(0, min(left, rec.NumRows()))
		left -= rec.NumRows()
		if rec, err = changed(what, column, rec, schema); err != nil {
			return err
		}
		if err := s.Write(ctx, uint64(i+1), rec); err != nil {
			return err
		}
	}
	return errors.Join(s.Flush(ctx), s.Close())
}

// holed makes every third value of a column null.
func holed(column string, rec arrow.Record, schema *arrow.Schema) (arrow.Record, error) {
	cols, at := append([]arrow.Array(nil), rec.Columns()...), schema.FieldIndices(column)[0]
	b := array.NewBuilder(memory.DefaultAllocator, cols[at].DataType())
	for i := range cols[at].Len() {
		if i%3 == 0 {
			b.AppendNull()
		} else if err := b.AppendValueFromString(cols[at].ValueStr(i)); err != nil {
			return nil, err
		}
	}
	cols[at] = b.NewArray()
	return array.NewRecord(schema, cols, rec.NumRows()), nil
}

// changed replaces every third value of a float64 column, or all for null; mixed
// makes the others whole numbers.
func changed(what, column string, rec arrow.Record, schema *arrow.Schema) (arrow.Record, error) {
	if what == "holes" {
		return holed(column, rec, schema)
	}
	cols := append([]arrow.Array(nil), rec.Columns()...)
	odd, ok := map[string]float64{"null": 0, "nan": math.NaN(), "inf": math.Inf(1), "mixed": math.NaN(), "extra": 7}[what]
	if !ok {
		return rec, nil
	}
	b := array.NewFloat64Builder(memory.DefaultAllocator)
	if what == "extra" {
		for range int(rec.NumRows()) {
			b.Append(odd)
		}
		return array.NewRecord(schema, append([]arrow.Array{b.NewArray()}, cols...), rec.NumRows()), nil
	}
	at := schema.FieldIndices(column)[0]
	old, ok := cols[at].(*array.Float64)
	if !ok {
		return nil, fmt.Errorf("column %q is not float64", column)
	}
	for i := range old.Len() {
		switch {
		case what == "null":
			b.AppendNull()
		case i%3 == 0:
			b.Append(odd)
		case what == "mixed":
			b.Append(5)
		default:
			b.Append(old.Value(i))
		}
	}
	cols[at] = b.NewArray()
	return array.NewRecord(schema, cols, rec.NumRows()), nil
}
