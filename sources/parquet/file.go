package parquet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/elbo-stream/elbo/internal/parquetio"
)

// A file is one input, as its footer tells it.
type file struct {
	path  string
	size  int64
	mtime time.Time
	epoch int64
	hive  map[string]*string // key=value folders; nil value is null

	all    []parquetio.Column
	rows   int64
	groups []int64 // rows of each row group
	first  int64   // position of its first row in the whole input

	columns []int // positions in the file that are read
	from    []int // for each column of the source, its place in columns; -1 for hive
}

// list finds the files that the paths name, sorted by path.
func list(c *Config) ([]*file, error) {
	l := &lister{c: c, seen: map[string]bool{}}
	var faults []error
	for _, p := range c.Paths {
		before := l.found
		if err := l.path(p); err != nil {
			faults = append(faults, err)
		} else if l.found == before {
			faults = append(faults, fmt.Errorf("%s: no Parquet file found there (%d other files passed over)", p, l.skipped))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	slices.SortFunc(l.files, func(a, b *file) int { return strings.Compare(a.path, b.path) })
	return l.files, nil
}

type lister struct {
	c       *Config
	files   []*file
	seen    map[string]bool
	found   int // also those found before
	skipped int
}

// path adds what one configured path stands for.
func (l *lister) path(p string) error {
	st, err := os.Stat(p)
	switch {
	case err == nil && st.IsDir():
		return l.folder(p)
	case err == nil:
		return l.add(p, st)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case !strings.ContainsAny(p, "*?["):
		return fmt.Errorf("%s: no such file or folder", p)
	}
	matches, err := filepath.Glob(p)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	for _, m := range matches {
		st, err := os.Stat(m)
		if err != nil {
			return err
		}
		if l.passOver(m, st.Size(), st.IsDir()) {
			continue
		}
		if st.IsDir() {
			err = l.folder(m)
		} else {
			err = l.add(m, st)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *lister) folder(root string) error {
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		st, err := os.Stat(p) // follows links
		if err != nil {
			return err
		}
		if l.passOver(p, st.Size(), st.IsDir()) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if st.IsDir() {
			return nil
		}
		switch strings.ToLower(filepath.Ext(p)) {
		case ".parquet", ".parq", ".pq":
			return l.add(p, st)
		}
		l.skip(p, "not named *.parquet")
		return nil
	})
}

// passOver says whether a name found in a folder or glob is not meant to be
// read.
func (l *lister) passOver(p string, size int64, dir bool) bool {
	name := filepath.Base(p)
	switch {
	case strings.HasPrefix(name, "_") && !strings.Contains(name, "="), strings.HasPrefix(name, "."):
		l.skip(p, "hidden")
	case dir:
		return false
	case strings.HasSuffix(name, ".crc"):
		l.skip(p, "checksum file")
	case size == 0:
		l.skip(p, "empty")
	default:
		return false
	}
	return true
}

func (l *lister) skip(p, why string) {
	l.skipped++
	l.c.Log.Info("file passed over", "path", p, "why", why)
}

func (l *lister) add(p string, st fs.FileInfo) error {
	p = filepath.Clean(p)
	l.found++
	if l.seen[p] {
		return nil
	}
	l.seen[p] = true
	f := &file{path: p, size: st.Size(), mtime: st.ModTime()}
	f.epoch = epochOf(f.size, f.mtime)
	if l.c.Hive {
		var err error
		if f.hive, err = hiveOf(p); err != nil {
			return err
		}
	}
	l.files = append(l.files, f)
	return nil
}

// epochOf changes when a file does.
func epochOf(size int64, mtime time.Time) int64 {
	h := fnv.New64a()
	b := binary.LittleEndian.AppendUint64(nil, uint64(size))
	h.Write(binary.LittleEndian.AppendUint64(b, uint64(mtime.UnixNano())))
	return int64(h.Sum64() >> 1) // not negative
}

// hiveNull is how a null key is written in a folder's name.
const hiveNull = "__HIVE_DEFAULT_PARTITION__"

// hiveOf reads the key=value folders of a path.
func hiveOf(path string) (map[string]*string, error) {
	out := map[string]*string{}
	for _, part := range strings.Split(filepath.ToSlash(filepath.Dir(path)), "/") {
		key, value, ok := strings.Cut(part, "=")
		if !ok || key == "" {
			continue
		}
		k, err1 := url.PathUnescape(key)
		v, err2 := url.PathUnescape(value)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("%s: folder %q: %w", path, part, err)
		}
		if out[k] != nil {
			return nil, fmt.Errorf("%s: key %q occurs twice among its folders", path, k)
		}
		out[k] = &v
		if v == hiveNull {
			out[k] = nil
		}
	}
	return out, nil
}

// readFooters reads the footers, several at once, and joins what is wrong.
func readFooters(files []*file) error {
	const workers = 8
	faults := make([]error, len(files))
	var wg sync.WaitGroup
	for w := range min(workers, len(files)) {
		wg.Go(func() {
			for i := w; i < len(files); i += workers {
				faults[i] = files[i].footer()
			}
		})
	}
	wg.Wait()
	return errors.Join(faults...)
}

// footer fills in what the footer tells.
func (f *file) footer() error {
	o, err := f.open()
	if err != nil {
		return err
	}
	defer o.close()
	f.all, f.rows = o.pq.Columns(), o.pq.Rows()
	for g := range o.pq.Groups() {
		f.groups = append(f.groups, o.pq.GroupRows(g))
	}
	return nil
}

// open opens the file, which must be the one that was listed.
func (f *file) open() (*openFile, error) {
	r, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	st, err := r.Stat()
	if err == nil {
		err = f.same(st)
	}
	var pq *parquetio.File
	if err == nil {
		pq, err = parquetio.Open(r, f.size, f.path)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return &openFile{file: f, f: r, pq: pq}, nil
}

func (f *file) same(st fs.FileInfo) error {
	if st.Size() != f.size || !st.ModTime().Equal(f.mtime) {
		return fmt.Errorf("%s: the file changed while it was being read (%d bytes, then %d): run again once nothing writes to it", f.path, f.size, st.Size())
	}
	return nil
}

// unchanged says whether the path still leads to the file that was listed.
func (f *file) unchanged() error {
	st, err := os.Stat(f.path)
	if err != nil {
		return fmt.Errorf("%s: the file went away while it was being read: %w", f.path, err)
	}
	return f.same(st)
}
