// Package train fits a variational autoencoder to rows: backward pass,
// optimizers, schedules, early stop, checkpoints, calibration.
//
//	model, err := train.Run(ctx, train.Config{Seed: 1}, data)
//
// Training is repeatable to the bit: the same rows, configuration and kind of
// CPU give the same model, whatever the number of workers and however often it
// was interrupted and resumed. A batch is split into tiles of vae.TileRows rows,
// the tiles into shards, contiguous ranges that follow from the size of the batch
// alone. A shard adds up the gradients of its tiles in order, and the shards are
// added in order. A worker takes whole shards, of which a batch of up to 1,024
// rows has at most four, a larger one a shard for each 256 rows, at most 16: more
// workers than that find nothing to do.
//
// The mistake to avoid is to train on rows that hold the anomalies to be found:
// what the model has learned to rebuild it does not find strange.
package train
