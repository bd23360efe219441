package pipelinetest

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"

	"sync"
	"syscall"
	"time"

	"github.com/elbo-stream/elbo/internal/durable"
)

// An FS is a file system in memory that fails and crashes on demand. It keeps
// apart what a program sees and what a disk holds: contents reach the disk by
// Sync of the file, names by SyncDir of the folder. Folders are durable at once.
// It is safe for concurrent use.
type FS struct {
	mu    sync.Mutex
	names map[string]*inode // what the program sees
	disk  map[string]*inode // the names that would be found after a crash
	// moves are the changes of names that no SyncDir has made durable, in order.
	moves []move
	dirs  map[string]bool
	open  map[any]string // *file and *reader

	calls int
	fails map[int]error // by number of the call
	cut   int           // calls from this one on fail with ErrCrash; 0: none do
	space int           // bytes left; negative: no limit
	log   []string
	now   func() time.Time
}

type inode struct {
	data    []byte
	synced  int // bytes on the disk
	written time.Time
}

// A move is a change of one folder: a name given (to), taken away (from), or both
// at once.
type move struct {
	from, to string
	node     *inode
}

var _ durable.FS = (*FS)(nil)

// NewFS returns an empty file system without limits.
func NewFS() *FS {
	return &FS{
		names: make(map[string]*inode),
		disk:  make(map[string]*inode),
		dirs:  make(map[string]bool),
		open:  make(map[any]string),
		fails: make(map[int]error),
		space: -1,
		now:   time.Now,
	}
}

// SetClock makes now the clock of modification times, in place of time.Now.
func (f *FS) SetClock(now func() time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = now
}

// FailAt makes call number n, from 1, fail with err and change nothing. Every
// call of the file system and of its files counts.
func (f *FS) FailAt(n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails[n] = err
}

// CutAt makes call number n, from 1, and all after it fail with ErrCrash and
// change nothing, as for a program that is about to lose its machine: Crash then
// tells what is found afterwards.
func (f *FS) CutAt(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut = n
}

// FailNext makes the next call fail with err.
func (f *FS) FailNext(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails[f.calls+1] = err
}

// LimitSpace lets files take that many bytes more. A Write past the end writes
// what fits and fails with syscall.ENOSPC. A negative number lifts the limit;
// removing files gives nothing back.
func (f *FS) LimitSpace(bytes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.space = bytes
}

// Calls returns how many calls there were.
func (f *FS) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// Log returns the calls as "create a", "write a 12", "sync a", "close a",
// "rename a b", "remove a", "link a b", "same a b", "mkdir d", "syncdir d",
// "readdir d", "exists a", "readfile a", "view a", "readat a" and "modtime a",
// failed ones with a "!" before them.
func (f *FS) Log() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.log)
}

// Open returns the paths of the files that are not closed, sorted.
func (f *FS) Open() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Values(f.open))
}

// Files returns the paths that exist, sorted.
func (f *FS) Files() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.names))
}

// Put makes a durable file, whatever the limits.
func (f *FS) Put(path string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path = filepath.Clean(path)
	node := &inode{data: slices.Clone(data), synced: len(data), written: f.now()}
	f.names[path], f.disk[path] = node, node
	f.addDirs(filepath.Dir(path))
}

// Crash returns the file system that is found after a loss of power now. The
// part of a file's contents that was not synced is lost from a random byte on.
// Of the changes to a folder's names since its last SyncDir, a random number
// happened, the first ones first. seed makes the choice; the file system itself
// goes on as if nothing had been.
func (f *FS) Crash(seed uint64) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	rng := rand.New(rand.NewPCG(seed, 2))
	found := NewFS()
	found.now = f.now
	maps.Copy(found.dirs, f.dirs)
	names := maps.Clone(f.disk)
	reached := make(map[string]bool) // folders whose later changes are lost
	for _, m := range f.moves {
		if reached[m.dir()] || rng.IntN(2) == 0 {
			reached[m.dir()] = true
			continue
		}
		m.do(names)
	}
	made := make(map[*inode]*inode)
	for _, path := range slices.Sorted(maps.Keys(names)) {
		node := names[path]
		if made[node] == nil {
			keep := node.synced + rng.IntN(len(node.data)-node.synced+1)
			made[node] = &inode{data: slices.Clone(node.data[:keep]), synced: keep, written: node.written}
		}
		found.names[path], found.disk[path] = made[node], made[node]
	}
	return found
}

func (m move) dir() string {
	if m.to != "" {
		return filepath.Dir(m.to)
	}
	return filepath.Dir(m.from)
}

func (m move) do(names map[string]*inode) {
	if m.from != "" {
		delete(names, m.from)
	}
	if m.to != "" {
		names[m.to] = m.node
	}
}

