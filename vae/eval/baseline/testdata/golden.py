"""Writes golden.json: what scikit-learn and PyOD say of two small tables.

    python3 -m venv VENV && VENV/bin/pip install numpy scipy scikit-learn==1.9.1 pyod==3.6.7
    VENV/bin/python golden.py > golden.json

The columns are standardised with figures of the training rows, a constant one by 1. PyOD's ECOD
is asked row by row, for it counts all rows that it is given among the training rows; of a column
without spread it says NaN, which counts as nothing.
"""
import json

import numpy as np
from pyod.models.ecod import ECOD
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler


def mixed(rng):
    """Correlated columns, one of them skewed; the last ten rows stand apart."""
    mix = rng.randn(4, 5)
    draw = lambda n: np.round(rng.randn(n, 4) @ mix + 0.1 * rng.randn(n, 5) + [0, 3, 0, -1, 2], 3)
    train, test = draw(120), draw(40)
    train[:, 4], test[:, 4] = np.exp(train[:, 4] / 2).round(4), np.exp(test[:, 4] / 2).round(4)
    test[30:] += (4 * rng.randn(10, 5)).round(3)
    return train, test, np.arange(40) >= 30


def ring(rng):
    """A ring with a hole, a column of few values, a constant one; the last twelve rows lie in the hole."""
    def draw(n, radius):
        a = rng.rand(n) * 2 * np.pi
        return np.column_stack([radius * np.cos(a), radius * np.sin(a), rng.poisson(1.5, n), np.full(n, 7.)]).round(2)
    train, test = draw(150, 5 + 0.3 * rng.randn(150)), np.vstack([draw(28, 5 + 0.3 * rng.randn(28)), draw(12, 0.5)])
    test[[3, 33], 3] += [2, -1]
    return train, test, np.arange(40) >= 28


def answers(name, train, test, label):
    scale = StandardScaler().fit(train)
    X, T = scale.transform(train), scale.transform(test)
    cov = EmpiricalCovariance().fit(X).covariance_ * len(X) / (len(X) - 1) + 1e-2 * np.eye(X.shape[1])
    centred = T - X.mean(0)
    pca = PCA(0.95, svd_solver="full").fit(X)
    ecod, tails = ECOD().fit(X), []
    for row in T:
        ecod.decision_function(row[None])
        tails.append(np.nansum(ecod.O[-1]))
    forest = [roc_auc_score(label, -IsolationForest(random_state=s).fit(X).score_samples(T)) for s in range(200)]
    numbers = lambda a: [float(f"{v:.12g}") for v in a]
    return {"name": name, "train": train.tolist(), "test": test.tolist(), "label": label.tolist(),
            "kNN5": numbers(NearestNeighbors(n_neighbors=5).fit(X).kneighbors(T)[0][:, -1]),
            "Mahalanobis": numbers(np.einsum("ij,ij->i", centred, np.linalg.solve(cov, centred.T).T)),
            "PCA95": numbers(((T - pca.inverse_transform(pca.transform(T))) ** 2).sum(1)),
            "ECOD": numbers(tails), "forest_auroc": float(np.mean(forest))}


print(json.dumps([answers("mixed", *mixed(np.random.RandomState(5))), answers("ring", *ring(np.random.RandomState(6)))]))
