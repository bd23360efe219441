package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// extensions are those of the languages' files.
var extensions = [...]struct {
	end string
	typ Type
}{{".avsc", Avro}, {".proto", Protobuf}, {".json", JSON}}

// imports finds what a text of Protobuf imports.
var imports = regexp.MustCompile(`(?m)^[ \t]*import[ \t]+(?:public[ \t]+|weak[ \t]+)?["']([^"']+)["'][ \t]*;`)

// file reads the schema NAME.avsc, NAME.proto or NAME.json of the folder, and what
// it refers to. What is a full path of a .proto already is taken as it is.
func (c *Client) file(name, what string) (wireSchema, error) {
	root, err := os.OpenRoot(c.c.Dir)
	if err != nil {
		return wireSchema{}, fmt.Errorf("%s: %w", what, err)
	}
	defer root.Close()
	for _, e := range extensions {
		file := name + e.end
		if e.typ == Protobuf && strings.HasSuffix(name, e.end) {
			file = name
		}
		text, err := c.read(root, file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return wireSchema{}, fmt.Errorf("%s: %w", what, err)
		}
		got := wireSchema{Type: e.typ, Text: string(text)}
		got.References, err = c.refersTo(root, name, got)
		if err != nil {
			return wireSchema{}, fmt.Errorf("%s: %w", what, err)
		}
		return got, nil
	}
	return wireSchema{}, fmt.Errorf("%s: %w (there is no %s.avsc, .proto or .json in %s)", what, ErrUnknownSchema, name, c.c.Dir)
}

// read reads a file of the folder.
func (c *Client) read(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(c.c.MaxBytes)+1))
	if err == nil && len(data) > c.c.MaxBytes {
		err = fmt.Errorf("%s: more than %d bytes", name, c.c.MaxBytes)
	}
	return data, err
}

// refersTo reads NAME.references.json, and finds the imports of Protobuf that are
// files of the folder.
func (c *Client) refersTo(root *os.Root, name string, w wireSchema) ([]wireReference, error) {
	var refs []wireReference
	data, err := c.read(root, name+".references.json")
	switch {
	case err == nil:
		if err := json.Unmarshal(data, &refs); err != nil {
			return nil, fmt.Errorf("%s.references.json: %w", name, err)
		}
		return refs, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case w.Type != Protobuf:
		return nil, nil
	}
	for _, m := range imports.FindAllStringSubmatch(w.Text, -1) {
		if _, err := root.Stat(filepath.FromSlash(path.Clean(m[1]))); err == nil {
			refs = append(refs, wireReference{Name: m[1], Subject: m[1]})
		}
	}
	return refs, nil
}

// find looks for the id of a schema of the folder.
func (c *Client) find(subject string, s *Schema) (*Schema, error) {
	entries, err := os.ReadDir(c.c.Dir)
	if err != nil {
		return nil, err
	}
	end := ".avsc"
	for _, e := range extensions {
		if e.typ == s.Type {
			end = e.end
		}
	}
	for _, e := range entries {
		id, err := strconv.ParseInt(strings.TrimSuffix(e.Name(), end), 10, 32)
		if err != nil || id < 0 || !strings.HasSuffix(e.Name(), end) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(c.c.Dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if sameText(string(text), s.Text) {
			return &Schema{ID: int32(id)}, nil
		}
	}
	return nil, fmt.Errorf("schema of subject %q: %w: give it an id by writing it as ID%s into %s:\n%s",
		subject, ErrUnknownSchema, end, c.c.Dir, s.Text)
}

// sameText compares texts without regard to white space at the ends of lines.
func sameText(a, b string) bool {
	return strings.Join(strings.Fields(a), " ") == strings.Join(strings.Fields(b), " ")
}
