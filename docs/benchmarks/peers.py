"""Measures elbo next to ONNX Runtime, PyTorch and a chain of BLAS calls, on one core, and prints Markdown tables.

    python3 docs/benchmarks/peers.py            # scoring, nets A, B and C; --help tells how to shorten it
    python3 docs/benchmarks/peers.py --train    # training steps, nets A and B

Needs numpy, and Go or --ours BINARY (of ./internal/bench/peers). onnxruntime with onnx, and torch, are skipped where they are
absent. In each round every system runs once per net, one after the other, each in a process of its own on one core that measures
its processor time. The exit status is 1 when a system failed, or its error and KL over 64 rows differ from float64's by over 1e-3.
"""
import argparse, datetime, importlib.metadata, importlib.util, os, platform, shlex, shutil, statistics, subprocess, sys, tempfile, time
import numpy as np

NETS = {"A": ([784, 128, 64, 32, 4], [2, 256, 128, 64, 784]),  # encoder, whose outputs are mu and log variance, and decoder
        "B": ([32, 64, 32, 16], [8, 32, 64, 32]),
        "C": ([1024, 1024, 512, 128], [64, 512, 1024, 1024])}
LARGEST, TRAIN_BATCHES, CHECKED, TOLERANCE = {"C": 4096}, [128, 1024], 64, 1e-3  # the first three as elbo's side has them

def shapes(net):
    """(inputs, outputs) of each layer of the encoder, and of the decoder."""
    return [list(zip(widths, widths[1:])) for widths in NETS[net]]

def write_weights(folder, net):
    """Random weights (He-uniform) and small biases: W by output and then b, layer by layer, float32."""
    draw = np.random.default_rng(1).uniform
    parts = [v for n, m in sum(shapes(net), []) for v in (draw(-1, 1, n * m) * (6 / n) ** 0.5, draw(-0.1, 0.1, m))]
    np.concatenate(parts).astype("<f4").tofile(os.path.join(folder, "nets", f"net{net}.bin"))

def read_weights(folder, net, dtype="f4"):
    """The layers [(W, b)] of the encoder, and those of the decoder."""
    flat, sides = np.fromfile(os.path.join(folder, "nets", f"net{net}.bin"), "<f4").astype(dtype), ([], [])
    for side, layers in zip(shapes(net), sides):
        for n, m in side:
            w, b, flat = np.split(flat, [n * m, (n + 1) * m])
            layers.append((w.reshape(m, n), b))
    return sides

def columns(net, rows, own=lambda column: column):
    """One buffer for each input, in a system's own type; the values are those of bench.Value."""
    i, k = np.arange(rows, dtype="u4"), np.arange(NETS[net][0][0], dtype="u4")[:, None]
    hashed = (k * np.uint32(2654435761) + i * np.uint32(40503) + (k ^ i) * np.uint32(2246822519)) >> np.uint32(8)
    return [own(row.copy()) for row in hashed.astype("f4") / np.float32(1 << 24)]

def through(h, sides, linear, relu, sigmoid, split, sample=lambda mu, lv: mu):
    """The network itself, in the operations of one system: mu, log variance and reconstruction."""
    for layer in sides[0][:-1]:
        h = relu(linear(h, *layer))
    mu, lv = split(linear(h, *sides[0][-1]))
    h = sample(mu, lv)
    for layer in sides[1][:-1]:
        h = relu(linear(h, *layer))
    return mu, lv, sigmoid(linear(h, *sides[1][-1]))

stack = lambda cols: np.concatenate(cols).reshape(len(cols), -1)  # as np.stack, which takes thrice as long for short columns

def exact(sides, cols):
    """Sums over all rows of the squared error and of the KL divergence, in float64."""
    x = np.stack(cols, 1).astype("f8")
    mu, lv, y = through(x, sides, lambda h, w, b: h @ w.T + b, lambda h: np.maximum(h, 0), lambda h: 1 / (1 + np.exp(-h)),
                        lambda h: np.split(h, 2, 1))
    return ((y - x) ** 2).sum(), 0.5 * (mu ** 2 + np.exp(lv) - 1 - lv).sum()

