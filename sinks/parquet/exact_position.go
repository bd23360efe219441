package parquet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/internal/parquetio"
	"github.com/elbo-stream/elbo/pipeline"
)

// ChainError says that the last files of a partition do not follow one another, so
// that nobody can tell which rows are there.
type ChainError struct {
	Partition string
	Path      string // the file at fault
	Err       error
}

// Error names the partition and the file.
func (e *ChainError) Error() string {
	return fmt.Sprintf("partition %q: %s: %v (elbo verify shows all of it)", e.Partition, e.Path, e.Err)
}

// Unwrap returns what is wrong with the file.
func (e *ChainError) Unwrap() error { return e.Err }

// Position returns where the last file of each partition ends, for all that the
// folder holds when parts is nil. For partitions that are named it ends their
// epochs before those in parts: a publication that is under way is waited for, and
// no later one of such an epoch gets a name. It gives dead letters their names that
// a crash left without, and removes temporary files older than ExactConfig.Sweep.
// Their age is all that tells the draft of a dead run from that of another living
// owner; one that loses its draft so publishes nothing, and reads again.
//
// The last two files are looked at: when they overlap, or one cannot be read, the
// error is a *ChainError.
func (s *ExactSink) Position(ctx context.Context, parts []pipeline.Mark) ([]pipeline.Mark, error) {
	if parts == nil {
		return s.everyPosition(ctx)
	}
	var marks []pipeline.Mark
	for _, m := range parts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.mu.Lock()
		p := s.part(m.Partition)
		s.mu.Unlock()
		p.link.Lock()
		s.mu.Lock()
		s.fence(p, m.Epoch)
		s.mu.Unlock()
		p.link.Unlock()
		last, err := s.resume(PartitionFolder(m.Partition), m.Partition)
		if err != nil {
			return nil, err
		}
		s.know(p, last)
		if last != nil {
			marks = append(marks, pipeline.Mark{Partition: m.Partition, Epoch: m.Epoch, Next: last.Next})
		}
	}
	s.raised()
	select { // what was given up need not wait for the next batch
	case s.use <- struct{}{}:
		s.leave()
	default:
	}
	return marks, nil
}

// know notes where a partition ends.
func (s *ExactSink) know(p *exactPart, last *Range) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.known = last != nil; p.known {
		p.next = last.Next
	}
}

// everyPosition looks at all partitions in the folder.
func (s *ExactSink) everyPosition(ctx context.Context) ([]pipeline.Mark, error) {
	dirs, err := partitionDirs(s.c.FS, s.c.Path)
	if err != nil {
		return nil, err
	}
	var marks []pipeline.Mark
	for _, dir := range dirs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		last, err := s.resume(dir, "")
		if err != nil {
			return nil, err
		}
		if last == nil {
			continue
		}
		s.mu.Lock()
		p := s.part(last.Partition)
		s.mu.Unlock()
		s.know(p, last)
		marks = append(marks, pipeline.Mark{Partition: last.Partition, Epoch: last.Epoch, Next: last.Next})
	}
	return marks, nil
}

// partitionDirs lists the folders of partitions, relative to root.
func partitionDirs(fsys durable.FS, root string) ([]string, error) {
	names, err := readDir(fsys, root)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, name := range names {
		if strings.HasPrefix(name, hivePrefix) {
			dirs = append(dirs, name)
			continue
		}
		if strings.HasPrefix(name, ".") {
			continue
		}
		below, err := readDir(fsys, filepath.Join(root, name))
		if errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, b := range below {
			if strings.HasPrefix(b, hivePrefix) {
				dirs = append(dirs, filepath.Join(name, b))
			}
		}
	}
	return dirs, nil
}

// readDir lists a folder; one that is not there has no names.
func readDir(fsys durable.FS, dir string) ([]string, error) {
	names, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list folder %s: %w", dir, err)
	}
	return names, nil
}

