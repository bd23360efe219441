// Package vae is the variational autoencoder of elbo: its specification,
// in-model preprocessing, likelihood heads, ELBO, scorer, attribution,
// calibration and model file.
//
// A Model is immutable and safe for concurrent use; a Scorer belongs to one
// goroutine:
//
//	model, err := vae.Load("pay.elbo")
//	scorer, err := model.NewScorer(schema, vae.Options{Top: 5})
//	res, err := scorer.Score(record)     // res.Score[i], res.Recon[i], res.KL[i] in nats
//
// The score of a row is its negative ELBO at the posterior mean: reconstruction
// error (negative log-likelihood summed over columns) plus KL divergence from
// the prior (summed over latents), both in nats. It depends on nothing but the
// row. The likelihood is a density on the standardised scale, so scores of
// models that standardise differently do not compare; their tail probabilities
// do. The mistake to avoid is to mix a mean of one part with a sum of the other.
package vae
