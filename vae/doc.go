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
// The negative ELBO of a row at the posterior mean is its reconstruction error
// (negative log-likelihood summed over columns) plus the KL divergence from the
// prior (summed over latents), both in nats. A model of one member scores it. A
// model of two, the default, has a mixture beside the autoencoder and scores the
// sum of both members' surprises: -log of the tail probability of each negative
// ELBO among held-out rows. Values that training hardly ever saw are added at
// their smoothed rates. A score depends on nothing but the row; scores of two
// models do not compare, their tail probabilities do. The mistake to avoid is to
// mix a mean of one part with a sum of the other.
package vae