# Each system below takes the layers and gives functions from the columns of a batch to (errors, KLs); the fastest counts.
def ort(sides, transposed):
    """A session for a matrix of rows, or for one of columns that the graph transposes; error and KL are in the graph."""
    import onnxruntime
    from onnx import helper, numpy_helper
    nodes, values = [], []
    def const(v, dtype="f4"):
        values.append(numpy_helper.from_array(np.array(v, dtype), f"c{len(values)}"))
        return values[-1].name
    def op(kind, *inputs, to=None, **attributes):
        nodes.append(helper.make_node(kind, inputs, to or [f"t{len(nodes)}"], **attributes))
        return nodes[-1].output[0] if len(nodes[-1].output) == 1 else nodes[-1].output
    x, axis = op("Transpose", "x") if transposed else "x", const([1], "i8")
    mu, lv, y = through(x, sides, lambda h, w, b: op("Gemm", h, const(w), const(b), transB=1), lambda h: op("Relu", h),
                        lambda h: op("Sigmoid", h), lambda h: op("Split", h, to=["mu", "lv"], axis=1, num_outputs=2))
    op("ReduceSumSquare", op("Sub", y, x), axis, to=["error"], keepdims=0)
    term = op("Sub", op("Sub", op("Add", op("Mul", mu, mu), op("Exp", lv)), const(1)), lv)
    op("Mul", op("ReduceSum", term, axis, keepdims=0), const(0.5), to=["kl"])
    info, width = helper.make_tensor_value_info, sides[0][0][0].shape[1]
    graph = helper.make_graph(nodes, "net", [info("x", 1, [width, "n"] if transposed else ["n", width])],
                              [info("error", 1, ["n"]), info("kl", 1, ["n"])], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    layouts = [stack] if transposed else [lambda cols: np.stack(cols, 1), lambda cols: np.ascontiguousarray(stack(cols).T)]
    return [lambda cols, layout=layout: session.run(None, {"x": layout(cols)}) for layout in layouts]

def torch_rows(sides, jit):
    """Rows gathered from the columns, or a transposed view of the stacked columns: BLAS can take it as it is."""
    import torch
    torch.set_flush_denormal(True)
    layers = [[tuple(map(torch.from_numpy, layer)) for layer in side] for side in sides]
    def run(x):
        mu, lv, y = through(x, layers, torch.nn.functional.linear, torch.relu_, torch.sigmoid_, lambda h: h.chunk(2, 1))
        return y.sub_(x).square_().sum(1), 0.5 * (mu * mu + lv.exp() - 1 - lv).sum(1)
    if jit:
        module = torch.nn.Module()
        module.forward = run
        run = torch.jit.freeze(torch.jit.trace(module.eval(), torch.zeros(CHECKED, sides[0][0][0].shape[1])))
    layouts = [lambda cols: torch.stack(cols, 1), lambda cols: torch.cat(cols).view(len(cols), -1).t()]
    return [torch.inference_mode()(lambda cols, f=f: run(f(cols))) for f in layouts]

def numpy_chain(sides, tile=256):
    """W X over columns in tiles that stay in the cache, into buffers made once; the BLAS is the one in numpy."""
    linear = lambda h, w, b, out: np.add(np.matmul(w, h, out=out[:, :h.shape[1]]), b, out=out[:, :h.shape[1]])
    layers = [[(w, b[:, None], np.empty((len(b), tile), "f4")) for w, b in side] for side in sides]
    def run(cols):
        stacked = stack(cols)
        error, kl = np.empty((2, stacked.shape[1]), "f4")
        for at in range(0, stacked.shape[1], tile):
            x, here = stacked[:, at:at + tile], slice(at, at + tile)
            mu, lv, y = through(x, layers, linear, lambda h: np.maximum(h, 0, out=h),
                                lambda h: np.reciprocal(1 + np.exp(np.negative(h, out=h), out=h), out=h), lambda h: np.split(h, 2))
            np.einsum("kn,kn->n", np.subtract(y, x, out=y), y, out=error[here])
            kl[here] = 0.5 * (mu * mu + np.exp(lv) - 1 - lv).sum(0)
        return error, kl
    return [run]

def torch_step(sides, cols):
    """A training step on rows in a matrix: z is sampled, Adam is fused."""
    import torch
    x = torch.from_numpy(np.stack(cols, 1))
    layers = [[[torch.from_numpy(v).requires_grad_() for v in layer] for layer in side] for side in sides]
    adam = torch.optim.Adam([v for side in layers for layer in side for v in layer], lr=1e-4, fused=True)
    def step():
        adam.zero_grad(set_to_none=True)
        mu, lv, y = through(x, layers, torch.nn.functional.linear, torch.relu, torch.sigmoid, lambda h: h.chunk(2, 1),
                            lambda mu, lv: mu + torch.randn_like(mu) * torch.exp(lv / 2))
        ((y - x).square().sum(1) + 0.5 * (mu * mu + lv.exp() - 1 - lv).sum(1)).mean().backward()
        adam.step()
    return step

SYSTEMS = {"ort rows": (["onnxruntime", "onnx"], lambda sides: ort(sides, False)),
           "ort columns": (["onnxruntime", "onnx"], lambda sides: ort(sides, True)),
           "torch eager": (["torch"], lambda sides: torch_rows(sides, False)),
           "torch jit": (["torch"], lambda sides: torch_rows(sides, True)),
           "numpy": ([], numpy_chain)}
TRAINED = {"torch": (["torch"], None)}

def cpu_seconds(call, long):
    """Median processor time of a call, in parts of at least a tenth of long, for long."""
    call(), call(), call()
    parts, end = [], time.process_time() + long
    while (start := time.process_time()) < end:
        calls = 0
        while (spent := time.process_time() - start) < long / 10:
            call()
            calls += 1
        parts.append(spent / calls)
    return statistics.median(parts)

def work(system, net, sizes, seconds, folder):
    """Measures one system on one net, prints lines as elbo's side does: `check NAME fp32 NET ERROR KL` and `NET BATCH PER_S`."""
    sides, sizes, seconds = read_weights(folder, net), [int(b) for b in sizes.split(",")], float(seconds)
    own = __import__("torch").from_numpy if "torch" in system else np.asarray
    for batch in sizes if system in TRAINED else []:
        print(net, batch, 1 / cpu_seconds(torch_step(sides, columns(net, batch)), seconds))
    for run in [] if system in TRAINED else SYSTEMS[system][1](sides):
        print("check", "-", "fp32", net, *(float(sum(v)) for v in run(columns(net, CHECKED, own))))
        for batch in sizes:
            cols = columns(net, batch, own)
            print(net, batch, batch / cpu_seconds(lambda: run(cols), seconds))

def once(command, env, truth):
    """Runs a process that measures one system on one net: its rates {(net, batch): best of its variants}."""
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"status {done.returncode}").splitlines()[-1])
    best = {}
    for f in map(str.split, done.stdout.splitlines()):
        if f[0] == "check" and f[2] == "fp32" and not max(abs(float(v) / want - 1) for v, want in zip(f[4:], truth)) <= TOLERANCE:
            raise RuntimeError(f"error and KL add up to {f[4]} and {f[5]}, want {truth[0]:.6g} and {truth[1]:.6g}")
        if f[0] in NETS and (len(f) < 4 or f[3] == "fp32"):
            best[f[0], int(f[1])] = max(best.get((f[0], int(f[1])), 0), float(f[2]))
    return best

