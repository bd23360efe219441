"""Mixed tables against the same rows as numbers only.

    python docs/benchmarks/mixed.py --elbo ./elbo --data DIR      # numpy, pyarrow, scikit-learn

nslkdd's one-hot columns are put back together as three strings, campaign's 0/1 columns become booleans, and both lose a
tenth of their cells. Half of the normal rows train, at most 5,000; as many others are tested with the anomalies.
"""
import argparse
import os
import subprocess
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.metrics import average_precision_score, roc_auc_score


def numbers(t, rows):
    return {c: t[c].to_numpy()[rows] for c in t.column_names if c != "label"}


def strings(columns):
    """nslkdd: f38.. are one-hot: protocol (3), service (64), flag (11)."""
    out = {c: v for c, v in columns.items() if int(c[1:]) < 38}
    at = 38
    for name, n in (("protocol", 3), ("service", 64), ("flag", 11)):
        hot = np.column_stack([columns[f"f{at + j}"] for j in range(n)])
        level = np.array([f"{name}{j}" for j in range(n)])[hot.argmax(1)]
        out[name] = pa.array(np.where(hot.max(1) > 0, level, None).tolist(), pa.string())
        at += n
    return out


def booleans(columns):
    """campaign: columns of 0 and 1 only."""
    return {c: v.astype(bool) if set(np.unique(v)) <= {0, 1} else v for c, v in columns.items()}


def gaps(columns, seed):
    """A tenth of the cells of every column is null."""
    rng = np.random.RandomState(seed)
    out = {}
    for c, v in columns.items():
        a = v if isinstance(v, (pa.Array, pa.ChunkedArray)) else pa.array(v)
        out[c] = pa.array([None if gone else x for x, gone in zip(a.to_pylist(), rng.rand(len(a)) < .1)], a.type)
    return out


def judge(o, train, test, labels, *extra):
    with tempfile.TemporaryDirectory() as d:
        path = lambda f: os.path.join(d, f)
        pq.write_table(pa.table(train), path("train.parquet"))
        pq.write_table(pa.table(test), path("test.parquet"))
        subprocess.run([o.elbo, "train", "-q", "-i", path("train.parquet"), "-o", path("m.elbo"), *extra], check=True, stderr=subprocess.DEVNULL)
        subprocess.run([o.elbo, "score", "-q", "-m", path("m.elbo"), "-i", path("test.parquet"), "-o", path("s.parquet")], check=True)
        s = pq.read_table(path("s.parquet"), columns=["elbo_score"])["elbo_score"].to_numpy()
    return roc_auc_score(labels, s), average_precision_score(labels, s)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--elbo", default="elbo")
    p.add_argument("--data", required=True)
    p.add_argument("--seeds", type=int, default=3)
    o = p.parse_args()
    print("| table | AUROC | AP |\n|---|---|---|")
    for name, mixed in (("nslkdd", strings), ("campaign", booleans)):
        t = pq.read_table(os.path.join(o.data, name + ".parquet"))
        y = t["label"].to_numpy()
        figures = {}
        for seed in range(o.seeds):
            rng = np.random.RandomState(seed)
            normal, odd = rng.permutation(np.flatnonzero(y == 0)), np.flatnonzero(y != 0)
            half = len(normal) // 2
            train, rest = normal[:half][:5000], normal[half:][:5000]
            odd = rng.permutation(odd)[:max(30, len(odd) * len(rest) // (len(normal) - half))]
            test = np.concatenate([rest, odd])
            labels = np.repeat([0, 1], [len(rest), len(odd)])
            a, b = numbers(t, train), numbers(t, test)
            for kind, make in (("numbers", dict), ("mixed", mixed),
                               ("numbers, a tenth missing", lambda c: gaps(c, seed)),
                               ("mixed, a tenth missing", lambda c: gaps(mixed(c), seed))):
                figures.setdefault(kind, []).append(judge(o, make(a), make(b), labels, "--seed", str(seed)))
        for kind, f in figures.items():
            auroc, ap = np.mean(f, 0)
            print(f"| {name}, {kind} | {auroc:.3f} | {ap:.3f} |", flush=True)


if __name__ == "__main__":
    main()