// resume returns the range of the last file in a partition's folder, nil when there
// is none, and tidies up. An empty partition takes any name.
func (s *ExactSink) resume(dir, partition string) (*Range, error) {
	path := filepath.Join(s.c.Path, dir)
	names, err := readDir(s.c.FS, path)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	// What is listed may be gone after a loss of power, unless the folder is synced.
	if err := s.c.FS.SyncDir(path); err != nil {
		return nil, fmt.Errorf("sync folder %s: %w", path, err)
	}
	var files []int64
	for _, name := range names {
		if first, ok := ParseRangeName(name); ok {
			files = append(files, first)
		} else if _, _, ok := draftOf(name); ok {
			s.sweep(filepath.Join(path, name))
		}
	}
	last, err := s.chain(path, dir, partition, files)
	if err != nil {
		return nil, err
	}
	return last, s.finishLetters(dir, last)
}

// chain reads the last two files.
func (s *ExactSink) chain(path, dir, partition string, files []int64) (last *Range, err error) {
	for _, first := range files[max(0, len(files)-2):] {
		name := filepath.Join(path, RangeName(first))
		r, err := s.read(name)
		if err == nil && r.First != first {
			err = fmt.Errorf("its name begins at %d, its footer at %d", first, r.First)
		}
		if err == nil && PartitionFolder(r.Partition) != dir || err == nil && partition != "" && r.Partition != partition {
			err = fmt.Errorf("it is of partition %q", r.Partition)
		}
		if err == nil && last != nil && last.Next > first {
			err = fmt.Errorf("it begins at %d, inside of the file before it, which ends at %d", first, last.Next)
		}
		if err != nil {
			return nil, &ChainError{Partition: partition, Path: name, Err: err}
		}
		if last != nil && last.Next < first {
			s.c.Log.Warn("rows are missing between files", "partition", r.Partition, "from", last.Next, "to", first)
		}
		last = &r
	}
	return last, nil
}

// read reads the range in a file's footer.
func (s *ExactSink) read(path string) (r Range, err error) {
	in, err := s.c.FS.View(path)
	if err != nil {
		return Range{}, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	f, err := parquetio.Open(in, in.Size(), path)
	if err != nil {
		return Range{}, err
	}
	return ReadRange(f)
}

// sweep removes a temporary file that is old enough. That it cannot is told, and no
// reason to stop.
func (s *ExactSink) sweep(path string) {
	at, err := s.c.FS.ModTime(path)
	if err == nil && s.c.Now().Sub(at) < s.c.Sweep {
		return
	}
	if err == nil {
		err = s.c.FS.Remove(path)
	}
	switch {
	case err == nil:
		s.c.Log.Info("draft of a dead run removed", "path", path)
	case !errors.Is(err, fs.ErrNotExist):
		s.c.Log.Warn("draft of a dead run is left behind", "path", path, "error", err)
	}
}

// finishLetters deals with dead letters that have not got their final names. Those
// whose tag the file of rows has are published, and get them now. Those whose rows
// another owner published, or that begin before last ends, are nobody's any more.
// What is left may still be published by an owner that is slow; it harms nobody.
func (s *ExactSink) finishLetters(dir string, last *Range) error {
	if last == nil {
		return nil
	}
	dead := filepath.Join(s.c.Dead, dir)
	names, err := readDir(s.c.FS, dead)
	if err != nil {
		return err
	}
	renamed := false
	for _, name := range names {
		final, tag, ok := draftOf(name)
		first, ok2 := ParseRangeName(final)
		if !ok || !ok2 || first >= last.Next {
			continue
		}
		r, err := s.read(filepath.Join(s.c.Path, dir, final))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("dead letters of partition %q: %w", last.Partition, err)
		}
		if err != nil || r.Letters != tag {
			s.sweep(filepath.Join(dead, name))
			continue
		}
		if err := s.c.FS.Rename(filepath.Join(dead, name), filepath.Join(dead, final)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("publish the dead letters of partition %q: %w", last.Partition, err)
		}
		s.c.Log.Info("dead letters of a dead run published", "path", filepath.Join(dead, final))
		renamed = true
	}
	if !renamed {
		return nil
	}
	if err := s.c.FS.SyncDir(dead); err != nil {
		return fmt.Errorf("sync folder %s: %w", dead, err)
	}
	return nil
}