def table(title, systems, points, cell):
    print(f"\n{title}\n\n| net, batch | {' | '.join(systems)} |\n|---|{'---:|' * len(systems)}")
    for p in points:
        print(f"| {p[0]} {p[1]:,} | {' | '.join(cell(s, p) for s in systems)} |")

def find(o, folder):
    """The commands of the systems that can be had, and what others lack."""
    ours, root = o.ours or os.path.join(folder, "peers"), os.path.dirname(os.path.abspath(__file__))
    if not o.ours and shutil.which("go"):
        subprocess.run(["go", "build", "-o", ours, "../../internal/bench/peers"], cwd=root, check=True)
    skipped = [] if os.path.exists(ours) else ["elbo: neither Go nor --ours"]
    commands = {} if skipped else {"elbo": [os.path.abspath(ours), "train" if o.train else "score"]}
    for name, (needs, _) in (TRAINED if o.train else SYSTEMS).items():
        if absent := [m for m in needs if not importlib.util.find_spec(m)]:
            skipped.append(f"{name}: no package {', '.join(absent)}")
        else:
            commands[name] = [sys.executable, os.path.abspath(__file__), "--worker", name]
    return commands, skipped

def measure(o, folder, commands):
    """The rates {(system, point): [rate of each round]}, and what was wrong with a system."""
    pin = ["taskset", "-c", str(max(os.sched_getaffinity(0)))] if shutil.which("taskset") else []
    env = dict(os.environ, PEERS_DIR=folder, PEERS_SECONDS=str(o.seconds), PYTHONWARNINGS="ignore")
    env.update({name: "1" for name in ("GOMAXPROCS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")})
    os.mkdir(os.path.join(folder, "nets"))
    rates, faults, nets = {}, {}, (o.nets or ("A,B" if o.train else "A,B,C")).split(",")
    for i, net in [(i, net) for i in range(o.rounds) for net in nets]:
        write_weights(folder, net)
        truth = exact(read_weights(folder, net, "f8"), columns(net, CHECKED))
        sizes = TRAIN_BATCHES if o.train else [b for b in map(int, o.batches.split(",")) if b <= LARGEST.get(net, b)]
        env.update(PEERS_NETS=net, PEERS_BATCHES=",".join(map(str, sizes)))
        for name in [name for name in commands if name not in faults]:
            print(f"round {i + 1} of {o.rounds}, net {net}, {name}", file=sys.stderr)
            try:
                for point, rate in once(pin + commands[name], env, truth).items():
                    rates.setdefault((name, point), []).append(rate)
            except RuntimeError as e:
                faults[name] = f"{name}: net {net}: {e}"
    return rates, faults