// call counts and logs a call, and returns the error it was told to fail with.
// The caller holds mu.
func (f *FS) call(op, path string, args ...any) error {
	f.calls++
	err := f.fails[f.calls]
	if f.cut > 0 && f.calls >= f.cut {
		err = ErrCrash
	}
	line := op + " " + path
	for _, a := range args {
		line += fmt.Sprint(" ", a)
	}
	if err != nil {
		f.log = append(f.log, "!"+line)
		return &fs.PathError{Op: op, Path: path, Err: err}
	}
	f.log = append(f.log, line)
	return nil
}

func (f *FS) change(m move) {
	m.do(f.names)
	f.moves = append(f.moves, m)
}

func (f *FS) addDirs(path string) {
	for path = filepath.Clean(path); !f.dirs[path]; path = filepath.Dir(path) {
		f.dirs[path] = true
	}
}

// isDir also knows the folders that are always there.
func (f *FS) isDir(path string) bool {
	return path == "." || path == string(filepath.Separator) || f.dirs[path]
}

// Create makes a new file in a folder that exists.
func (f *FS) Create(path string) (durable.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path = filepath.Clean(path)
	if err := f.call("create", path); err != nil {
		return nil, err
	}
	if f.names[path] != nil || f.isDir(path) {
		return nil, &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	if !f.isDir(filepath.Dir(path)) {
		return nil, &fs.PathError{Op: "create", Path: path, Err: fs.ErrNotExist}
	}
	node := &inode{written: f.now()}
	f.change(move{to: path, node: node})
	h := &file{fs: f, node: node, path: path}
	f.open[h] = path
	return h, nil
}

// Rename gives a file another name, in place of a file that has it.
func (f *FS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	from, to = filepath.Clean(from), filepath.Clean(to)
	if err := f.call("rename", from, to); err != nil {
		return err
	}
	node := f.names[from]
	if node == nil || !f.isDir(filepath.Dir(to)) {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	if f.isDir(to) {
		return &fs.PathError{Op: "rename", Path: to, Err: fs.ErrExist}
	}
	f.change(move{from: from, to: to, node: node})
	return nil
}

// Remove takes a file's name or an empty folder away.
func (f *FS) Remove(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	path = filepath.Clean(path)
	if err := f.call("remove", path); err != nil {
		return err
	}
	if f.names[path] != nil {
		f.change(move{from: path})
		return nil
	}
	if !f.dirs[path] {
		return &fs.PathError{Op: "remove", Path: path, Err: fs.ErrNotExist}
	}
	if len(f.list(path)) > 0 {
		return &fs.PathError{Op: "remove", Path: path, Err: syscall.ENOTEMPTY}
	}
	delete(f.dirs, path)
	return nil
}

// MkdirAll makes a folder and those above it.
func (f *FS) MkdirAll(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	path = filepath.Clean(path)
	if err := f.call("mkdir", path); err != nil {
		return err
	}
	for dir := path; !f.isDir(dir); dir = filepath.Dir(dir) {
		if f.names[dir] != nil {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
	}
	f.addDirs(path)
	return nil
}

// SyncDir makes the changes to a folder's names durable.
func (f *FS) SyncDir(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	path = filepath.Clean(path)
	if err := f.call("syncdir", path); err != nil {
		return err
	}
	if !f.isDir(path) {
		return &fs.PathError{Op: "syncdir", Path: path, Err: fs.ErrNotExist}
	}
	var later []move
	for _, m := range f.moves {
		if m.dir() == path {
			m.do(f.disk)
		} else {
			later = append(later, m)
		}
	}
	f.moves = later
	return nil
}

// ReadDir returns the names in a folder, sorted.
func (f *FS) ReadDir(path string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path = filepath.Clean(path)
	if err := f.call("readdir", path); err != nil {
		return nil, err
	}
	if !f.isDir(path) {
		return nil, &fs.PathError{Op: "readdir", Path: path, Err: fs.ErrNotExist}
	}
	return f.list(path), nil
}

func (f *FS) list(dir string) []string {
	var names []string
	for path := range f.names {
		if filepath.Dir(path) == dir {
			names = append(names, filepath.Base(path))
		}
	}
	for path := range f.dirs {
		if filepath.Dir(path) == dir && path != dir {
			names = append(names, filepath.Base(path))
		}
	}
	slices.Sort(names)
	return names
}

// Exists reports whether there is a file or folder.
func (f *FS) Exists(path string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path = filepath.Clean(path)
	if err := f.call("exists", path); err != nil {
		return false, err
	}
	return f.names[path] != nil || f.isDir(path), nil
}

// ReadFile returns a file's contents, also what is not synced.
func (f *FS) ReadFile(path string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path = filepath.Clean(path)
	if err := f.call("readfile", path); err != nil {
		return nil, err
	}
	node := f.names[path]
	if node == nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fs.ErrNotExist}
	}
	return slices.Clone(node.data), nil
}
