package kafka_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// A plainRecord is what a record must be on both sides of a round trip.
type plainRecord struct {
	Offset, Timestamp int64
	Key, Value        []byte
	Headers           []kafka.Header
}

// franzReads gives batches to franz-go's reader, which is not ours.
func franzReads(t interface {
	Helper()
	Fatalf(string, ...any)
}, batches []byte) []plainRecord {
	t.Helper()
	p := kmsg.NewFetchResponseTopicPartition()
	p.RecordBatches = batches
	got, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Topic: "t"}, &p, kgo.DefaultDecompressor(), nil)
	if got.Err != nil {
		t.Fatalf("franz-go reads: %v", got.Err)
	}
	var out []plainRecord
	for _, r := range got.Records {
		p := plainRecord{Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			p.Headers = append(p.Headers, kafka.Header{Key: h.Key, Value: h.Value})
		}
		out = append(out, p)
	}
	return out
}

// drawRecord draws any record, with nulls, empty values and values that compress.
func drawRecord(t *rapid.T) plainRecord {
	value := rapid.OneOf(
		rapid.Just([]byte(nil)),
		rapid.SliceOfN(rapid.Byte(), 0, 300),
		rapid.Map(rapid.IntRange(0, 500), func(n int) []byte { return bytes.Repeat([]byte("ab"), n) }),
	)
	r := plainRecord{
		// franz-go holds the distance in nanoseconds, so it reads no larger ones.
		Timestamp: rapid.Int64Range(0, 1<<42).Draw(t, "timestamp"),
		Key:       value.Draw(t, "key"),
		Value:     value.Draw(t, "value"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "headers") {
		r.Headers = append(r.Headers, kafka.Header{
			Key: rapid.StringN(0, 20, -1).Draw(t, "header"), Value: value.Draw(t, "header value"),
		})
	}
	return r
}

func TestBatchWriterByFranz(t *testing.T) {
	for codec := kafka.None; codec <= kafka.Zstd; codec++ {
		t.Run(codec.String(), func(t *testing.T) {
			var pool kafka.Compressors
			var w kafka.BatchWriter
			rapid.Check(t, func(t *rapid.T) {
				want := rapid.SliceOfN(rapid.Custom(drawRecord), 1, 30).Draw(t, "records")
				w.Reset(codec, &pool)
				for i := range want {
					r := &want[i]
					r.Offset = int64(i)
					before, most := w.Size(), kafka.RecordSize(r.Key, r.Value, r.Headers)
					if err := w.Append(r.Key, r.Value, r.Headers, r.Timestamp); err != nil {
						t.Fatal(err)
					}
					if grown := w.Size() - before; grown > most {
						t.Fatalf("record %d takes %d bytes, RecordSize = %d", i, grown, most)
					}
				}
				if w.Len() != len(want) {
					t.Fatalf("Len() = %d, want %d", w.Len(), len(want))
				}
				raw, err := w.Finish(-1, -1, -1, false)
				if err != nil {
					t.Fatal(err)
				}
				if len(raw) > w.Size() {
					t.Fatalf("the batch has %d bytes, Size() = %d", len(raw), w.Size())
				}
				if got := franzReads(t, raw); !reflect.DeepEqual(want, got) {
					t.Fatalf("franz-go read (-want +got):\n%s", cmp.Diff(want, got))
				}
			})
		})
	}
}

// TestBatchWriterHeader compares each field with what kmsg reads, over two
// producers and both kinds, and requires that the records stay.
func TestBatchWriterHeader(t *testing.T) {
	var w kafka.BatchWriter
	w.Reset(kafka.Lz4, nil)
	for i := range 1000 {
		if err := w.Append(nil, []byte("value value value value"), nil, 1000-int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		producer      int64
		epoch         int16
		sequence      int32
		transactional bool
		attributes    int16
	}{
		{7, 3, 12, true, 0x13},
		{math.MaxInt64, math.MaxInt16, math.MaxInt32, false, 0x03},
		{-1, -1, -1, false, 0x03},
	} {
		raw, err := w.Finish(c.producer, c.epoch, c.sequence, c.transactional)
		if err != nil {
			t.Fatal(err)
		}
		var got kmsg.RecordBatch
		if err := got.ReadFrom(raw); err != nil {
			t.Fatal(err)
		}
		want := kmsg.RecordBatch{
			FirstOffset: 0, Length: int32(len(raw) - 12), PartitionLeaderEpoch: -1, Magic: 2, CRC: got.CRC,
			Attributes: c.attributes, LastOffsetDelta: 999, FirstTimestamp: 1000, MaxTimestamp: 1000,
			ProducerID: c.producer, ProducerEpoch: c.epoch, FirstSequence: c.sequence, NumRecords: 1000,
		}
		if d := cmp.Diff(want, got, cmpopts.IgnoreFields(kmsg.RecordBatch{}, "Records"), cmpopts.IgnoreUnexported(kmsg.RecordBatch{})); d != "" {
			t.Errorf("header (-want +got):\n%s", d)
		}
		if n := len(franzReads(t, raw)); n != 1000 {
			t.Errorf("franz-go reads %d records, want 1000", n)
		}
	}
}

func TestBatchWriterEdges(t *testing.T) {
	var w kafka.BatchWriter
	if _, err := w.Finish(-1, -1, -1, false); err == nil {
		t.Error("a batch without records is finished without an error")
	}
	if got := w.Size(); got != 61 {
		t.Errorf("Size() of nothing = %d, want 61", got)
	}
	// Random bytes do not shrink, so they go as they are, and the codec says so.
	w.Reset(kafka.Zstd, nil)
	noise := make([]byte, 1000)
	for i := range noise {
		binary.BigEndian.PutUint16(noise[i&^1:], uint16(i*i*40503))
	}
	if err := w.Append(nil, noise[:3], nil, 5); err != nil {
		t.Fatal(err)
	}
	raw, err := w.Finish(-1, -1, -1, false)
	if err != nil {
		t.Fatal(err)
	}
	if codec := raw[22] & 7; codec != 0 {
		t.Errorf("three bytes go with codec %d, want none", codec)
	}
	// A batch may grow after Finish.
	if err := w.Append([]byte("k"), []byte("v"), nil, math.MaxInt64); err != nil {
		t.Fatal(err)
	}
	if raw, err = w.Finish(-1, -1, -1, false); err != nil {
		t.Fatal(err)
	}
	if n := len(franzReads(t, raw)); n != 2 {
		t.Errorf("franz-go reads %d records, want 2", n)
	}
}

func TestBatchWriterAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("SKIPPED: allocations are not counted under the race detector")
	}
	key, value := []byte("key"), bytes.Repeat([]byte("0123456789abcdef"), 16)
	headers := []kafka.Header{{Key: "a", Value: value[:7]}, {Key: "b"}}
	for codec := kafka.None; codec <= kafka.Zstd; codec++ {
		var w kafka.BatchWriter
		pool := &kafka.Compressors{}
		run := func() {
			w.Reset(codec, pool)
			for i := range 1000 {
				if err := w.Append(key, value, headers, int64(i)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := w.Finish(1, 1, 1, true); err != nil {
				t.Fatal(err)
			}
		}
		run()
		if n := testing.AllocsPerRun(20, run); n > 2 {
			t.Errorf("%v: 1,000 records and a batch allocate %v times", codec, n)
		}
	}
}

func TestCompressionNames(t *testing.T) {
	for c := kafka.None; c <= kafka.Zstd; c++ {
		text, err := c.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var got kafka.Compression
		if err := got.UnmarshalText(text); err != nil || got != c {
			t.Errorf("%s is read as %v, %v", text, got, err)
		}
	}
	if _, err := kafka.ParseCompression("brotli"); err == nil || !strings.Contains(err.Error(), `"brotli"`) {
		t.Errorf("brotli: %v", err)
	}
	if c, err := kafka.ParseCompression(""); err != nil || c != kafka.None {
		t.Errorf("no name: %v, %v", c, err)
	}
	if _, err := kafka.Compression(9).MarshalText(); err == nil {
		t.Error("compression 9 has a name")
	}
}

func ExampleBatchWriter() {
	var w kafka.BatchWriter
	w.Reset(kafka.None, nil)
	if err := w.Append([]byte("key"), []byte("value"), nil, 1700000000000); err != nil {
		fmt.Println(err)
		return
	}
	raw, err := w.Finish(-1, -1, -1, false)
	fmt.Println(w.Len(), len(raw) == w.Size(), errors.Is(err, kafka.ErrBatchFull))
	// Output: 1 true false
}
