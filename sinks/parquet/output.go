package parquet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/elbo-stream/elbo/internal/durable"
)

const partFormat = "part-%06d.parquet"

// prepare looks at what is at the output: other files, and drafts of dead runs.
// It makes nothing: the folder comes with the first file.
func (s *Sink) prepare() error {
	dir := s.c.folder()
	names, err := s.c.FS.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list folder %s: %w", dir, err)
	}
	var there []string
	for _, name := range names {
		switch final, tag, ok := draftOf(name); {
		case ok:
			if s.ours(final) {
				if err := s.removeDraft(filepath.Join(dir, name), tag); err != nil {
					return err
				}
			}
		case s.c.oneFile() && name == filepath.Base(s.c.Path),
			!s.c.oneFile() && strings.HasSuffix(name, ".parquet"):
			there = append(there, name)
		}
	}
	return s.existing(dir, there)
}

// existing decides about the Parquet files that are there already.
func (s *Sink) existing(dir string, there []string) error {
	switch {
	case len(there) == 0:
		return nil
	case s.c.oneFile() && !s.c.Overwrite:
		return fmt.Errorf("%s %w: choose another name, or replace it with --overwrite", s.c.Path, ErrExists)
	case s.c.oneFile():
		return nil
	case s.c.Append:
		for _, name := range there {
			if n, ok := partNumber(name); ok {
				s.number = max(s.number, n+1)
			}
		}
	case !s.c.Overwrite:
		return fmt.Errorf("%s %w and holds %d Parquet files (%s): choose another folder, or replace them with --overwrite", s.c.Path, ErrExists, len(there), there[0])
	default:
		for _, name := range there {
			s.old = append(s.old, filepath.Join(dir, name))
		}
	}
	return nil
}

// removeOld removes the files that an overwriting run found and did not replace.
func (s *Sink) removeOld() error {
	if len(s.old) == 0 {
		return nil
	}
	for _, path := range s.old {
		if n, ok := partNumber(filepath.Base(path)); ok && n < s.number {
			continue // replaced by a rename
		}
		if err := s.c.FS.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the file of an earlier run: %w", err)
		}
		s.c.Log.Info("file of an earlier run removed", "path", path)
	}
	s.old = nil
	if err := s.c.FS.SyncDir(s.c.folder()); err != nil {
		return fmt.Errorf("sync folder %s: %w", s.c.folder(), err)
	}
	return nil
}

// partNumber reads a part's name.
func partNumber(name string) (int, bool) {
	digits, ok := strings.CutPrefix(strings.TrimSuffix(name, ".parquet"), "part-")
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	return n, err == nil && name == fmt.Sprintf(partFormat, n)
}

// ours says whether this sink could have written a file of that name.
func (s *Sink) ours(final string) bool {
	if s.c.oneFile() {
		return final == filepath.Base(s.c.Path)
	}
	_, ok := partNumber(final)
	return ok
}

// draftOf takes the temporary name of a draft apart.
func draftOf(name string) (final, tag string, ok bool) {
	rest, ok := strings.CutPrefix(name, durable.TempPrefix)
	if !ok {
		return "", "", false
	}
	i := strings.LastIndex(rest, durable.TempInfix)
	if i < 0 {
		return "", "", false
	}
	return rest[:i], rest[i+len(durable.TempInfix):], true
}

// removeDraft removes a draft whose process, told by the tag, is gone. One of
// this process is from an earlier one with the same number.
func (s *Sink) removeDraft(path, tag string) error {
	pid, err := strconv.Atoi(tag)
	if err != nil || pid != os.Getpid() && alive(pid) {
		s.c.Log.Warn("another run is writing to this output", "draft", path)
		return nil
	}
	if err := s.c.FS.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the draft of a dead run: %w", err)
	}
	s.c.Log.Info("draft of a dead run removed", "path", path)
	return nil
}

// alive says whether a process exists. Where that cannot be told, it does.
func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	err = p.Signal(syscall.Signal(0))
	return err == nil || !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH)
}
