"""Train on half of the normal rows of labelled Parquet files, evaluate on all other rows, print a Markdown table.

    python docs/benchmarks/quality.py --elbo ./elbo --data DIR [--sets cardio,letter]

Needs pyarrow and numpy. Each file has numeric columns and `label` (0 normal, 1 anomaly). Normal rows are shuffled with
seed 0, except for files named nab_*, which are in time order and whose earlier half trains. No option of elbo is set
but the input, the output and the seed.
"""
import argparse, glob, json, os, subprocess, tempfile
import numpy as np
import pyarrow.parquet as pq

args = argparse.ArgumentParser()
args.add_argument("--elbo", required=True)
args.add_argument("--data", required=True)
args.add_argument("--sets", default="")
o = args.parse_args()

print("| set | training rows | test rows | anomalies | AUROC | AP | recon on training / unseen rows, nats | false alarms at 0.001 | training | scoring, rows/s |")
print("|---|---|---|---|---|---|---|---|---|---|")
aurocs, aps = [], []
for path in sorted(glob.glob(os.path.join(o.data, "*.parquet"))):
    name = os.path.basename(path)[:-len(".parquet")]
    if o.sets and name not in o.sets.split(","):
        continue
    table = pq.read_table(path)
    label = table["label"].to_numpy()
    normal = np.flatnonzero(label == 0)
    if not name.startswith("nab_"):
        np.random.RandomState(0).shuffle(normal)
    train = np.sort(normal[:len(normal) // 2])
    test = np.sort(np.concatenate([normal[len(normal) // 2:], np.flatnonzero(label == 1)]))
    with tempfile.TemporaryDirectory() as d:
        pq.write_table(table.take(train).drop_columns(["label"]), f"{d}/train.parquet")
        pq.write_table(table.take(test), f"{d}/test.parquet")
        before = os.times()
        subprocess.run([o.elbo, "train", "-i", f"{d}/train.parquet", "-o", f"{d}/m.elbo", "--seed", "0", "-q"], check=True, stderr=subprocess.DEVNULL)
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        subprocess.run([o.elbo, "score", "-m", f"{d}/m.elbo", "-i", f"{d}/test.parquet", "-o", f"{d}/s.parquet", "-q"], check=True)
        scored = pq.read_table(f"{d}/s.parquet")
        assert scored.num_rows == len(test) and scored.select(table.column_names).equals(pq.read_table(f"{d}/test.parquet"))
        r = json.loads(subprocess.run([o.elbo, "eval", "-m", f"{d}/m.elbo", "-i", f"{d}/test.parquet", "--label", "label", "--json"], check=True, capture_output=True).stdout)
    aurocs.append(r["auroc"]); aps.append(r["ap"])
    print(f"| {name} | {len(train):,} | {len(test):,} | {int(label.sum()):,} | {r['auroc']:.3f} | {r['ap']:.3f} | {r['recon']['train']:.2f} / {r['recon']['unseen']:.2f} | "
          f"{r['alert_rate']['achieved']:.4f} | {cpu:.0f} s CPU | {r['model_size']['rows_per_second']:,.0f} |", flush=True)
print(f"| **mean** | | | | **{np.mean(aurocs):.3f}** | **{np.mean(aps):.3f}** | | | | |")
