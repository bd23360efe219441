package parquetio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

const (
	// MaxFooterBytes is the longest footer that is read; 65,000 columns need a
	// long one.
	MaxFooterBytes = 512 << 20
	// MaxPageBytes is the cap of one page: compressed, uncompressed, and as
	// decoded levels or indexes.
	MaxPageBytes = 256 << 20

	magic = "PAR1"
)

// readFooter reads and decodes the footer of r, which has size bytes. The tail
// of eight bytes is read and compared first: a decoder that believes the length
// in it allocates up to 4 GB for a file of 28 bytes.
func readFooter(r io.ReaderAt, size int64) (*format.FileMetaData, error) {
	n, err := footerLen(r, size)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, n)
	if _, err := r.ReadAt(buf, size-8-n); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read footer: %w", err)
	}
	if err := checkThrift(buf); err != nil {
		return nil, fmt.Errorf("damaged footer: %w", err)
	}
	meta := new(format.FileMetaData)
	tr := (&thrift.CompactProtocol{}).NewReaderFromBytes(buf)
	if err := thrift.NewDecoder(tr).Decode(meta); err != nil {
		return nil, fmt.Errorf("damaged footer: %w", err)
	}
	return meta, nil
}

// footerLen checks both ends of the file and returns the footer's length.
func footerLen(r io.ReaderAt, size int64) (int64, error) {
	if size < 12 {
		return 0, fmt.Errorf("%w: too short (size %d bytes); cut short or never closed?", ErrNotParquet, size)
	}
	var head [4]byte
	var tail [8]byte
	if _, err := r.ReadAt(head[:], 0); err != nil {
		return 0, fmt.Errorf("read start of file: %w", err)
	}
	if _, err := r.ReadAt(tail[:], size-8); err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("read end of file: %w", err)
	}
	if string(tail[4:]) == "PARE" || string(head[:]) == "PARE" {
		return 0, fmt.Errorf("the footer is encrypted, which is %w: write the file without encryption", ErrNotSupported)
	}
	switch h, t := string(head[:]) == magic, string(tail[4:]) == magic; {
	case !h && !t:
		return 0, fmt.Errorf("%w: no PAR1 at either end (size %d bytes); another format?", ErrNotParquet, size)
	case !h:
		return 0, fmt.Errorf("%w: no PAR1 at its start (size %d bytes); damaged?", ErrNotParquet, size)
	case !t:
		return 0, fmt.Errorf("%w: no PAR1 at its end (size %d bytes); cut short or never closed?", ErrNotParquet, size)
	}
	n := int64(binary.LittleEndian.Uint32(tail[:]))
	switch {
	case n == 0 || n > size-12:
		return 0, fmt.Errorf("footer length %d does not fit a file of %d bytes; cut short?", n, size)
	case n > MaxFooterBytes:
		return 0, fmt.Errorf("footer length %d is above the cap of %d bytes", n, int64(MaxFooterBytes))
	}
	return n, nil
}

// checkMeta compares what the footer claims with the file and with itself:
// offsets, lengths, and counts that agree between columns and row groups.
func checkMeta(meta *format.FileMetaData, leaves []*node, size int64) (group int, column string, err error) {
	var rows int64
	for g := range meta.RowGroups {
		rg := &meta.RowGroups[g]
		if len(rg.Columns) != len(leaves) {
			return g, "", fmt.Errorf("%d column chunks for %d columns", len(rg.Columns), len(leaves))
		}
		if rg.NumRows < 0 || rg.NumRows > 1<<40 {
			return g, "", fmt.Errorf("%d rows", rg.NumRows)
		}
		for i := range rg.Columns {
			if err := checkChunk(&rg.Columns[i], leaves[i], rg.NumRows, size); err != nil {
				return g, leaves[i].path, err
			}
		}
		rows += rg.NumRows
	}
	if rows != meta.NumRows {
		return -1, "", fmt.Errorf("the footer says %d rows, its row groups hold %d", meta.NumRows, rows)
	}
	return -1, "", nil
}

