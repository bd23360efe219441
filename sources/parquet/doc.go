// Package parquet reads rows from Parquet files.
//
//	src, err := parquet.New(parquet.Config{Paths: []string{"day/*.parquet"}})
//	...
//	for b, err := range src.Batches(ctx, nil) {
//		if err != nil {
//			return err
//		}
//		use(b)
//		b.Release()
//	}
//
// New lists the files, reads their footers and merges their schemas, so that
// every fault of an input is known, and told at once, before a row is read.
//
// The mistake to avoid is to expect plain string arrays: strings come as Arrow
// dictionaries, and each batch may have another dictionary.
package parquet
