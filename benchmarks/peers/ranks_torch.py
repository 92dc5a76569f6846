#!/usr/bin/env python3
"""GPT-2 124M on gloo ranks in PyTorch: what weft's ranks are compared with.

    torchrun --nproc-per-node 2 ranks_torch.py MODE [--steps 5] [--batch 2] [--context 256]

MODE: ddp; zero1 (DDP with ZeroRedundancyOptimizer); fsdp (FSDP2, parameters gathered once a step) or fsdp-reshard (gathered
again for the backward). Prints tokens a second over all ranks and the peak memory of a rank. With one process and two
threads: MODE single.
"""

import argparse
import os
import resource
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

VOCAB, WIDTH, LAYERS, HEADS = 50257, 768, 12, 12


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (p.view(B, T, HEADS, C // HEADS).transpose(1, 2) for p in self.qkv(self.norm_1(x)).split(C, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, C))
        return x + self.down(F.gelu(self.up(self.norm_2(x)), approximate="tanh"))


class Decoder(nn.Module):
    def __init__(self, context):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCAB, WIDTH), nn.Embedding(context, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, x, y):
        h = self.tokens(x) + self.positions(torch.arange(x.shape[1]))
        for block in self.blocks:
            h = block(h)
        return F.cross_entropy(self.head(self.norm(h)).view(-1, VOCAB), y.reshape(-1))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=["single", "ddp", "zero1", "fsdp", "fsdp-reshard"])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--context", type=int, default=256)
    args = parser.parse_args()
    single = args.mode == "single"
    torch.set_num_threads(2 if single else 1)
    if not single:
        dist.init_process_group("gloo")
    ranks, rank = (1, 0) if single else (dist.get_world_size(), dist.get_rank())
    torch.manual_seed(1)
    model = Decoder(args.context)
    options = dict(lr=1e-4, weight_decay=0.1)
    if args.mode.startswith("fsdp"):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
        mesh = init_device_mesh("cpu", (ranks,))
        for block in model.blocks:
            fully_shard(block, mesh=mesh, reshard_after_forward=args.mode == "fsdp-reshard")
        fully_shard(model, mesh=mesh, reshard_after_forward=args.mode == "fsdp-reshard")
    elif not single:
        model = nn.parallel.DistributedDataParallel(model)
    if args.mode == "zero1":
        from torch.distributed.optim import ZeroRedundancyOptimizer
        adamw = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, **options)
    else:
        adamw = torch.optim.AdamW(model.parameters(), **options)
    x = torch.randint(VOCAB, (args.batch, args.context + 1))
    times = []
    for step in range(args.steps + 2):
        if not single:
            dist.barrier()
        begin = time.perf_counter()
        model(x[:, :-1], x[:, 1:]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        if not single:
            dist.barrier()
        times.append(time.perf_counter() - begin)
    tokens = args.batch * args.context * ranks
    peak = torch.tensor(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0)
    if not single:
        dist.all_reduce(peak, dist.ReduceOp.MAX)
    if rank == 0:
        times = times[2:]
        print(f"torch {torch.__version__} {args.mode}, {ranks} ranks of {torch.get_num_threads()} threads: {tokens / min(times):.0f} tokens/s "
              f"(best step; mean {tokens * len(times) / sum(times):.0f}); a rank: {peak.item() * 1e-9:.2f} GB in all", flush=True)
    if not single:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
