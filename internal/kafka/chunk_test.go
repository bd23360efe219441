package kafka_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// batchSpec says what a batch is that a test makes by kmsg, which is not ours.
type batchSpec struct {
	base      int64
	deltas    []int32 // offsets of the records, from base
	lastDelta int32
	attrs     int16
	producer  int64
	control   []byte // the key of a control record
	value     string
	maxTime   int64
	codec     kafka.Compression
}

// raw builds a batch whose records' value is their offset, unless one is given.
func (s batchSpec) raw() []byte {
	var body []byte
	for i, d := range s.deltas {
		r := kmsg.Record{OffsetDelta: d, TimestampDelta64: int64(i), Value: fmt.Append(nil, s.value, s.base+int64(d))}
		if s.control != nil {
			r.Key, r.Value = s.control, []byte{0, 0, 0, 0, 0, 0}
		}
		r.Length = int32(len(r.AppendTo(nil)) - 1) // behind its own length, which is one byte of 0 here
		body = r.AppendTo(body)
	}
	if s.codec != kafka.None {
		var err error
		if body, err = kafka.Compress(s.codec, body); err != nil {
			panic(err)
		}
	}
	b := kmsg.RecordBatch{
		FirstOffset: s.base, Length: int32(49 + len(body)), PartitionLeaderEpoch: 3, Magic: 2, Attributes: s.attrs | int16(s.codec),
		LastOffsetDelta: s.lastDelta, FirstTimestamp: 1000, MaxTimestamp: s.maxTime, ProducerID: s.producer, FirstSequence: -1,
		NumRecords: int32(len(s.deltas)), Records: body,
	}
	return seal(b.AppendTo(nil))
}

