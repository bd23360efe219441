// Package eval judges scores: ranking metrics (AUROC, average precision),
// figures at an alert limit, achieved against promised alert rates, agreement of
// two score sets, histograms, planted anomalies, and a report as JSON, terminal
// table or HTML page.
//
//	auroc, err := eval.AUROC(scores, labels)
//	report, err := eval.Build(eval.Input{Scores: scores, Labels: labels, Limit: &limit})
//	err = report.WriteHTML(w)
//
// A higher score is stranger, a true label is an anomaly, and a row is flagged
// when its score is strictly above the limit, everywhere in this package. Equal
// scores share their rank, so the order of the rows never changes a figure.
//
// The mistake to avoid is to drop what cannot be judged: a NaN score is an error
// here and a missing label has no place in a []bool, so Collect takes both out
// of Arrow columns and says how many there were.
package eval
