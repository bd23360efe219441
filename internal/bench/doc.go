// Package bench measures how fast rows are scored: the nets, the rows and the
// loops that `elbo bench`, the comparison with other systems (package peers
// below) and the benchmarks of the pipeline share.
//
//	net := bench.Nets()[0]
//	model, err := net.Model(net.RandomWeights(1))
//	figure, err := bench.Measure(ctx, model, net.Record(256), bench.Point{Batch: 256, Workers: 1}, 300*time.Millisecond)
//
// What is measured is the whole job through the public door: from an Arrow
// record to score, reconstruction error and KL divergence of each row, nothing
// written and nothing blamed. The mistake to avoid is to compare figures of two
// runs: other load on the machine moves them by more than most changes do.
package bench
