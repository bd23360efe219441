// Package baseline holds plain detectors of anomalies to hold a model against:
// the fifth nearest neighbour, Mahalanobis distance, isolation forest, PCA and
// ECOD. Each has settings that its users know from scikit-learn and PyOD, and no
// other.
//
//	scale, err := baseline.FitScale(train, nil)
//	scale.Apply(train)
//	scale.Apply(test)
//	for _, d := range baseline.All(1) {
//		err := d.Fit(ctx, train)
//		err = d.Score(ctx, test, scores)
//	}
//
// Everything here computes in float64 and in a fixed order: the same rows and
// seed give the same bits, and a row's score does not depend on the rows that are
// scored with it.
//
// All is plain Go. That is near scikit-learn's cost up to some tens of
// columns; on many hundreds its neighbours and covariances, which multiply matrices
// in assembly, take up to 25 times less.
//
// The mistake to avoid is to fit the Scale on other rows than those that train
// the detectors, or not to apply it: distances then mean whatever units the
// columns happen to have.
package baseline
