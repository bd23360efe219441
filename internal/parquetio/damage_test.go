package parquetio_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"github.com/elbo-stream/elbo/internal/parquetio"
)

var damageCopies = flag.Int("damage", 50, "damaged copies of each file in TestDamage")

// damageSchema has a column for each way of decoding.
func damageSchema() *arrow.Schema {
	return arrow.NewSchema([]arrow.Field{
		{Name: "f", Type: arrow.PrimitiveTypes.Float32, Nullable: true},
		{Name: "d", Type: arrow.PrimitiveTypes.Float64},
		{Name: "i8", Type: arrow.PrimitiveTypes.Int8, Nullable: true},
		{Name: "i64", Type: arrow.PrimitiveTypes.Int64},
		{Name: "b", Type: arrow.FixedWidthTypes.Boolean, Nullable: true},
		{Name: "s", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "raw", Type: arrow.BinaryTypes.Binary, Nullable: true},
		{Name: "fix", Type: &arrow.FixedSizeBinaryType{ByteWidth: 3}},
		{Name: "l", Type: arrow.ListOf(arrow.PrimitiveTypes.Float32), Nullable: true},
		{Name: "ls", Type: arrow.ListOf(arrow.StructOf(arrow.Field{Name: "c", Type: arrow.BinaryTypes.String, Nullable: true}, arrow.Field{Name: "v", Type: arrow.PrimitiveTypes.Float32}))},
	}, nil)
}

