package parquet

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/internal/parquetio"
)

// The footer of a file that an ExactSink wrote says which part of its partition it
// holds. Numbers are decimal.
const (
	MetaPartition = "elbo.partition" // the partition's name
	MetaFirst     = "elbo.first"     // where the range begins; the file's name says it too
	MetaNext      = "elbo.next"      // the position behind the range
	MetaEpoch     = "elbo.epoch"     // Mark.Epoch of the owner
	MetaRows      = "elbo.rows"      // rows in the file
	MetaSchema    = "elbo.schema"    // a digest of the columns' names and types
	MetaWritten   = "elbo.written"   // when, UTC, as in RFC 3339
	// MetaLetters is in a file of rows that has dead letters beside it, and in that
	// file of dead letters: the same word in both.
	MetaLetters = "elbo.letters"
	// MetaKind is KindRows or KindLetters.
	MetaKind    = "elbo.kind"
	KindRows    = "rows"
	KindLetters = "dead letters"
)

// A Range is what a file of an ExactSink holds: what there was in
// [First, Next) of Partition.
type Range struct {
	Partition   string
	First, Next int64
	Epoch       int64
	Rows        int64
	Schema      string
	Letters     string // "" when there were none
	Kind        string
}

// ReadRange returns the range that the footer of f tells. An error says what is
// missing or cannot be.
func ReadRange(f *parquetio.File) (Range, error) {
	meta := f.Metadata()
	r := Range{Partition: meta[MetaPartition], Schema: meta[MetaSchema], Letters: meta[MetaLetters], Kind: meta[MetaKind]}
	if _, ok := meta[MetaPartition]; !ok {
		return r, fmt.Errorf("its footer has no %s: another program wrote it, or another kind of sink", MetaPartition)
	}
	for _, n := range []struct {
		key  string
		into *int64
	}{{MetaFirst, &r.First}, {MetaNext, &r.Next}, {MetaEpoch, &r.Epoch}, {MetaRows, &r.Rows}} {
		v, err := strconv.ParseInt(meta[n.key], 10, 64)
		if err != nil {
			return r, fmt.Errorf("its footer has %s %q, want a number", n.key, meta[n.key])
		}
		*n.into = v
	}
	switch {
	case r.First < 0 || r.Next <= r.First:
		return r, fmt.Errorf("its footer has the range %d to %d", r.First, r.Next)
	case r.Rows != f.Rows():
		return r, fmt.Errorf("its footer has %s %d, but the file has %d rows", MetaRows, r.Rows, f.Rows())
	}
	return r, nil
}

// RangeName returns the name of the file whose range begins at first.
func RangeName(first int64) string { return fmt.Sprintf("%020d.parquet", first) }

// ParseRangeName returns where the range of a file of that name begins.
func ParseRangeName(name string) (first int64, ok bool) {
	digits, ok := strings.CutSuffix(name, ".parquet")
	if !ok || len(digits) != 20 {
		return 0, false
	}
	first, err := strconv.ParseInt(digits, 10, 64)
	return first, err == nil && first >= 0 && name == RangeName(first)
}

const hivePrefix = "partition="

// maxFolder is the longest escaped name: file systems take 255 bytes.
const maxFolder = 200

// PartitionFolder returns the folder of a partition, below the sink's. A topic's
// partition such as "payments/3" is in payments/partition=3. Any other name is in
// partition=NAME, where each byte but letters, digits, ".", "-" and "_" is %XX; the
// end of a name that gets too long is a digest, and the footers have it in full. A
// topic that begins with "." or "_" has that byte as %XX too, because many readers
// pass over such folders.
func PartitionFolder(partition string) string {
	if i := strings.LastIndexByte(partition, '/'); i > 0 {
		topic, number := partition[:i], partition[i+1:]
		n, err := strconv.ParseInt(number, 10, 32)
		if err == nil && n >= 0 && strconv.FormatInt(n, 10) == number && len(topic) <= maxFolder && escape(topic) == topic {
			if topic[0] == '.' || topic[0] == '_' {
				topic = fmt.Sprintf("%%%02X", topic[0]) + topic[1:]
			}
			return filepath.Join(topic, hivePrefix+number)
		}
	}
	name := escape(partition)
	if len(name) > maxFolder {
		sum := sha256.Sum256([]byte(partition))
		name = name[:maxFolder-33] + "~" + hex.EncodeToString(sum[:16])
	}
	return hivePrefix + name
}

func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// schemaDigest tells schemas apart by the names, types and order of columns.
func schemaDigest(s *arrow.Schema) string {
	h := sha256.New()
	for _, f := range s.Fields() {
		fmt.Fprintf(h, "%q %s %t\n", f.Name, f.Type, f.Nullable)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
