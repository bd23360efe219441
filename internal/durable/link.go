package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
)

// Temp returns the temporary path of the draft.
func (d *Draft) Temp() string { return d.temp }

// Complete makes the draft's content durable, under its temporary name, and
// closes it: nothing can be written any more. When it fails the content is not to
// be trusted, and only Abort is left. A second call does nothing.
func (d *Draft) Complete() error {
	if d.complete {
		return nil
	}
	if d.file == nil {
		return fmt.Errorf("%s could not be completed before", d.final)
	}
	f := d.file
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", d.final, err)
	}
	d.file = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("close %s: %w", d.final, err)
	}
	d.complete = true
	return nil
}

// Link gives a complete draft its final name without ever replacing a file: of
// many who want the name, in this process or in others, one gets it and the rest
// have an error with ErrExists in its chain. After any other error it may be
// called again. Settle makes the name durable.
//
// A file system without hard links refuses it.
func (d *Draft) Link() error {
	if d.done || !d.complete {
		return fmt.Errorf("link %s: the draft is not complete", d.final)
	}
	err := d.fs.Link(d.temp, d.final)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist):
		// The reply of a link over a network may get lost: the name may be ours.
		if same, sameErr := d.fs.Same(d.temp, d.final); sameErr == nil && same {
			return nil
		}
		return fmt.Errorf("%s %w", d.final, ErrExists)
	case errors.Is(err, syscall.EPERM), errors.Is(err, errors.ErrUnsupported):
		return fmt.Errorf("%w: does the file system of %s have hard links?", err, filepath.Dir(d.final))
	}
	return err
}

// Replace gives a complete draft its final name, in place of a file that has it.
// It may be called again after an error, and somebody else may have done it
// already. Settle makes the name durable.
func (d *Draft) Replace() error {
	if d.done || !d.complete {
		return fmt.Errorf("rename %s: the draft is not complete", d.final)
	}
	err := d.fs.Rename(d.temp, d.final)
	if errors.Is(err, fs.ErrNotExist) {
		if there, thereErr := d.fs.Exists(d.final); thereErr == nil && there {
			return nil
		}
	}
	return err
}

// Settle makes the name that Link or Replace gave durable and takes the temporary one away.
// It may be called again after an error. A temporary name that cannot be removed
// is no error: it holds nothing that is needed, and whoever sweeps the folder
// removes it.
func (d *Draft) Settle() error {
	if d.done {
		return nil
	}
	if err := d.fs.SyncDir(filepath.Dir(d.final)); err != nil {
		return fmt.Errorf("sync folder of %s: %w", d.final, err)
	}
	d.done = true
	_ = d.fs.Remove(d.temp)
	return nil
}

// MkdirAll makes a folder and those above it, and makes their names durable.
// A folder that is there costs one look.
func MkdirAll(fsys FS, path string) error {
	path = filepath.Clean(path)
	there, err := fsys.Exists(path)
	if err != nil || there {
		return err
	}
	above := filepath.Dir(path)
	if above != path {
		if err := MkdirAll(fsys, above); err != nil {
			return err
		}
	}
	if err := fsys.MkdirAll(path); err != nil {
		return err
	}
	return fsys.SyncDir(above)
}
