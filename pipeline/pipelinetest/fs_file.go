package pipelinetest

import (
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/elbo-stream/elbo/internal/durable"
)

// Link gives a file a second name, which must be free.
func (f *FS) Link(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	from, to = filepath.Clean(from), filepath.Clean(to)
	if err := f.call("link", from, to); err != nil {
		return err
	}
	node := f.names[from]
	if node == nil || !f.isDir(filepath.Dir(to)) {
		return &fs.PathError{Op: "link", Path: from, Err: fs.ErrNotExist}
	}
	if f.names[to] != nil || f.isDir(to) {
		return &fs.PathError{Op: "link", Path: to, Err: fs.ErrExist}
	}
	f.change(move{to: to, node: node})
	return nil
}

// Same reports whether two names are of one file.
func (f *FS) Same(a, b string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, b = filepath.Clean(a), filepath.Clean(b)
	if err := f.call("same", a, b); err != nil {
		return false, err
	}
	for _, path := range []string{a, b} {
		if f.names[path] == nil {
			return false, &fs.PathError{Op: "same", Path: path, Err: fs.ErrNotExist}
		}
	}
	return f.names[a] == f.names[b], nil
}

// ModTime tells when a file was last written.
func (f *FS) ModTime(path string) (time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path = filepath.Clean(path)
	if err := f.call("modtime", path); err != nil {
		return time.Time{}, err
	}
	node := f.names[path]
	if node == nil {
		return time.Time{}, &fs.PathError{Op: "modtime", Path: path, Err: fs.ErrNotExist}
	}
	return node.written, nil
}

// View opens a file for reading what it holds now, also what is not synced.
func (f *FS) View(path string) (durable.Reader, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path = filepath.Clean(path)
	if err := f.call("view", path); err != nil {
		return nil, err
	}
	node := f.names[path]
	if node == nil {
		return nil, &fs.PathError{Op: "view", Path: path, Err: fs.ErrNotExist}
	}
	r := &reader{fs: f, path: path, data: slices.Clone(node.data)}
	f.open[r] = path
	return r, nil
}

// A reader is a file open for reading.
type reader struct {
	fs   *FS
	path string
	data []byte
}

func (r *reader) Size() int64 { return int64(len(r.data)) }

func (r *reader) ReadAt(b []byte, off int64) (int, error) {
	r.fs.mu.Lock()
	defer r.fs.mu.Unlock()
	if err := r.fs.call("readat", r.path); err != nil {
		return 0, err
	}
	if _, ok := r.fs.open[r]; !ok {
		return 0, &fs.PathError{Op: "read", Path: r.path, Err: fs.ErrClosed}
	}
	if off < 0 || off > int64(len(r.data)) {
		return 0, io.EOF
	}
	n := copy(b, r.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (r *reader) Close() error {
	r.fs.mu.Lock()
	defer r.fs.mu.Unlock()
	err := r.fs.call("close", r.path)
	if _, ok := r.fs.open[r]; !ok {
		return errors.Join(err, &fs.PathError{Op: "close", Path: r.path, Err: fs.ErrClosed})
	}
	delete(r.fs.open, r)
	return err
}

// A file is an open file of an FS.
type file struct {
	fs   *FS
	node *inode
	path string // that it was created under
}

func (h *file) isOpen() bool {
	_, ok := h.fs.open[h]
	return ok
}

func (h *file) Write(b []byte) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.call("write", h.path, len(b)); err != nil {
		return 0, err
	}
	if !h.isOpen() {
		return 0, &fs.PathError{Op: "write", Path: h.path, Err: fs.ErrClosed}
	}
	n := len(b)
	if h.fs.space >= 0 {
		n = min(n, h.fs.space)
		h.fs.space -= n
	}
	h.node.data = append(h.node.data, b[:n]...)
	h.node.written = h.fs.now()
	if n < len(b) {
		return n, &fs.PathError{Op: "write", Path: h.path, Err: syscall.ENOSPC}
	}
	return n, nil
}

func (h *file) Sync() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.call("sync", h.path); err != nil {
		return err
	}
	if !h.isOpen() {
		return &fs.PathError{Op: "sync", Path: h.path, Err: fs.ErrClosed}
	}
	h.node.synced = len(h.node.data)
	return nil
}

// Close ends the file also when it fails, as the operating system does.
func (h *file) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	err := h.fs.call("close", h.path)
	if !h.isOpen() {
		return errors.Join(err, &fs.PathError{Op: "close", Path: h.path, Err: fs.ErrClosed})
	}
	delete(h.fs.open, h)
	return err
}

// Temporaries returns the paths that look like drafts of package durable, sorted.
func (f *FS) Temporaries() []string {
	var temps []string
	for _, path := range f.Files() {
		name := filepath.Base(path)
		if strings.HasPrefix(name, durable.TempPrefix) && strings.Contains(name, durable.TempInfix) {
			temps = append(temps, path)
		}
	}
	return temps
}

// heal takes all limits and planned failures away.
func (f *FS) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.fails)
	f.cut, f.space = 0, -1
}
