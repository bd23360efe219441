package parquet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/internal/parquetio"
)

// VerifyOptions say how a folder is looked at.
type VerifyOptions struct {
	// Deep decodes every page, which checks its CRC; otherwise only footers are read.
	Deep bool
	// Dead is the folder of the dead letters that belong to the rows, to be compared
	// with them; "" means none.
	Dead string
	// FS is the file system; nil means durable.OS.
	FS durable.FS
}

// The kinds of a Fault.
const (
	FaultGap        = "gap"        // a range that no file holds lies before this file
	FaultOverlap    = "overlap"    // this file begins before the one before it ends
	FaultUnreadable = "unreadable" // it is not whole
	FaultName       = "name"       // its name or folder is not what its footer says
	FaultForeign    = "foreign"    // an ExactSink did not write it
	FaultLetters    = "letters"    // its dead letters are missing, or are of no rows
)

// A Fault is something that is wrong with a file.
type Fault struct {
	Kind   string `json:"kind"`
	Path   string `json:"path"`
	First  int64  `json:"first"` // the range that is missing or doubled; 0 for other kinds
	Next   int64  `json:"next"`
	Detail string `json:"detail"`
}

// A PartitionReport is what a folder holds of a partition.
type PartitionReport struct {
	Partition string `json:"partition"`
	Files     int    `json:"files"`
	Rows      int64  `json:"rows"`
	First     int64  `json:"first"` // where the first file begins
	Next      int64  `json:"next"`  // where the last one ends
	Schemas   int    `json:"schemas"`
	// LetterRows are the rows of dead letters, with VerifyOptions.Dead.
	LetterRows int64   `json:"dead_letters"`
	Faults     []Fault `json:"faults"`
}

// A Report is what Verify found.
type Report struct {
	Path       string            `json:"path"`
	Whole      bool              `json:"whole"` // no fault
	Partitions []PartitionReport `json:"partitions"`
	// Other are faults of files of which nobody knows the partition.
	Other []Fault `json:"other_faults"`
	// Temporary are drafts: of a run that is under way, or left by one that was
	// killed. They are no fault.
	Temporary []string `json:"temporary"`
}

// Faults returns all faults.
func (r *Report) Faults() []Fault {
	all := slices.Clone(r.Other)
	for _, p := range r.Partitions {
		all = append(all, p.Faults...)
	}
	return all
}

// ErrNoRanges is in the chain of the error for a folder without any file of an
// ExactSink.
var ErrNoRanges = errors.New("no files of an exactly-once Parquet sink")

// Verify looks at every file below a folder of an ExactSink, or below a part of
// one, and reports what is wrong with them. The error is for what could not be
// looked at. It changes nothing, and may be called while the sink writes. That the
// last file of a partition is missing nobody can tell, but by its dead letters.
func Verify(ctx context.Context, dir string, o VerifyOptions) (*Report, error) {
	if o.FS == nil {
		o.FS = durable.OS
	}
	v := verifier{o: o, parts: make(map[string][]rangeFile)}
	v.report = &Report{Path: dir, Partitions: []PartitionReport{}, Other: []Fault{}, Temporary: []string{}}
	if there, err := o.FS.Exists(dir); err != nil || !there {
		return nil, errors.Join(err, fmt.Errorf("%s: %w", dir, fs.ErrNotExist))
	}
	if err := v.walk(ctx, filepath.Clean(dir)); err != nil {
		return nil, err
	}
	foreign := 0
	for _, f := range v.report.Other {
		if f.Kind == FaultForeign {
			foreign++
		}
	}
	if len(v.parts) == 0 && foreign == len(v.report.Other) {
		return nil, fmt.Errorf("%s holds %w (and %d other Parquet files)", dir, ErrNoRanges, foreign)
	}
	for partition, files := range v.parts {
		v.report.Partitions = append(v.report.Partitions, v.judge(partition, files))
	}
	slices.SortFunc(v.report.Partitions, func(a, b PartitionReport) int { return comparePartitions(a.Partition, b.Partition) })
	v.place()
	if err := v.letters(ctx, filepath.Clean(dir)); err != nil {
		return nil, err
	}
	v.report.Whole = len(v.report.Faults()) == 0
	return v.report, nil
}

