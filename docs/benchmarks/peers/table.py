"""Turns the file of run.sh --csv into the Markdown tables of docs/benchmarks/inference.md. Standard library only.

    table.py FILE.csv       a table of rows/s, one of ours / best float32 peer at both jobs
"""
import csv
import sys
from collections import defaultdict

best = defaultdict(float)  # (system, net, batch, job) -> rows/s of its best variant
for r in csv.DictReader(open(sys.argv[1])):
    key = r["system"], r["net"], int(r["batch"]), r["job"]
    best[key] = max(best[key], float(r["median_per_s"]))
systems = list(dict.fromkeys(k[0] for k in best))
ours = [s for s in systems if s.startswith("ours")]
peers = [s for s in systems if s not in ours]
points = sorted({(net, batch) for _, net, batch, _ in best})


def short(v):
    return f"{v / 1e6:.2f}M" if v >= 1e6 else f"{v / 1e3:.1f}k" if v >= 1e4 else f"{v:,.0f}" if v else "-"


def line(cells):
    print("| " + " | ".join(cells) + " |")


def head(cells):
    line(cells)
    print("|" + "---|" * len(cells))


for job in sorted({k[3] for k in best}):
    shown = [s for s in systems if any(k[0] == s and k[3] == job for k in best)]
    print(f"\n{job}, rows/s\n")
    head(["net, batch"] + shown)
    for net, batch in points:
        line([f"{net} {batch:,}"] + [short(best[s, net, batch, job]) for s in shown])
for mine in ours:
    print(f"\n{mine}, full job, as a multiple of\n")
    exact = [p for p in peers if "int8" not in p]
    head(["net, batch"] + peers + ["best float32, full", "best float32, pure"])
    for net, batch in points:
        v = best[mine, net, batch, "full"]
        cells = [best[p, net, batch, "full"] for p in peers]
        cells += [max((best[p, net, batch, job] for p in exact), default=0) for job in ("full", "pure")]
        line([f"{net} {batch:,}"] + [f"{v / c:.2f}" if c and v else "-" for c in cells])
