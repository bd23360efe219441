package protobuf_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/protobuf"
)

const benchRows = 4096

// benchSchema has an id, a time and 32 features, each a field and all of them packed.
var benchSchema = func() string {
	s := `syntax = "proto3"; message Row { string id = 1; int64 ts = 2; repeated float packed = 100;`
	for i := range 32 {
		s += fmt.Sprintf(" float f%d = %d;", i, i+3)
	}
	return s + "}"
}()

func benchValues(t testing.TB, packed bool) *array.Binary {
	m := describe(t, benchSchema)
	field := func(name string) protoreflect.FieldDescriptor { return m.Fields().ByName(protoreflect.Name(name)) }
	r := rand.New(rand.NewPCG(1, 2))
	var values [][]byte
	for i := range benchRows {
		row := dynamicpb.NewMessage(m)
		row.Set(field("id"), protoreflect.ValueOfString(fmt.Sprintf("sensor-%d", i)))
		row.Set(field("ts"), protoreflect.ValueOfInt64(int64(1700000000000+i)))
		for f := range 32 {
			v := protoreflect.ValueOfFloat32(float32(r.NormFloat64()))
			if packed {
				row.Mutable(field("packed")).List().Append(v)
			} else {
				row.Set(field(fmt.Sprint("f", f)), v)
			}
		}
		values = append(values, marshal(t, row))
	}
	return binaryOf(values...)
}

// rate reports rows for each second of CPU, garbage collection included.
func rate(b *testing.B, rows int, f func()) {
	b.Helper()
	b.ReportAllocs()
	begin, n := cpuSeconds(), 0
	for b.Loop() {
		f()
		n += rows
	}
	b.ReportMetric(float64(n)/(cpuSeconds()-begin), "rows/cpu-s")
}

func cpuSeconds() float64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
}

func BenchmarkDecode(b *testing.B) {
	columns := []codec.Column{{Name: "id", Type: arrow.BinaryTypes.String}, {Name: "ts", Type: arrow.PrimitiveTypes.Int64}}
	fields := append([]codec.Column{}, columns...)
	for f := range 32 {
		fields = append(fields, codec.Column{Name: fmt.Sprint("f", f), Type: arrow.PrimitiveTypes.Float32})
	}
	packed := append(columns, codec.Column{Name: "packed", Type: arrow.FixedSizeListOf(32, arrow.PrimitiveTypes.Float32)})
	for name, columns := range map[string][]codec.Column{"fields": fields, "packed": packed} {
		b.Run("features="+name, func(b *testing.B) {
			values := benchValues(b, name == "packed")
			f, err := protobuf.New(context.Background(), protobuf.Config{Columns: columns, Framing: protobuf.Bare, Schema: benchSchema})
			if err != nil {
				b.Fatal(err)
			}
			d := f.NewDecoder(memory.DefaultAllocator)
			defer d.Release()
			b.SetBytes(int64(len(values.ValueBytes())))
			rate(b, benchRows, func() {
				got, err := d.Decode(context.Background(), values)
				if err != nil || got.Record.NumRows() != benchRows {
					b.Fatal(err, got.Faults)
				}
				got.Record.Release()
			})
		})
	}
}
