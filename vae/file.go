package vae

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/elbo-stream/elbo/internal/durable"
)

// A model file is a valid safetensors file: eight bytes with the length of a JSON
// header, the header, then the tensors as little-endian float32. The header's
// __metadata__ holds the rest as strings of JSON: spec, calibration, training,
// golden. sha256 is the digest of the whole file with its own 64 digits read as
// zeros. Nothing in it is code.

const (
	fileVersion = "2"
	// fileVersionCompressed is of models with a compression: programs that do not know
	// it would read other weights.
	fileVersionCompressed = "3"
	maxHeader             = 64 << 20
	maxGoldenRows         = 64
)

// ErrNotModel is returned for a file that is no elbo model at all.
var ErrNotModel = errors.New("not an elbo model")

var zeroDigest = strings.Repeat("0", 64)

type tensorInfo struct {
	DType   string   `json:"dtype"`
	Shape   []int    `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}

// encode returns the file's bytes with the digest given.
func (m *Model) encode(digest string) ([]byte, error) {
	meta := map[string]string{"format": "elbo", "version": fileVersion, "name": m.Name, "sha256": digest}
	parts := map[string]any{"spec": m.Spec, "calibration": m.Calibration, "training": m.Training, "members": m.Members, "golden": m.golden}
	if m.Compression != nil {
		meta["version"] = fileVersionCompressed
		parts["compression"] = m.Compression
	}
	for key, v := range parts {
		text, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", key, err)
		}
		meta[key] = string(text)
	}
	metaText, err := json.Marshal(meta)
	if err != nil {
		return nil, err
	}
	var header bytes.Buffer
	header.WriteString(`{"__metadata__":`)
	header.Write(metaText)
	tensors := m.tensors()
	at := int64(0)
	for _, t := range tensors {
		end := at + int64(len(t.data))
		info, err := json.Marshal(tensorInfo{t.dtype, t.shape, [2]int64{at, end}})
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&header, ",%q:%s", t.name, info)
		at = end
	}
	header.WriteByte('}')
	for header.Len()%8 != 0 {
		header.WriteByte(' ')
	}
	if header.Len() > maxHeader {
		return nil, fmt.Errorf("the header has %d bytes, more than the %d that a model may have", header.Len(), maxHeader)
	}
	out := binary.LittleEndian.AppendUint64(nil, uint64(header.Len()))
	out = append(out, header.Bytes()...)
	for _, t := range tensors {
		out = append(out, t.data...)
	}
	return out, nil
}

// seal computes the digest.
func (m *Model) seal() error {
	b, err := m.encode(zeroDigest)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	m.digest = hex.EncodeToString(sum[:])
	return nil
}

// Bytes returns the model file's contents.
func (m *Model) Bytes() ([]byte, error) { return m.encode(m.digest) }

// Save writes the model to path, whole or not at all. An existing file is
// replaced only with overwrite; otherwise the error is durable.ErrExists.
func (m *Model) Save(path string, overwrite bool) error {
	b, err := m.Bytes()
	if err != nil {
		return err
	}
	return durable.WriteFile(durable.OS, path, durable.Options{Overwrite: overwrite}, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// NameOf returns the model name that a file path stands for: its base without
// the ending, with other characters than A-Z a-z 0-9 _ . - replaced by -.
func NameOf(path string) string {
	name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	name = strings.Map(func(r rune) rune {
		if r < 128 && validName(string(r)) {
			return r
		}
		return '-'
	}, name)
	if name == "" {
		name = "model"
	}
	return name[:min(len(name), 100)]
}

// Load reads a model file and scores its golden rows again. An error says which
// part of the file is wrong; a partial model is never returned.
func Load(path string) (*Model, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return nil, fmt.Errorf("%s is a folder: %w", path, ErrNotModel)
	}
	if st.Size() > 8+maxHeader+2*4*maxParams {
		return nil, fmt.Errorf("%s: %d bytes: %w", path, st.Size(), ErrNotModel)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m, err := Decode(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// Decode reads a model from the bytes of its file; see Load.
func Decode(b []byte) (*Model, error) {
	header, data, err := split(b)
	if err != nil {
		return nil, err
	}
	meta, infos, err := parseHeader(header)
	if err != nil {
		return nil, err
	}
	if err := checkDigest(b, len(header), meta["sha256"]); err != nil {
		return nil, err
	}
	m := &Model{Name: meta["name"], digest: meta["sha256"], Calibration: &Calibration{}}
	parts := map[string]any{"spec": &m.Spec, "calibration": m.Calibration, "training": &m.Training, "members": &m.Members, "golden": &m.golden}
	if meta["version"] == fileVersionCompressed {
		m.Compression = new(Compression)
		parts["compression"] = m.Compression
	}
	for key, dst := range parts {
		if err := json.Unmarshal([]byte(meta[key]), dst); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	if err := m.Spec.Validate(); err != nil {
		return nil, fmt.Errorf("spec: %w", err)
	}
	if err := readParams(m, infos, data); err != nil {
		return nil, err
	}
	if err := m.prepare(); err != nil {
		return nil, err
	}
	if len(m.golden) == 0 || len(m.golden) > maxGoldenRows {
		return nil, fmt.Errorf("golden: %d rows, want 1 to %d", len(m.golden), maxGoldenRows)
	}
	if err := m.checkGolden(); err != nil {
		return nil, err
	}
	return m, nil
}

// split parts a file into header and data, believing no length.
func split(b []byte) (header, data []byte, err error) {
	if len(b) < 10 {
		return nil, nil, fmt.Errorf("%d bytes: %w", len(b), ErrNotModel)
	}
	n := binary.LittleEndian.Uint64(b)
	if b[8] != '{' {
		return nil, nil, fmt.Errorf("no safetensors header: %w", ErrNotModel)
	}
	if n > maxHeader {
		return nil, nil, fmt.Errorf("header length %d is above %d: damaged, or %w", n, maxHeader, ErrNotModel)
	}
	if n > uint64(len(b)-8) {
		return nil, nil, fmt.Errorf("the header has %d bytes but only %d follow: the file was cut short", n, len(b)-8)
	}
	return b[8 : 8+n], b[8+n:], nil
}

func parseHeader(header []byte) (map[string]string, map[string]tensorInfo, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(header, &raw); err != nil {
		return nil, nil, fmt.Errorf("header is damaged: %w", err)
	}
	var meta map[string]string
	if text, ok := raw["__metadata__"]; ok {
		if err := json.Unmarshal(text, &meta); err != nil {
			return nil, nil, fmt.Errorf("header metadata is damaged: %w", err)
		}
	}
	if meta["format"] != "elbo" {
		return nil, nil, fmt.Errorf("a safetensors file without elbo's metadata: %w", ErrNotModel)
	}
	if v := meta["version"]; v != fileVersion && v != fileVersionCompressed {
		return nil, nil, fmt.Errorf("model file version %q: this program reads versions "+fileVersion+" and %s; use a newer elbo, or train again", v, fileVersionCompressed)
	}
	delete(raw, "__metadata__")
	infos := map[string]tensorInfo{}
	for name, text := range raw {
		var info tensorInfo
		if err := json.Unmarshal(text, &info); err != nil {
			return nil, nil, fmt.Errorf("tensor %q: %w", name, err)
		}
		infos[name] = info
	}
	return meta, infos, nil
}

// checkDigest compares the file with its digest, whose digits count as zeros.
func checkDigest(b []byte, header int, digest string) error {
	if len(digest) != 64 {
		return errors.New("sha256 is missing: the file is damaged")
	}
	quoted := []byte(`"sha256":"` + digest + `"`)
	if bytes.Count(b[8:8+header], quoted) != 1 {
		return errors.New("sha256 stands in an unexpected place: the file is damaged")
	}
	at := 8 + bytes.Index(b[8:8+header], quoted) + len(`"sha256":"`)
	h := sha256.New()
	h.Write(b[:at])
	h.Write([]byte(zeroDigest))
	h.Write(b[at+64:])
	if got := hex.EncodeToString(h.Sum(nil)); got != digest {
		return errors.New("sha256 does not match: the file was cut short or altered")
	}
	return nil
}
