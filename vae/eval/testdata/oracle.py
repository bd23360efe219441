"""Writes oracle.json: what scikit-learn, scipy and numpy say of small score sets.

    python3 -m venv VENV && VENV/bin/pip install scikit-learn==1.9.1 scipy numpy
    VENV/bin/python oracle.py > oracle.json
"""
import json

import numpy as np
from scipy.stats import beta, spearmanr
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

rng = np.random.default_rng(20)
cases = []


def case(name, scores, labels):
    scores, labels = np.asarray(scores, float), np.asarray(labels, bool)
    other = np.round(scores + rng.normal(0, 1, len(scores)), 1)
    limit = float(np.quantile(scores, 0.8))
    flags = scores > limit
    f1s = [f1_score(labels, scores >= t) for t in np.unique(scores)]
    qs = [0, 0.01, 0.25, 0.5, 0.9, 0.999, 1]
    cases.append(dict(
        name=name, scores=scores.tolist(), labels=labels.tolist(), other=other.tolist(), limit=limit,
        auroc=roc_auc_score(labels, scores), ap=average_precision_score(labels, scores),
        precision=precision_score(labels, flags, zero_division=0), recall=recall_score(labels, flags),
        f1=f1_score(labels, flags, zero_division=0), best_f1=max(f1s),
        q=qs, quantiles=np.quantile(scores, qs).tolist(),
        spearman=float(spearmanr(scores, other).statistic),
    ))


for n in (5, 7, 40, 300):
    labels = rng.random(n) < 0.2
    labels[0], labels[-1] = True, False
    case(f"continuous {n}", rng.normal(0, 1, n) + 1.5 * labels, labels)
    case(f"ties {n}", np.round(rng.normal(0, 1, n) + labels), labels)
case("perfect", np.arange(20), np.arange(20) >= 15)
case("reversed", -np.arange(20.0), np.arange(20) >= 15)
case("heavy tail", np.exp(rng.normal(0, 3, 100)), rng.random(100) < 0.3)

rates = []
for k, n in ((0, 50), (1, 1000), (7, 1000), (50, 50), (123, 100000)):
    low = 0.0 if k == 0 else float(beta.ppf(0.025, k, n - k + 1))
    high = 1.0 if k == n else float(beta.ppf(0.975, k + 1, n - k))
    rates.append(dict(alerts=k, rows=n, low=low, high=high))
print(json.dumps(dict(cases=cases, rates=rates), indent=None))