// seal writes the right checksum into a batch.
func seal(b []byte) []byte {
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

var (
	commitKey = []byte{0, 0, 0, 1}
	abortKey  = []byte{0, 0, 0, 0}
)

// walk reads a set; the next offset is that of its headers.
func walk(set []byte, from int64, aborted ...kafka.AbortedTxn) (rs []plainRecord, next int64, err error) {
	c, _ := kafka.NewChunk(fetchPart(0), from, set, aborted, 1<<20)
	defer c.Release()
	err = c.Records(func(r *kafka.Record) error {
		rs = append(rs, plain(r))
		return nil
	})
	return rs, c.Next, err
}

// TestChunkCompacted is F16 without a broker: what compaction and transactions leave
// behind.
func TestChunkCompacted(t *testing.T) {
	const txn, control = 0x10, 0x30
	for _, c := range []struct {
		name    string
		from    int64
		batches []batchSpec
		aborted []kafka.AbortedTxn
		want    []int64
		next    int64
	}{
		{"holes inside a batch", 0, []batchSpec{{deltas: []int32{0, 7, 300000}, lastDelta: 400000}}, nil, []int64{0, 7, 300000}, 400001},
		{"a gap of 300,000 between batches", 5, []batchSpec{{base: 0, deltas: []int32{0, 9}, lastDelta: 9}, {base: 300010, deltas: []int32{0}}}, nil, []int64{9, 300010}, 300011},
		{"the first batch is behind the offset", 5, []batchSpec{{base: 100, deltas: []int32{1}, lastDelta: 1}}, nil, []int64{101}, 102},
		{"empty batches", 0, []batchSpec{{base: 3, lastDelta: 4}, {base: 8, deltas: []int32{0}}, {base: 20, lastDelta: 0}}, nil, []int64{8}, 21},
		{"only an empty batch", 0, []batchSpec{{base: 0, lastDelta: 99}}, nil, nil, 100},
		{"batches before the offset", 25, []batchSpec{{base: 0, deltas: []int32{0}, lastDelta: 9}, {base: 10, deltas: []int32{0, 19}, lastDelta: 19}}, nil, []int64{29}, 30},
		{"markers", 0, []batchSpec{{base: 0, deltas: []int32{0}, attrs: txn, producer: 1}, {base: 1, deltas: []int32{0}, attrs: control, producer: 1, control: commitKey}}, nil, []int64{0}, 2},
		{"a marker's batch without its record", 0, []batchSpec{{base: 0, attrs: control, producer: 1}, {base: 1, deltas: []int32{0}}}, nil, []int64{1}, 2},
		{"an unknown marker", 0, []batchSpec{{base: 0, deltas: []int32{0}, attrs: control, control: []byte{0, 0, 0, 9}}, {base: 1, deltas: []int32{0}, attrs: control, control: []byte{}}, {base: 2, deltas: []int32{0}}}, nil, []int64{2}, 3},
		{
			"aborted transactions of two producers that overlap", 0,
			[]batchSpec{
				{base: 0, deltas: []int32{0}, attrs: txn, producer: 1},
				{base: 1, deltas: []int32{0}, attrs: txn, producer: 2},
				{base: 2, deltas: []int32{0}, attrs: control, producer: 2, control: abortKey},
				{base: 3, deltas: []int32{0}, attrs: txn, producer: 2},
				{base: 4, deltas: []int32{0}, producer: 1}, // idempotent, of no transaction
				{base: 5, deltas: []int32{0}, attrs: control, producer: 1, control: abortKey},
				{base: 6, deltas: []int32{0}, attrs: txn, producer: 1},
				{base: 7, deltas: []int32{0}, attrs: control, producer: 1, control: commitKey},
			},
			[]kafka.AbortedTxn{{Producer: 1, First: 0}, {Producer: 2, First: 1}}, []int64{3, 4, 6}, 8,
		},
		{
			"an aborted transaction that begins in the middle", 0,
			[]batchSpec{
				{base: 0, deltas: []int32{0}, attrs: txn, producer: 1},
				{base: 1, deltas: []int32{0}, attrs: control, producer: 1, control: commitKey},
				{base: 2, deltas: []int32{0}, attrs: txn, producer: 1},
				{base: 3, deltas: []int32{0}, attrs: control, producer: 1, control: abortKey},
				{base: 4, deltas: []int32{0}, attrs: txn, producer: 1},
				{base: 5, deltas: []int32{0}, attrs: control, producer: 1, control: abortKey},
			},
			[]kafka.AbortedTxn{{Producer: 1, First: 2}, {Producer: 1, First: 4}}, []int64{0}, 6,
		},
	} {
		for codec := kafka.None; codec <= kafka.Zstd; codec++ {
			t.Run(c.name+" "+codec.String(), func(t *testing.T) {
				var set []byte
				for _, b := range c.batches {
					if b.control == nil {
						b.codec = codec
					}
					set = append(set, b.raw()...)
				}
				rs, next, err := walk(set, c.from, c.aborted...)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(c.want, offsets(rs)); d != "" || next != c.next {
					t.Errorf("next offset %d, want %d; offsets (-want +got):\n%s", next, c.next, d)
				}
				for _, r := range rs {
					if want := fmt.Sprint(r.Offset); string(r.Value) != want {
						t.Errorf("offset %d has value %q", r.Offset, r.Value)
					}
				}
			})
		}
	}
}

func TestChunkTimes(t *testing.T) {
	for _, c := range []struct {
		attrs int16
		want  []int64
	}{{0, []int64{1000, 1001}}, {0x08, []int64{7777, 7777}}} { // the writer's and the log's
		rs, _, err := walk(batchSpec{deltas: []int32{0, 1}, lastDelta: 1, attrs: c.attrs, maxTime: 7777}.raw(), 0)
		if err != nil || len(rs) != 2 {
			t.Fatalf("%d records, %v", len(rs), err)
		}
		if got := []int64{rs[0].Timestamp, rs[1].Timestamp}; !slices.Equal(got, c.want) {
			t.Errorf("attributes %d: times %v, want %v", c.attrs, got, c.want)
		}
	}
}

// TestChunkCut cuts a set at every byte: what is whole is read, the rest is not.
func TestChunkCut(t *testing.T) {
	one, two := batchSpec{deltas: []int32{0, 1}, lastDelta: 1}.raw(), batchSpec{base: 2, deltas: []int32{0}}.raw()
	set := slices.Concat(one, two)
	for n := 1; n <= len(set); n++ {
		want, last := 0, int64(0)
		if n >= len(one) {
			want, last = 2, 2
		}
		if n == len(set) {
			want, last = 3, 3
		}
		rs, next, err := walk(slices.Clone(set[:n]), 0)
		if len(rs) != want || next != last || err != nil {
			t.Fatalf("%d of %d bytes: %d records, next %d, %v; want %d and %d", n, len(set), len(rs), next, err, want, last)
		}
	}
}

func TestChunkFaults(t *testing.T) {
	good := batchSpec{deltas: []int32{0, 1}, lastDelta: 1}.raw()
	change := func(f func(b []byte)) []byte {
		b := slices.Clone(good)
		f(b)
		return seal(b)
	}
	packed := batchSpec{deltas: []int32{0}, codec: kafka.Gzip}.raw()
	old := func(magic byte) []byte {
		b := make([]byte, 40)
		binary.BigEndian.PutUint32(b[8:], 28)
		b[16] = magic
		return b
	}
	for _, c := range []struct {
		name string
		set  []byte
		want error
	}{
		{"checksum", func() []byte { b := slices.Clone(good); b[70] ^= 1; return b }(), kafka.ErrChecksum},
		{"version 0", old(0), kafka.ErrOldBatch},
		{"version 1", old(1), kafka.ErrOldBatch},
		{"version 3", change(func(b []byte) { b[16] = 3 }), kafka.ErrCorrupt},
		{"length below a header's", change(func(b []byte) { binary.BigEndian.PutUint32(b[8:], 48) }), kafka.ErrCorrupt},
		{"length below nothing", change(func(b []byte) { binary.BigEndian.PutUint32(b[8:], math.MaxUint32) }), kafka.ErrCorrupt},
		{"offset below nothing", change(func(b []byte) { b[0] = 0xff }), kafka.ErrCorrupt},
		{"offsets too large", change(func(b []byte) { binary.BigEndian.PutUint64(b, math.MaxInt64) }), kafka.ErrCorrupt},
		{"last offset before the first", change(func(b []byte) { binary.BigEndian.PutUint32(b[23:], math.MaxUint32) }), kafka.ErrCorrupt},
		{"more records than offsets", change(func(b []byte) { binary.BigEndian.PutUint32(b[57:], 3) }), kafka.ErrCorrupt},
		{"records below nothing", change(func(b []byte) { binary.BigEndian.PutUint32(b[57:], math.MaxUint32) }), kafka.ErrCorrupt},
		{"fewer records than bytes", change(func(b []byte) { binary.BigEndian.PutUint32(b[57:], 1) }), kafka.ErrCorrupt},
		{"fewer bytes than records", batchSpec{lastDelta: 5, deltas: nil}.with(func(b []byte) { binary.BigEndian.PutUint32(b[57:], 1) }), kafka.ErrCorrupt},
		{"a record longer than the batch", change(func(b []byte) { b[61] = 0x7e }), kafka.ErrCorrupt},
		{"offset twice", batchSpec{deltas: []int32{0, 0}, lastDelta: 1}.raw(), kafka.ErrCorrupt},
		{"offset outside", batchSpec{deltas: []int32{0, 5}, lastDelta: 1}.raw(), kafka.ErrCorrupt},
		{"batches out of order", slices.Concat(batchSpec{base: 10, deltas: []int32{0}}.raw(), good), kafka.ErrCorrupt},
		{"unknown compression", change(func(b []byte) { b[22] = 5 }), kafka.ErrCorrupt},
		{"broken compression", seal(append(packed[:80:80], bytes.Repeat([]byte{0xff}, len(packed)-80)...)), kafka.ErrCorrupt},
		{"too large", batchSpec{deltas: []int32{0}, value: strings.Repeat("x", 2<<20), codec: kafka.Zstd}.raw(), kafka.ErrTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := walk(c.set, 0)
			var be *kafka.BatchError
			if !errors.Is(err, c.want) || !errors.As(err, &be) || be.TP != fetchPart(0) {
				t.Fatalf("error %v, want a BatchError that is %v", err, c.want)
			}
			if text := err.Error(); !strings.Contains(text, "topic t, partition 0, offset ") {
				t.Errorf("the error does not say where: %s", text)
			}
		})
	}
}