// damageFiles writes a small file of every codec, encoding and page version.
func damageFiles(t testing.TB, checksums bool) map[string][]byte {
	schema := damageSchema()
	rec := sampleRecord(t, schema, 120)
	out := map[string][]byte{}
	for _, codec := range []parquetio.Compression{parquetio.Uncompressed, parquetio.Zstd, parquetio.Snappy, parquetio.Lz4Raw, parquetio.Gzip} {
		for _, enc := range []parquetio.Encoding{parquetio.Auto, parquetio.Plain, parquetio.Dictionary, parquetio.Delta} {
			for version := 1; version <= 2; version++ {
				var b bytes.Buffer
				w, err := parquetio.NewWriter(&b, schema, parquetio.WriterOptions{Compression: codec, Encoding: enc, PageVersion: version, GroupRows: 70, PageBytes: 150})
				if err != nil {
					t.Fatal(err)
				}
				if !checksums {
					parquetio.WithoutChecksums(w)
				}
				if err := w.Write(rec); err != nil {
					t.Fatal(err)
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				out[fmt.Sprint(codec, "/", enc, "/v", version)] = b.Bytes()
			}
		}
	}
	return out
}

// bodies returns the ranges of a file that page checksums cover.
func bodies(t testing.TB, b []byte) (out [][2]int) {
	f, err := parquet.OpenFile(bytes.NewReader(b), int64(len(b)), parquet.SkipPageIndex(true))
	if err != nil {
		t.Fatal(err)
	}
	for _, rg := range f.Metadata().RowGroups {
		for _, c := range rg.Columns {
			at := c.MetaData.DataPageOffset
			if d := c.MetaData.DictionaryPageOffset; d > 0 {
				at = d
			}
			for end := at + c.MetaData.TotalCompressedSize; at < end; {
				r := (&thrift.CompactProtocol{}).NewReaderFromBytes(b[at:end])
				var h format.PageHeader
				if err := thrift.NewDecoder(r).Decode(&h); err != nil {
					t.Fatal(err)
				}
				from := int(at) + r.BytesRead()
				at = int64(from) + int64(h.CompressedPageSize)
				out = append(out, [2]int{from, int(at)})
			}
		}
	}
	return out
}

// damage changes a copy of a file: a bit, a byte, a byte of the footer, the
// footer's length, three bytes, or its end is cut off. It returns where.
func damage(orig []byte, seed uint64) (b []byte, at []int) {
	rng := rand.New(rand.NewPCG(seed, 7))
	b = bytes.Clone(orig)
	footer := int(b[len(b)-8]) | int(b[len(b)-7])<<8 | int(b[len(b)-6])<<16
	set := func(i int, v byte) {
		if b[i] != v {
			b[i], at = v, append(at, i)
		}
	}
	switch seed % 8 {
	case 0, 1, 2:
		i := rng.IntN(len(b))
		set(i, b[i]^1<<rng.IntN(8))
	case 3:
		set(rng.IntN(len(b)), byte(rng.IntN(256)))
	case 4:
		set(len(b)-8-footer+rng.IntN(footer+8), byte(rng.IntN(256)))
	case 5:
		set(len(b)-8+rng.IntN(4), byte(rng.IntN(256)))
	case 6:
		for range 3 {
			set(rng.IntN(len(b)), byte(rng.IntN(256)))
		}
	case 7:
		n := rng.IntN(len(b))
		return b[:n], []int{n}
	}
	return b, at
}

// TestDamage reads damaged copies. Each must give an error or data; no panic, no
// hang, no allocation above the cap. Damage that lies in page bodies only is
// always found where pages have checksums.
func TestDamage(t *testing.T) {
	const limit = 2 * parquetio.MaxPageBytes
	for _, checksums := range []bool{true, false} {
		t.Run(fmt.Sprintf("checksums=%v", checksums), func(t *testing.T) {
			count := map[string]int{}
			var most uint64
			var slowest time.Duration
			for name, orig := range damageFiles(t, checksums) {
				recs, err := read(orig, parquetio.ReadOptions{})
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				want := rowsOf(recs)
				pages := bodies(t, orig)
				for seed := range uint64(*damageCopies) {
					b, at := damage(orig, seed)
					mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
					var before, after runtime.MemStats
					runtime.ReadMemStats(&before)
					start := time.Now()
					got, err := read(b, parquetio.ReadOptions{BatchRows: 50, Allocator: mem})
					slowest = max(slowest, time.Since(start))
					runtime.ReadMemStats(&after)
					used := after.TotalAlloc - before.TotalAlloc
					most = max(most, used)
					if used > limit {
						t.Errorf("%s seed %d: %d bytes allocated, the cap is %d", name, seed, used, limit)
					}
					switch {
					case err != nil:
						count["error"]++
					case reflect.DeepEqual(rowsOf(got), want):
						count["same"]++
					default:
						count["other data"]++
						if checksums && inside(pages, at) {
							t.Errorf("%s seed %d: damage at %v went unnoticed", name, seed, at)
						}
					}
					release(got)
					mem.AssertSize(t, 0)
				}
			}
			t.Logf("%v; at most %d bytes and %v for one", count, most, slowest)
			if slowest > 10*time.Second {
				t.Errorf("one copy took %v", slowest)
			}
		})
	}
}

func inside(pages [][2]int, at []int) bool {
	for _, i := range at {
		in := false
		for _, p := range pages {
			in = in || i >= p[0] && i < p[1]
		}
		if !in {
			return false
		}
	}
	return len(at) > 0
}

// readAny reads whatever b is; it must not panic.
func readAny(b []byte, mem memory.Allocator) {
	f, err := parquetio.Open(bytes.NewReader(b), int64(len(b)), "fuzz")
	if err != nil {
		return
	}
	var columns []int
	for i, c := range f.Columns() {
		if c.Err == nil {
			columns = append(columns, i)
		}
	}
	for g := range f.Groups() {
		n := 0
		for rec, err := range f.Read(context.Background(), g, parquetio.ReadOptions{Columns: columns, BatchRows: 100, Allocator: mem}) {
			if err != nil {
				break
			}
			rec.Release()
			if n++; n == 1000 {
				break // a damaged count may promise nulls for hours
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	for _, b := range damageFiles(f, false) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
		readAny(b, mem)
		mem.AssertSize(t, 0)
	})
}
