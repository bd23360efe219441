"""Alert rates that elbo promises against those that it keeps.

    python docs/benchmarks/rates.py --elbo ./elbo --data DIR

For each set (NAME.parquet with a column `label`, 0 for normal rows) and seed, half
of the normal rows train a model and the other half are scored. Printed is the share
of them above the limit for each promised rate, with its exact 95 % interval, and the
factor between the two. Needs pyarrow and numpy.
"""

import argparse
import json
import math
import pathlib
import subprocess
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

RATES = (0.01, 0.001)


def halves(path, seed):
    table = pq.read_table(path)
    normal = np.flatnonzero(np.array(table["label"]).astype(int) == 0)
    order = np.random.default_rng(seed).permutation(normal)
    table = table.drop(["label"])
    half = len(order) // 2
    return table.take(pa.array(order[:half])), table.take(pa.array(order[half:]))


def run(*args):
    return subprocess.run([str(a) for a in args], check=True, capture_output=True, text=True).stdout


def measure(elbo, data, name, seed, work):
    train, test = halves(data / f"{name}.parquet", seed)
    pq.write_table(train, work / "train.parquet")
    pq.write_table(test, work / "test.parquet")
    run(elbo, "train", "-q", "-i", work / "train.parquet", "-o", work / "m.elbo", "--seed", seed, "--overwrite")
    model = json.loads(run(elbo, "inspect", work / "m.elbo", "--json"))["calibration"]
    out = []
    for rate in RATES:
        text = run(elbo, "score", "-q", "-m", work / "m.elbo", "-i", work / "test.parquet", "-o", work / "s.parquet",
                   "--overwrite", "--explain", "off", "--target-rate", rate, "--json")
        out.append(json.loads(text)["rate"])
    return model, out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--elbo", default="elbo")
    p.add_argument("--data", type=pathlib.Path, required=True)
    p.add_argument("--sets", default="http,shuttle,campaign")
    p.add_argument("--seeds", type=int, default=3)
    a = p.parse_args()
    print("| set | seed | calibration rows (held out) | promised | achieved | 95 % interval | factor |")
    print("|---|---|---|---|---|---|---|")
    logs = {}
    with tempfile.TemporaryDirectory() as work:
        for name in a.sets.split(","):
            for seed in range(a.seeds):
                model, rates = measure(a.elbo, a.data, name, seed, pathlib.Path(work))
                held = model["rows"] - model.get("trained", 0)
                for r in rates:
                    factor = r["achieved"] / r["promised"]
                    logs.setdefault((name, r["promised"]), []).append(factor)
                    print(f"| {name} | {seed} | {model['rows']:,} ({held:,}) | {r['promised']:g} | {r['achieved']:.5f} "
                          f"| {r['low']:.5f} to {r['high']:.5f} | {factor:.2f} |", flush=True)
    print()
    print("| set | promised | mean factor | within 1.5 |")
    print("|---|---|---|---|")
    for (name, rate), f in logs.items():
        inside = sum(1 / 1.5 <= x <= 1.5 for x in f)
        print(f"| {name} | {rate:g} | {math.fsum(f) / len(f):.2f} | {inside} of {len(f)} |")


if __name__ == "__main__":
    main()