func checkChunk(c *format.ColumnChunk, leaf *node, rows, size int64) error {
	m := &c.MetaData
	if c.FilePath != "" {
		return fmt.Errorf("its data is in another file (%q), which is %w", c.FilePath, ErrNotSupported)
	}
	if c.CryptoMetadata.Value != nil || len(c.EncryptedColumnMetadata) > 0 {
		return fmt.Errorf("it is encrypted, which is %w", ErrNotSupported)
	}
	if m.Type != leaf.physical {
		return fmt.Errorf("chunk of type %v in a column of type %v", m.Type, leaf.physical)
	}
	start, n := chunkStart(m), m.TotalCompressedSize
	end := size - 8 // the footer's length and PAR1
	switch {
	case m.NumValues == 0 && rows == 0:
		return nil
	case start < 4 || n < 0 || start > end || n > end-start:
		return fmt.Errorf("bytes %d+%d lie outside the file of %d bytes", start, n, size)
	case m.NumValues < rows || leaf.maxRep == 0 && m.NumValues != rows:
		return fmt.Errorf("%d values in %d rows", m.NumValues, rows)
	case m.NumValues/(1<<26) > n:
		return fmt.Errorf("%d values cannot be in %d bytes", m.NumValues, n)
	}
	return nil
}

// chunkStart is the offset of a chunk's first page. Some writers leave the
// dictionary's offset 0 or unset.
func chunkStart(m *format.ColumnMetaData) int64 {
	if d := m.DictionaryPageOffset; d > 0 && d < m.DataPageOffset {
		return d
	}
	return m.DataPageOffset
}

// checkThrift walks a struct of the compact protocol and says whether every
// length in it is backed by bytes. The decoder allocates lists before it reads
// their items, so this comes first.
func checkThrift(b []byte) error {
	w := thriftWalk{b: b}
	return w.structure(0)
}

// maxThriftDepth is far above what Parquet's structs nest.
const maxThriftDepth = 24

type thriftWalk struct{ b []byte }

var errThrift = errors.New("its lengths do not match its bytes")

func (w *thriftWalk) byte() (byte, error) {
	if len(w.b) == 0 {
		return 0, errThrift
	}
	c := w.b[0]
	w.b = w.b[1:]
	return c, nil
}

func (w *thriftWalk) varint() (uint64, error) {
	u, k := binary.Uvarint(w.b)
	if k <= 0 {
		return 0, errThrift
	}
	w.b = w.b[k:]
	return u, nil
}

func (w *thriftWalk) structure(depth int) error {
	if depth > maxThriftDepth {
		return errThrift
	}
	for {
		c, err := w.byte()
		if err != nil {
			return err
		}
		if c == 0 {
			return nil
		}
		if c>>4 == 0 { // long form: the field's number follows
			if _, err := w.varint(); err != nil {
				return err
			}
		}
		if c&15 == 1 || c&15 == 2 {
			continue // the type says the value of a boolean
		}
		if err := w.value(c&15, depth); err != nil {
			return err
		}
	}
}

func (w *thriftWalk) value(kind byte, depth int) error {
	switch kind {
	case 1, 2, 3:
		return w.skip(1)
	case 4, 5, 6:
		_, err := w.varint()
		return err
	case 7:
		return w.skip(8)
	case 8:
		n, err := w.varint()
		if err != nil {
			return err
		}
		return w.skip(n)
	case 9, 10:
		return w.list(depth)
	case 12:
		return w.structure(depth + 1)
	}
	return errThrift // maps do not occur in Parquet
}

func (w *thriftWalk) list(depth int) error {
	c, err := w.byte()
	if err != nil {
		return err
	}
	n := uint64(c >> 4)
	if n == 15 {
		if n, err = w.varint(); err != nil {
			return err
		}
	}
	if n > uint64(len(w.b)) {
		return errThrift
	}
	for range n {
		if err := w.value(c&15, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *thriftWalk) skip(n uint64) error {
	if n > uint64(len(w.b)) {
		return errThrift
	}
	w.b = w.b[n:]
	return nil
}