// comparePartitions orders "t/2" before "t/10".
func comparePartitions(a, b string) int {
	i, j := strings.LastIndexByte(a, '/')+1, strings.LastIndexByte(b, '/')+1
	if i > 0 && i == j && a[:i] == b[:j] {
		if c := cmp.Compare(len(a), len(b)); c != 0 {
			return c
		}
	}
	return strings.Compare(a, b)
}

type verifier struct {
	o      VerifyOptions
	report *Report
	parts  map[string][]rangeFile
}

// A rangeFile is a file that can be read.
type rangeFile struct {
	path string
	Range
	fault string // what is wrong with its name
}

// walk looks at every name below dir.
func (v *verifier) walk(ctx context.Context, dir string) error {
	names, err := v.o.FS.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list folder %s: %w", dir, err)
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := filepath.Join(dir, name)
		if final, _, ok := draftOf(name); ok && strings.HasSuffix(final, ".parquet") {
			v.report.Temporary = append(v.report.Temporary, path)
			continue
		}
		_, ranged := ParseRangeName(name)
		if !ranged {
			isFolder, err := v.below(ctx, path)
			if err != nil {
				return err
			}
			if isFolder || !strings.HasSuffix(name, ".parquet") {
				continue
			}
		}
		if err := v.file(ctx, path, ranged); err != nil {
			return err
		}
	}
	return nil
}

// below walks a folder, and says whether the path is one.
func (v *verifier) below(ctx context.Context, path string) (bool, error) {
	err := v.walk(ctx, path)
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return true, err
}

// file reads one file. ranged says that it has the name of a range.
func (v *verifier) file(ctx context.Context, path string, ranged bool) error {
	r, isRange, err := v.read(ctx, path)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, fs.ErrNotExist):
		return nil // gone meanwhile
	case err != nil && !isRange && !ranged:
		v.report.Other = append(v.report.Other, Fault{Kind: FaultForeign, Path: path, Detail: err.Error()})
		return nil
	case err != nil:
		v.report.Other = append(v.report.Other, Fault{Kind: FaultUnreadable, Path: path, Detail: err.Error()})
		return nil
	}
	f := rangeFile{path: path, Range: r}
	if name := RangeName(r.First); filepath.Base(path) != name {
		f.fault = "its footer says that its name is " + name
	}
	full, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if folder := PartitionFolder(r.Partition); !strings.HasSuffix(filepath.Dir(full), string(filepath.Separator)+folder) {
		f.fault = fmt.Sprintf("its footer says that it is of partition %q, which is in %s", r.Partition, folder)
	}
	v.parts[r.Partition] = append(v.parts[r.Partition], f)
	return nil
}

// read reads a file's range, and with Deep all of it.
func (v *verifier) read(ctx context.Context, path string) (r Range, isRange bool, err error) {
	in, err := v.o.FS.View(path)
	if err != nil {
		return r, false, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	f, err := parquetio.Open(in, in.Size(), path)
	if err != nil {
		return r, false, err
	}
	_, isRange = f.Metadata()[MetaPartition]
	if r, err = ReadRange(f); err != nil || !v.o.Deep {
		return r, isRange, err
	}
	for g := range f.Groups() {
		for rec, err := range f.Read(ctx, g, parquetio.ReadOptions{}) {
			if err != nil {
				return r, isRange, err
			}
			rec.Release()
		}
	}
	return r, isRange, nil
}

// judge looks at whether the files of a partition follow one another.
func (v *verifier) judge(partition string, files []rangeFile) PartitionReport {
	slices.SortFunc(files, func(a, b rangeFile) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Next, b.Next), strings.Compare(a.path, b.path))
	})
	p := PartitionReport{Partition: partition, Files: len(files), First: files[0].First, Faults: []Fault{}}
	schemas := make(map[string]bool)
	for i, f := range files {
		p.Rows += f.Rows
		schemas[f.Schema] = true
		if f.fault != "" {
			p.Faults = append(p.Faults, Fault{Kind: FaultName, Path: f.path, Detail: f.fault})
		}
		switch {
		case i == 0 || f.First == p.Next:
		case f.First < p.Next:
			p.Faults = append(p.Faults, Fault{Kind: FaultOverlap, Path: f.path, First: f.First, Next: min(p.Next, f.Next),
				Detail: fmt.Sprintf("positions %d to %d are in an earlier file too", f.First, min(p.Next, f.Next)-1)})
		case f.Kind != KindLetters: // there are dead letters now and then only
			p.Faults = append(p.Faults, Fault{Kind: FaultGap, Path: f.path, First: p.Next, Next: f.First,
				Detail: fmt.Sprintf("positions %d to %d before it are in no file", p.Next, f.First-1)})
		}
		p.Next = max(p.Next, f.Next)
	}
	p.Schemas = len(schemas)
	return p
}

