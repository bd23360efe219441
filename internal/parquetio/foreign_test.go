package parquetio_test

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/elbo-stream/elbo/internal/parquetio"
)

// foreign is written by parquet-go.
type foreign struct {
	Bare  []float32   `parquet:"bare"` // repeated, without a list around it
	List  []int32     `parquet:"list,list"`
	Deep  [][]float64 `parquet:"deep,list"`
	Name  string      `parquet:"name,delta"`
	City  *string     `parquet:"city,optional,dict"`
	Split float32     `parquet:"split,split"`
	Delta int64       `parquet:"delta,delta"`
	ID    [16]byte    `parquet:"id,uuid"`
	Flag  bool        `parquet:"flag"`
}

func TestReadsParquetGo(t *testing.T) {
	var in []foreign
	for i := range 700 {
		f := foreign{Name: fmt.Sprint("name", i), Split: float32(i) / 3, Delta: int64(i * i), Flag: i%3 == 0, ID: [16]byte{byte(i)}}
		for k := range i % 4 {
			f.Bare = append(f.Bare, float32(k))
			f.List = append(f.List, int32(i))
		}
		if i%5 > 0 {
			s := fmt.Sprint("city", i%7)
			f.City = &s
		}
		in = append(in, f)
	}
	for _, opts := range [][]parquet.WriterOption{
		{parquet.DataPageVersion(1)}, {parquet.DataPageVersion(2), parquet.Compression(&parquet.Zstd)},
		{parquet.Compression(&parquet.Snappy), parquet.PageBufferSize(512), parquet.MaxRowsPerRowGroup(300)},
	} {
		var b bytes.Buffer
		w := parquet.NewGenericWriter[foreign](&b, opts...)
		if _, err := w.Write(in); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		recs, err := read(b.Bytes(), parquetio.ReadOptions{BatchRows: 64, Allocator: checked(t)})
		if err != nil {
			t.Fatal(err)
		}
		at := map[string][]any{}
		for i, col := range rowsOf(recs) {
			at[recs[0].ColumnName(i)] = col
		}
		for i, f := range in {
			bare, list := []any{}, []any{}
			for k := range f.Bare {
				bare = append(bare, fmt.Sprintf("f32:%08x", math.Float32bits(f.Bare[k])))
				list = append(list, fmt.Sprint(f.List[k]))
			}
			var city any
			if f.City != nil {
				city = "s" + *f.City
			}
			for name, want := range map[string]any{
				"bare": fmt.Sprint("list", bare), "list": fmt.Sprint("list", list), "deep": "list[]", "name": "s" + f.Name, "city": city,
				"split": fmt.Sprintf("f32:%08x", math.Float32bits(f.Split)), "delta": fmt.Sprint(f.Delta), "flag": fmt.Sprint(f.Flag), "id": "f" + string(f.ID[:]),
			} {
				if at[name][i] != want {
					t.Fatalf("row %d: %s = %v, want %v", i, name, at[name][i], want)
				}
			}
		}
		release(recs)
	}
}
