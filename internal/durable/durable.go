// Package durable writes files that are either whole under their final name or
// not there at all: temporary name, write, fsync, rename, fsync of the folder.
//
//	f, err := durable.Create(durable.OS, "scores/part-0.parquet", durable.Options{})
//	...
//	defer f.Abort()          // does nothing after Commit
//	f.Write(bytes)
//	return f.Commit()
//
// A draft for a name that others may want too is published with Link instead,
// which never replaces a file, however many try at once; see Draft.Link.
//
// The mistake to avoid is writing to a final name with os.Create: an
// interrupted run then leaves a file that looks finished.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// FS is the part of a file system that durable writing needs. OS is the real
// one; pipelinetest.FS fails and crashes on demand. Paths are those of package
// os. Errors satisfy errors.Is with fs.ErrNotExist and fs.ErrExist where they
// apply.
type FS interface {
	// Create makes a new file for writing; it fails when the file exists.
	Create(path string) (File, error)
	Rename(from, to string) error
	Remove(path string) error
	MkdirAll(path string) error
	// SyncDir makes the names in a folder durable.
	SyncDir(path string) error
	// ReadDir lists a folder's names, sorted.
	ReadDir(path string) ([]string, error)
	Exists(path string) (bool, error)
	ReadFile(path string) ([]byte, error)
	// Link gives a file a second name; it fails when that name exists.
	Link(from, to string) error
	// Same reports whether two names are of one file.
	Same(a, b string) (bool, error)
	// View opens a file for reading at any place.
	View(path string) (Reader, error)
	// ModTime tells when a file was last written.
	ModTime(path string) (time.Time, error)
}

// File is a file open for writing.
type File interface {
	io.Writer
	Sync() error
	Close() error
}

// Reader is a file open for reading.
type Reader interface {
	io.ReaderAt
	io.Closer
	// Size is the file's length in bytes when it was opened.
	Size() int64
}

// OS is the machine's file system.
var OS FS = osFS{}

type osFS struct{}

func (osFS) Create(path string) (File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
}
func (osFS) Rename(from, to string) error         { return os.Rename(from, to) }
func (osFS) Remove(path string) error             { return os.Remove(path) }
func (osFS) MkdirAll(path string) error           { return os.MkdirAll(path, 0o777) }
func (osFS) ReadFile(path string) ([]byte, error) { return os.ReadFile(path) }

func (osFS) Link(from, to string) error { return os.Link(from, to) }

func (osFS) Same(a, b string) (bool, error) {
	x, err := os.Lstat(a)
	if err != nil {
		return false, err
	}
	y, err := os.Lstat(b)
	return err == nil && os.SameFile(x, y), err
}

func (osFS) ModTime(path string) (time.Time, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

func (osFS) View(path string) (Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return osReader{f, info.Size()}, nil
}

type osReader struct {
	*os.File
	size int64
}

// Size returns the length at opening.
func (r osReader) Size() int64 { return r.size }

func (osFS) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (osFS) ReadDir(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (osFS) Exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Options say how a draft becomes a file.
type Options struct {
	// Overwrite lets Commit replace a file that exists. Without it both Create
	// and Commit fail with ErrExists.
	Overwrite bool
	// Tag goes into the temporary name, .NAME.tmp-TAG; empty means the process id.
	Tag string
}

// ErrExists is returned for an output that is there already.
var ErrExists = errors.New("exists already")

// TempPrefix and TempInfix frame the temporary name of a draft: leftovers of a
// dead run are recognised by them.
const (
	TempPrefix = "."
	TempInfix  = ".tmp-"
)

// A Draft is a file under its temporary name. Commit, or Link and Settle, or Abort
// ends it.
type Draft struct {
	fs          FS
	file        File // nil once it is closed
	temp, final string
	overwrite   bool
	complete    bool // synced and closed
	done        bool
}

// Create starts a draft of path, making its folder when needed.
func Create(fsys FS, path string, o Options) (*Draft, error) {
	if !o.Overwrite {
		if err := mustBeAbsent(fsys, path); err != nil {
			return nil, err
		}
	}
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	if err := fsys.MkdirAll(dir); err != nil {
		return nil, err
	}
	tag := o.Tag
	if tag == "" {
		tag = fmt.Sprint(os.Getpid())
	}
	temp := filepath.Join(dir, TempPrefix+name+TempInfix+tag)
	f, err := fsys.Create(temp)
	if errors.Is(err, fs.ErrExist) { // a leftover of a dead run with our tag
		if err = fsys.Remove(temp); err == nil {
			f, err = fsys.Create(temp)
		}
	}
	if err != nil {
		return nil, err
	}
	return &Draft{fs: fsys, file: f, temp: temp, final: path, overwrite: o.Overwrite}, nil
}

// Write appends to the draft.
func (d *Draft) Write(b []byte) (int, error) { return d.file.Write(b) }

// Commit makes the draft durable and visible under its final name. On an error
// nothing has appeared there and the temporary file is gone, or the error says
// why it is not.
func (d *Draft) Commit() error {
	if d.done {
		return errors.New("commit of a draft that has ended")
	}
	if err := d.Complete(); err != nil {
		return errors.Join(err, d.Abort())
	}
	if err := d.publish(); err != nil {
		return errors.Join(err, d.Abort())
	}
	d.done = true
	if err := d.fs.SyncDir(filepath.Dir(d.final)); err != nil {
		return fmt.Errorf("sync folder of %s: %w", d.final, err)
	}
	return nil
}

// publish gives the temporary file its final name, atomically.
func (d *Draft) publish() error {
	if !d.overwrite {
		if err := mustBeAbsent(d.fs, d.final); err != nil {
			return err
		}
	}
	return d.fs.Rename(d.temp, d.final)
}

func mustBeAbsent(fsys FS, path string) error {
	there, err := fsys.Exists(path)
	if err != nil {
		return err
	}
	if there {
		return fmt.Errorf("%s %w", path, ErrExists)
	}
	return nil
}

// Abort removes the draft. After Commit or Abort it does nothing.
func (d *Draft) Abort() error {
	if d.done {
		return nil
	}
	d.done = true
	var err error
	if d.file != nil {
		err = d.file.Close()
	}
	return errors.Join(err, d.fs.Remove(d.temp))
}

// WriteFile writes a whole file through write, durably.
func WriteFile(fsys FS, path string, o Options, write func(io.Writer) error) error {
	d, err := Create(fsys, path, o)
	if err != nil {
		return err
	}
	if err := write(d); err != nil {
		return errors.Join(err, d.Abort())
	}
	return d.Commit()
}