// place gives each file that cannot be read to the partition whose folder it is in.
func (v *verifier) place() {
	owner := make(map[string]int)
	for i, p := range v.report.Partitions {
		for _, f := range v.parts[p.Partition] {
			owner[filepath.Dir(f.path)] = i
		}
	}
	v.report.Other = slices.DeleteFunc(v.report.Other, func(f Fault) bool {
		i, ok := owner[filepath.Dir(f.Path)]
		if ok = ok && f.Kind == FaultUnreadable; ok {
			p := &v.report.Partitions[i]
			p.Faults = append(p.Faults, f)
		}
		return ok
	})
}

// letters compares the files of dead letters with those of rows.
func (v *verifier) letters(ctx context.Context, dir string) error {
	if v.o.Dead == "" {
		return nil
	}
	own := verifier{o: v.o, report: &Report{}, parts: make(map[string][]rangeFile)}
	if there, err := v.o.FS.Exists(v.o.Dead); err != nil {
		return err
	} else if there {
		if err := own.walk(ctx, filepath.Clean(v.o.Dead)); err != nil {
			return err
		}
	}
	v.report.Other = append(v.report.Other, own.report.Other...)
	v.report.Temporary = append(v.report.Temporary, own.report.Temporary...)
	for i := range v.report.Partitions {
		p := &v.report.Partitions[i]
		v.compare(p, own.parts[p.Partition], own.report.Temporary)
		delete(own.parts, p.Partition)
	}
	for _, files := range own.parts {
		for _, l := range files {
			if f, ok := v.orphan(dir, l); ok {
				v.report.Other = append(v.report.Other, f)
			}
		}
	}
	slices.SortFunc(v.report.Other, func(a, b Fault) int { return strings.Compare(a.Path, b.Path) })
	return nil
}

// compare looks at the dead letters of a partition. Some may still be drafts: the
// next run gives those their names.
func (v *verifier) compare(p *PartitionReport, letters []rangeFile, drafts []string) {
	beside, used := make(map[string]rangeFile), make(map[string]bool)
	for _, l := range letters {
		beside[l.Letters] = l
		p.LetterRows += l.Rows
	}
	for _, f := range v.parts[p.Partition] {
		l, ok := beside[f.Letters]
		switch {
		case f.Letters == "":
		case !ok && slices.ContainsFunc(drafts, func(d string) bool { return strings.HasSuffix(d, durable.TempInfix+f.Letters) }):
		case !ok:
			p.Faults = append(p.Faults, Fault{Kind: FaultLetters, Path: f.path, Detail: "its dead letters are not in " + v.o.Dead})
		case l.First != f.First || l.Next != f.Next || l.fault != "":
			p.Faults = append(p.Faults, Fault{Kind: FaultLetters, Path: l.path, Detail: "its range or name is not that of " + f.path})
		}
		used[f.Letters] = true
	}
	for _, l := range beside {
		if used[l.Letters] {
			continue
		}
		seen := slices.ContainsFunc(v.parts[p.Partition], func(f rangeFile) bool { return f.First == l.First })
		if f, ok := v.orphan(v.report.Path, l); ok || seen {
			p.Faults = append(p.Faults, f)
		}
	}
	slices.SortStableFunc(p.Faults, func(a, b Fault) int { return strings.Compare(a.Path, b.Path) })
}

// orphan returns the fault of dead letters without rows; ok is false when the rows
// have come since they were looked for.
func (v *verifier) orphan(dir string, l rangeFile) (f Fault, ok bool) {
	there, err := v.o.FS.Exists(filepath.Join(dir, PartitionFolder(l.Partition), RangeName(l.First)))
	return Fault{Kind: FaultLetters, Path: l.path, Detail: "these dead letters are of no file of rows in " + dir}, err != nil || !there
}
