#!/usr/bin/env python3
"""Each op on the CPU in float, forward, and forward with backward: weft's bench_ops beside PyTorch's eager ops, in turn. Of PyTorch
the best call counts, of weft the best mean over calls of a twentieth of a second.

    ops.py [BENCH_OPS] [--rounds 3] [--threads 2] [--ops REGEX]
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import time

import torch
from torch.nn import functional as F

ROOT = pathlib.Path(__file__).resolve().parents[2]
N, C, HIDDEN = 1024, 768, 3072

made = {}


def weights(*shape):
    """As bench_ops has them: one tensor of each shape, whose gradient is asked for."""
    if shape not in made:
        made[shape] = (torch.randn(shape) * 0.02).requires_grad_()
    return made[shape]


def indices(*shape, below):
    if (shape, below) not in made:
        made[shape, below] = torch.randint(below, shape)
    return made[shape, below]


def heads(x):
    return x.view(4, N // 4, 12, 64)


def rope(x):
    """Pairs (i, i + 32) turned, as transformers does it."""
    if "rope" not in made:
        angle = torch.outer(torch.arange(N // 4), 10000.0 ** (-torch.arange(0, 64, 2) / 64)).repeat(1, 2)[:, None]
        made["rope"] = angle.cos(), angle.sin()
    cos, sin = made["rope"]
    return x * cos + torch.cat((-x[..., 32:], x[..., :32]), -1) * sin


def attention(x):
    h = heads(x).transpose(1, 2)
    return F.scaled_dot_product_attention(h, h, h, is_causal=True)


OPS = {
    "add": (C, lambda x: x + weights(N, C)),
    "add_row": (C, lambda x: x + weights(C)),
    "mul": (C, lambda x: x * weights(N, C)),
    "mul_column": (C, lambda x: x * weights(N, 1)),
    "div": (C, lambda x: x / weights(N, C)),
    "exp": (C, torch.exp),
    "log": (C, torch.log),
    "sqrt": (C, torch.sqrt),
    "tanh": (C, torch.tanh),
    "sigmoid": (C, torch.sigmoid),
    "silu": (HIDDEN, F.silu),
    "relu": (HIDDEN, F.relu),
    "gelu": (HIDDEN, F.gelu),
    "gelu_tanh": (HIDDEN, lambda x: F.gelu(x, approximate="tanh")),
    "swiglu": (HIDDEN, lambda x: F.silu(x) * weights(N, HIDDEN)),
    "softmax": (C, lambda x: F.softmax(x, -1)),
    "log_softmax": (C, lambda x: F.log_softmax(x, -1)),
    "layer_norm": (C, lambda x: F.layer_norm(x, (C,), weights(C), weights(C))),
    "rms_norm": (C, lambda x: F.rms_norm(x, (C,), weights(C), 1e-5)),
    "add_rms_norm": (C, lambda x: F.rms_norm(x + weights(N, C), (C,), weights(C), 1e-5)),
    "dropout": (C, lambda x: F.dropout(x, 0.1, training=x.requires_grad)),  # without a tape weft's is no work either
    "sum": (C, torch.sum),
    "sum_rows": (C, lambda x: x.sum(-1)),
    "sum_columns": (C, lambda x: x.sum(0)),
    "max_rows": (C, lambda x: x.amax(-1)),
    "max_columns": (C, lambda x: x.amax(0)),
    "where": (C, lambda x: torch.where(x < weights(N, C), x, weights(N, C))),
    "transpose_copy": (C, lambda x: x.t().contiguous()),
    "concat": (C, lambda x: torch.cat((x, weights(N, C)), 1)),
    "gather": (C, lambda x: x.gather(1, indices(N, C, below=C))),
    "topk": (C, lambda x: x.topk(8).values),
    "embedding": (C, lambda x: F.embedding(indices(4 * N, below=N), x)),
    "cross_entropy": (C, lambda x: F.cross_entropy(x, indices(N, below=C))),
    "cast_bf16": (C, lambda x: x.bfloat16()),
    "rope": (C, lambda x: rope(heads(x))),
    "linear": (C, lambda x: F.linear(x, weights(HIDDEN, C))),
    "matmul": (C, lambda x: x @ weights(HIDDEN, C).t()),
    "attention": (C, attention),
}


def peer(name, both, seconds=0.3):
    """Microseconds of PyTorch, the best call."""
    width, fn = OPS[name]
    x = torch.empty(N, width).uniform_(0.1, 1.1).requires_grad_(both)
    with torch.set_grad_enabled(both):
        dy, best, end = torch.randn_like(fn(x)), float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < end:
            for leaf in (x, *(w for w in made.values() if torch.is_tensor(w))):
                leaf.grad = None
            start = time.perf_counter()
            y = fn(x)
            if both:
                y.backward(dy)
            best = min(best, time.perf_counter() - start)
    return best * 1e6


def weft(program, cases, threads):
    """Microseconds of each case: the least of a few repetitions."""
    command = [program, f"--benchmark_filter=^({'|'.join(cases)})/", "--benchmark_format=json", "--benchmark_min_time=0.05", "--benchmark_repetitions=5"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)})
    best = {}
    for case in json.loads(run.stdout)["benchmarks"]:
        if case["run_type"] == "iteration":
            name = case["name"].split("/")[0]
            best[name] = min(best.get(name, float("inf")), case["real_time"])
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", nargs="?", default=str(ROOT / "build/benchmarks/bench_ops"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ops", default="")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)

    cases = [(name, both) for name in OPS if re.search(options.ops, name) for both in (False, True)]
    label = lambda name, both: name + ("_both" if both else "_forward")
    ours, theirs = {}, {}
    for _ in range(options.rounds):
        for case, us in weft(options.program, [label(*c) for c in cases], options.threads).items():
            ours[case] = min(ours.get(case, float("inf")), us)
        for case in cases:
            theirs[label(*case)] = min(theirs.get(label(*case), float("inf")), peer(*case))
    print("| op | weft, us | PyTorch, us | ratio | with backward: weft | PyTorch | ratio |\n|---|---|---|---|---|---|---|")
    for name in dict.fromkeys(name for name, _ in cases):
        row = [name]
        for both in (False, True):
            us, other = ours[label(name, both)], theirs[label(name, both)]
            row += [f"{us:.0f}", f"{other:.0f}", f"{other / us:.2f} x"]
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
