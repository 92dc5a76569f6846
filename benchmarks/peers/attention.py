#!/usr/bin/env python3
"""Causal attention on the CPU, forward and backward, weft beside PyTorch's scaled_dot_product_attention, in turn, best of the rounds.

    attention.py [BENCH_ATTENTION] [--dtype float|bf16] [--rounds 3] [--threads 2]

Operations are counted as 2 T^2 D H B forward and 2.5 times that backward. The share is of the roof of fused multiply-adds that
bench_attention measures beside each case.
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


def weft(program, direction, dtype, name, threads):
    """GFLOP/s and share of the roof of one case of bench_attention."""
    command = [program, f"--benchmark_filter=^{direction}<{dtype}>/{name}/", "--benchmark_format=json", "--benchmark_min_time=0.3"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)})
    case = json.loads(run.stdout)["benchmarks"][0]
    return case["GFLOP/s"], case["FMA_roof_share"]


def peer(direction, dtype, B, T, H, D):
    """GFLOP/s of PyTorch; q, k and v are views of one fused tensor, as in a model."""
    torch.manual_seed(1)
    qkv = torch.randn(B, T, 3, H, D, dtype=torch.float if dtype == "float" else torch.bfloat16, requires_grad=direction == "backward")
    q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
    operations = 2.0 * T * T * D * H * B * (2.5 if direction == "backward" else 1)
    dy, best, end = torch.randn(B, H, T, D, dtype=qkv.dtype), float("inf"), time.perf_counter() + 0.6
    while time.perf_counter() < end:
        start = time.perf_counter()
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        middle = time.perf_counter()
        if direction == "backward":
            torch.autograd.grad(y, (q, k, v), dy, retain_graph=True)
        best = min(best, middle - start if direction == "forward" else time.perf_counter() - middle)
    return operations / best * 1e-9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", nargs="?", default=str(ROOT / "build/benchmarks/bench_attention"))
    parser.add_argument("--dtype", choices=["float", "bf16"], default="float")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)

    listed = subprocess.run([options.program, "--benchmark_list_tests"], capture_output=True, text=True, check=True).stdout
    print("| head width | T | direction | weft, GFLOP/s | share of the roof | PyTorch, GFLOP/s | ratio |\n|---|---|---|---|---|---|---|")
    for D in (64, 128):
        for T in (256, 512, 1024, 2048, 4096, 8192):
            B, H = max(1, 2048 // T), 768 // D
            name = f"B:{B}/T:{T}/H:{H}/K:{H}/D:{D}/causal:1"
            assert re.search(re.escape(f"forward<{options.dtype}>/{name}/"), listed), name
            for direction in ("forward", "backward"):
                ours, theirs = [], []
                for _ in range(options.rounds):
                    ours.append(weft(options.program, direction, options.dtype, name, options.threads))
                    theirs.append(peer(direction, options.dtype, B, T, H, D))
                (rate, share), other = max(ours), max(theirs)
                print(f"| {D} | {T} | {direction} | {rate:.0f} | {100 * share:.0f} % | {other:.0f} | {rate / other:.2f} x |", flush=True)


if __name__ == "__main__":
    main()