// with changes a batch and seals it.
func (s batchSpec) with(f func(b []byte)) []byte {
	b := s.raw()
	f(b)
	return seal(b)
}

// TestChunkEndsByCaller requires that an error of the callback comes back as it is,
// and at once.
func TestChunkEndsByCaller(t *testing.T) {
	c, _ := kafka.NewChunk(fetchPart(0), 0, batchSpec{deltas: []int32{0, 1}, lastDelta: 1}.raw(), nil, 0)
	defer c.Release()
	mine, n := errors.New("mine"), 0
	if err := c.Records(func(*kafka.Record) error { n++; return mine }); err != mine || n != 1 {
		t.Errorf("Records = %v after %d records", err, n)
	}
}

// TestChunkBitFlips is F17: every single bit of a set of batches, and 10,000 random
// larger faults. Either there is an error, or the set ends earlier, or nothing that is
// read has changed but offsets, whose base stands outside the checksum.
func TestChunkBitFlips(t *testing.T) {
	for codec := kafka.None; codec <= kafka.Zstd; codec++ {
		t.Run(codec.String(), func(t *testing.T) {
			set := slices.Concat(
				batchSpec{deltas: []int32{0, 1, 4}, lastDelta: 5, value: "some text, some text ", codec: codec}.raw(),
				batchSpec{base: 6, deltas: []int32{0}, attrs: 0x30, producer: 1, control: commitKey}.raw(),
				batchSpec{base: 7, deltas: []int32{0, 1}, lastDelta: 1, codec: codec}.raw(),
			)
			want, _, err := walk(slices.Clone(set), 0)
			if err != nil {
				t.Fatal(err)
			}
			broken := make([]byte, len(set))
			for bit := range 8 * len(set) {
				copy(broken, set)
				broken[bit/8] ^= 1 << (bit % 8)
				requireNoLie(t, fmt.Sprint("bit ", bit), set, broken, want)
			}
			rng := rand.New(rand.NewPCG(uint64(codec), 1))
			for i := range 2000 {
				copy(broken, set)
				for range 1 + rng.IntN(8) {
					broken[rng.IntN(len(set))] ^= byte(1 + rng.IntN(255))
				}
				requireNoLie(t, fmt.Sprint("case ", i), set, broken, want)
			}
		})
	}
}

