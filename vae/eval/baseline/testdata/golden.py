"""Writes golden.json: what scikit-learn and PyOD say of a small table.

    python golden.py > golden.json        # numpy, scikit-learn, scipy

kNN, Mahalanobis and PCA are scikit-learn's and numpy's; ECOD is PyOD's formula, with
each row scored as if it alone had joined the training rows.
"""
import json

import numpy as np
from scipy.stats import skew
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

rng = np.random.RandomState(5)
mix = rng.randn(4, 5)
draw = lambda n: np.round(rng.randn(n, 4) @ mix + 0.1 * rng.randn(n, 5) + [0, 3, 0, -1, 2], 3)
train, test = draw(120), draw(40)
train[:, 4], test[:, 4] = np.exp(train[:, 4] / 2), np.exp(test[:, 4] / 2)     # skewed
test[30:] += 4 * rng.randn(10, 5)
label = np.arange(40) >= 30
mean, sd = train.mean(0), train.std(0)
X, T = (train - mean) / sd, (test - mean) / sd

knn = NearestNeighbors(n_neighbors=5).fit(X).kneighbors(T)[0][:, -1]
lower = np.linalg.cholesky(np.cov(X.T) + 1e-2 * np.eye(5))
mahalanobis = (np.linalg.solve(lower, (T - X.mean(0)).T) ** 2).sum(0)
pca = PCA(0.95, svd_solver="full").fit(X)
rest = ((T - pca.inverse_transform(pca.transform(T))) ** 2).sum(1)


def ecod(row):
    total = 0
    for j, v in enumerate(row):
        column = np.append(X[:, j], v)
        left, right = np.mean(column <= v), np.mean(column >= v)
        sign = np.sign(skew(X[:, j]))
        tail = -np.log(left) * (sign <= 0) - np.log(right) * (sign >= 0)
        total += max(-np.log(left), -np.log(right), tail)
    return total


forest = [roc_auc_score(label, -IsolationForest(random_state=s).fit(X).score_samples(T)) for s in range(5)]
print(json.dumps({"train": train.tolist(), "test": test.tolist(), "label": label.tolist(), "kNN5": knn.tolist(),
                  "Mahalanobis": mahalanobis.tolist(), "PCA95": rest.tolist(), "ECOD": [ecod(r) for r in T],
                  "forest_auroc": float(np.mean(forest))}))
