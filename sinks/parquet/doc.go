// Package parquet writes rows to Parquet files that are whole or not there.
//
//	sink, err := parquet.New(parquet.Config{Path: "scores/"})
//	...
//	defer sink.Close()
//	err = sink.Bind(schema)
//	err = sink.Write(ctx, 1, rec)
//	err = sink.Flush(ctx)
//
// A path that ends in .parquet is one file; any other is a folder of parts,
// part-000000.parquet and so on. A file is written under a temporary name,
// synced, and renamed: that is when its batches become durable.
//
// The mistake to avoid is to forget Flush: Close without it gives up what is not
// durable, because a run that was broken off must not look finished.
package parquet