func requireNoLie(t *testing.T, name string, set, broken []byte, want []plainRecord) {
	t.Helper()
	got, next, err := walk(slices.Clone(broken), 0)
	if len(got) > len(want) {
		t.Fatalf("%s: %d records of %d", name, len(got), len(want))
	}
	// The offset of a batch is not under its checksum: brokers write it later.
	sound := slices.Clone(broken)
	for at := 0; at < len(set); at += 12 + int(binary.BigEndian.Uint32(set[at+8:])) {
		copy(sound[at:at+8], set[at:])
	}
	if err == nil && len(got) < len(want) && next > want[len(got)].Offset && bytes.Equal(sound, broken) {
		t.Fatalf("%s: offset %d is passed in silence", name, want[len(got)].Offset)
	}
	for i, r := range got {
		w := want[i]
		if !bytes.Equal(sound, broken) {
			w.Offset = r.Offset
		}
		if !reflect.DeepEqual(r, w) {
			t.Fatalf("%s: record %d is %v, want %v", name, i, r, want[i])
		}
	}
}

func TestChunkAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("SKIPPED: allocations are not counted under the race detector")
	}
	var w kafka.BatchWriter
	w.Reset(kafka.None, nil)
	value := bytes.Repeat([]byte("0123456789abcdef"), 16)
	for i := range 4000 {
		if err := w.Append(value[:8], value, []kafka.Header{{Key: "a", Value: value[:3]}}, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := w.Finish(-1, -1, -1, false)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := kafka.NewChunk(fetchPart(0), 0, raw, nil, 0)
	n := 0
	run := func() {
		if err := c.Records(func(r *kafka.Record) error {
			for k, v := range r.Headers.All() {
				n += len(k) + len(v)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if got := testing.AllocsPerRun(20, run); got > 3 {
		t.Errorf("4,000 records and their headers allocate %v times", got)
	}
}

// FuzzRecords requires of any bytes that reading them ends without a panic, in order,
// and never behind what the headers say.
func FuzzRecords(f *testing.F) {
	for codec := kafka.None; codec <= kafka.Zstd; codec++ {
		f.Add(batchSpec{deltas: []int32{0, 3}, lastDelta: 9, codec: codec}.raw(), int64(0), true)
	}
	f.Add(batchSpec{deltas: []int32{0}, attrs: 0x30, control: abortKey}.raw(), int64(7), true)
	f.Add(batchSpec{lastDelta: 9}.raw(), int64(3), false)
	f.Fuzz(func(t *testing.T, set []byte, from int64, mend bool) {
		if mend { // so that what is behind the checksum is reached
			for b := set; len(b) >= 61; {
				n := int(int32(binary.BigEndian.Uint32(b[8:]))) + 12
				if n < 61 || n > len(b) {
					break
				}
				seal(b[:n])
				b = b[n:]
			}
		}
		c, _ := kafka.NewChunk(fetchPart(0), from, set, []kafka.AbortedTxn{{Producer: 1, First: 2}}, 1<<20)
		defer c.Release()
		last := int64(-1)
		err := c.Records(func(r *kafka.Record) error {
			if r.Offset < from || r.Offset <= last || r.Offset >= c.Next {
				t.Fatalf("offset %d behind %d, from %d, next %d", r.Offset, last, from, c.Next)
			}
			last = r.Offset
			n := 0
			for range r.Headers.All() {
				n++
			}
			if n != r.Headers.Len() {
				t.Fatalf("%d headers of %d", n, r.Headers.Len())
			}
			return nil
		})
		var be *kafka.BatchError
		if err != nil && !errors.As(err, &be) {
			t.Fatalf("error %v is no BatchError", err)
		}
	})
}
