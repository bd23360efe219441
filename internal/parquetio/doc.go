// Package parquetio is what both Parquet ends share: a guarded reader of row
// groups into Arrow records and a writer of Arrow records into row groups.
//
//	f, err := parquetio.Open(r, size, "in.parquet")
//	...
//	for rec, err := range f.Read(ctx, group, parquetio.ReadOptions{}) {
//		if err != nil {
//			return err
//		}
//		use(rec) // the caller owns rec
//		rec.Release()
//	}
//
// Nothing a file says is believed before it is compared with something else:
// the footer's length with the file, offsets with the file, counts with the
// levels, run headers with the counts, sizes with caps. A damaged file gives an
// *Error with its place, never a panic and never an allocation beyond
// MaxPageBytes. The page loop is this package's own; of parquet-go it uses the
// thrift structs and the value encoders, whose limits are checked first.
//
// The mistake to avoid is to hold records of many row groups: each record owns
// buffers as large as its rows, and only Release gives them back.
package parquetio