def main(o, folder):
    load, (commands, skipped) = os.getloadavg()[0], find(o, folder)
    rates, faults = measure(o, folder, commands)
    systems, points = [s for s in commands if s not in faults], sorted({p for _, p in rates})
    info = open("/proc/cpuinfo") if os.path.exists("/proc/cpuinfo") else []
    cpu = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.processor() or platform.machine())
    versions = [f"{m} {importlib.metadata.version(m)}" for m in ("numpy", "onnxruntime", "torch") if importlib.util.find_spec(m)]
    print(f"{datetime.date.today()}, {cpu}, load {load:.1f} to {os.getloadavg()[0]:.1f}, {', '.join(versions)}:\n")
    print("    python3 docs/benchmarks/peers.py " + shlex.join(sys.argv[1:]))
    table(f"{'Steps' if o.train else 'Rows'} per second of processor time, median of the rounds ({o.rounds})", systems, points,
          lambda s, p: f"{statistics.median(rates[s, p]):,.{0 if rates[s, p][0] > 1000 else 1}f}")
    if "elbo" in systems:
        table("elbo's rate as a multiple of the other's, median of the rounds", systems[1:], points,
              lambda s, p: f"{statistics.median(a / b for a, b in zip(rates['elbo', p], rates[s, p])):.2f}")
    print("".join([f"\nskipped: {s}" for s in skipped] + [f"\nFAILED: {s}" for s in faults.values()]))
    return bool(faults)

if __name__ == "__main__":
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--nets", help="of A, B, C")
    args.add_argument("--batches", default="1,64,256,1024,4096", help="rows that arrive in one call")
    args.add_argument("--rounds", type=int, default=3)
    args.add_argument("--seconds", type=float, default=0.4, help="how long each point is measured")
    args.add_argument("--train", action="store_true", help="training steps, with 128 and 1,024 rows")
    args.add_argument("--ours", help="the binary of ./internal/bench/peers, when Go is not at hand")
    args.add_argument("--worker", help=argparse.SUPPRESS)
    options = args.parse_args()
    if options.worker:
        sys.exit(work(options.worker, *(os.environ["PEERS_" + v] for v in ("NETS", "BATCHES", "SECONDS", "DIR"))))
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(options, temporary))
