#!/usr/bin/env python3
"""One line of benchmarks/models.cpp in PyTorch: the same model, tokens, initial weights and optimizer, as one JSON object.

    cpu_torch.py BENCH_MODELS ID --weights FILE [--compile] [--dtype float|bf16] [--steps 5] [--seconds 3] [--threads 2]

BENCH_MODELS describes the lines and measures the roofs beside the timing; `BENCH_MODELS ID --write FILE` makes the weights.
bf16 is autocast.
"""

import argparse
import contextlib
import time

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F

import cpu


# ---- Products of rows that are sorted by expert, as single ops: torch.compile looks into neither, and no product is copied.

@torch.library.custom_op("peers::grouped_linear", mutates_args=())
def grouped_linear(x: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Rows [ends[e - 1], ends[e]) of x (N, C) times weight[e] (F, C)."""
    y, begin = x.new_empty(x.shape[0], weight.shape[1]), 0
    for w, end in zip(weight, ends.tolist()):
        torch.mm(x[begin:end], w.t(), out=y[begin:end])
        begin = end
    return y


@grouped_linear.register_fake
def _(x, weight, ends):
    return x.new_empty(x.shape[0], weight.shape[1])


@torch.library.custom_op("peers::grouped_linear_backward", mutates_args=())
def grouped_linear_backward(dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    dy, dx, dweight, begin = dy.contiguous(), torch.empty_like(x), torch.empty_like(weight), 0
    for e, end in enumerate(ends.tolist()):
        torch.mm(dy[begin:end], weight[e], out=dx[begin:end])
        torch.mm(dy[begin:end].t(), x[begin:end], out=dweight[e])
        begin = end
    return dx, dweight


@grouped_linear_backward.register_fake
def _(dy, x, weight, ends):
    return torch.empty_like(x), torch.empty_like(weight)


grouped_linear.register_autograd(lambda ctx, dy: (*grouped_linear_backward(dy, *ctx.saved_tensors), None),
                                 setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))


class Permute(torch.autograd.Function):
    """x[order]; its gradient is a look-up too, where indexing's own would add."""

    @staticmethod
    def forward(ctx, x, order, inverse):
        ctx.save_for_backward(inverse)
        return x[order]

    @staticmethod
    def backward(ctx, dy):
        return dy[ctx.saved_tensors[0]], None, None


# ---- The model.

class Attention(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.H, self.K, self.D = s["heads"], s["kv_heads"], s["width"] // s["heads"]
        self.qkv = nn.Linear(s["width"], (self.H + 2 * self.K) * self.D, bias=s["bias"])
        self.out = nn.Linear(s["width"], s["width"], bias=s["bias"])

    def forward(self, x, rotary, cache, at, seen):
        B, T, C = x.shape
        q, k, v = (p.view(B, T, -1, self.D).transpose(1, 2) for p in self.qkv(x).split([C, self.K * self.D, self.K * self.D], dim=2))
        if rotary is not None:
            cos, sin = rotary
            q, k = (p * cos + torch.cat((-p[..., self.D // 2:], p[..., :self.D // 2]), -1) * sin for p in (q, k))
        mask = None
        if cache is not None:
            cache[0].index_copy_(2, at, k), cache[1].index_copy_(2, at, v)
            if T == 1:  # a prompt needs only itself
                k, v = cache[0][:, :, :seen], cache[1][:, :, :seen]
                mask = None if seen is not None else (torch.arange(k.shape[2]) <= at)[None, None, None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=T > 1, enable_gqa=self.K < self.H)
        return self.out(y.transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    def __init__(self, s):
        super().__init__()
        C, hidden = s["width"], s["hidden"]
        self.gate = nn.Linear(C, hidden, bias=s["bias"]) if s["gated"] else None
        self.up, self.down = nn.Linear(C, hidden, bias=s["bias"]), nn.Linear(hidden, C, bias=s["bias"])
        self.gelu = "tanh" if s["tanh_gelu"] else "none"

    def forward(self, x):
        h = self.up(x)
        return self.down(F.gelu(h, approximate=self.gelu) if self.gate is None else F.silu(self.gate(x)) * h)


class MoE(nn.Module):
    def __init__(self, s):
        super().__init__()
        C, hidden, E = s["width"], s["hidden"], s["experts"]
        self.E, self.k = E, s["experts_per_token"]
        self.router = nn.Linear(C, E, bias=False)
        self.gate, self.up = nn.Parameter(torch.empty(E, hidden, C)), nn.Parameter(torch.empty(E, hidden, C))
        self.down = nn.Parameter(torch.empty(E, C, hidden))

    def forward(self, x):
        rows = x.flatten(0, 1)
        N, C = rows.shape
        logits = self.router(rows)
        p = logits.softmax(-1)
        weights, chosen = p.topk(self.k, -1)
        weights = weights / weights.sum(-1, keepdim=True)
        chosen = chosen.flatten()
        order = chosen.argsort(stable=True)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(N * self.k)
        counts = (chosen[:, None] == torch.arange(self.E)).sum(0)
        ends = counts.cumsum(0)
        h = Permute.apply(rows[:, None].expand(N, self.k, C).reshape(N * self.k, C), order, inverse)
        h = F.silu(grouped_linear(h, self.gate, ends)) * grouped_linear(h, self.up, ends)
        y = Permute.apply(grouped_linear(h, self.down, ends), inverse, order).view(N, self.k, C)
        balance = (p.sum(0) * counts).sum() * (self.E / N ** 2)
        z = logits.logsumexp(-1).square().mean()
        return (y * weights[..., None]).sum(1).view_as(x), balance, z


class Block(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.norm_1, self.norm_2 = norm(s), norm(s)
        self.attention = Attention(s)
        self.ff = MoE(s) if s["experts"] else MLP(s)

    def forward(self, x, *rest):
        x = x + self.attention(self.norm_1(x), *rest)
        out = self.ff(self.norm_2(x))
        y, *router = out if isinstance(out, tuple) else (out,)
        return x + y, router


def norm(s):
    return nn.RMSNorm(s["width"], s["norm_eps"]) if s["rotary"] else nn.LayerNorm(s["width"], s["norm_eps"], bias=s["bias"])


class Decoder(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        self.tokens = nn.Embedding(s["vocab"], s["width"])
        self.positions = None if s["rotary"] else nn.Embedding(s["context"], s["width"])
        self.blocks = nn.ModuleList(Block(s) for _ in range(s["layers"]))
        self.norm = norm(s)
        self.head = nn.Linear(s["width"], s["vocab"], bias=False)
        if s["tied_head"]:
            self.head.weight = self.tokens.weight
        if s["rotary"]:
            D = s["width"] // s["heads"]
            angles = torch.arange(s["context"])[:, None] * s["rope_theta"] ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)
            angles = torch.cat((angles, angles), -1)
            self.register_buffer("cos", angles.cos().float())
            self.register_buffer("sin", angles.sin().float())

    def hidden(self, x, at, caches=None, seen=None):
        h = self.tokens(x)
        rotary = (self.cos[at], self.sin[at]) if self.s["rotary"] else None
        if self.positions is not None:
            h = h + self.positions(at)
        routers = []
        for i, block in enumerate(self.blocks):
            h, router = block(h, rotary, caches and caches[i], at, seen)
            routers.append(router)
        return self.norm(h), routers

    def forward(self, x, y):
        h, routers = self.hidden(x, torch.arange(x.shape[1]))
        loss = F.cross_entropy(self.head(h).flatten(0, 1), y.flatten())
        if self.s["experts"]:
            L = self.s["layers"]
            loss = loss + sum(r[0] for r in routers) * (self.s["balance_weight"] / L) + sum(r[1] for r in routers) * (self.s["z_weight"] / L)
        return loss

    def next(self, x, at, caches, seen=None):
        """Logits after x, whose tokens have the positions `at`. Without `seen`, how many are known then, all of the cache is read
        through a mask: one compiled graph for all lengths."""
        return self.head(self.hidden(x, at, caches, seen)[0][:, -1])


@torch.no_grad()
def load(model, path):
    """Hugging Face's names and layouts."""
    s = model.s
    with safe_open(path, "pt") as file:
        def fill(parameter, *names, transposed=False):
            parts = [file.get_tensor(name).float() for name in names]
            value = torch.cat(parts) if len(parts) > 1 else parts[0]
            parameter.copy_(value.t() if transposed else value)

        def fill_conv(linear, name):  # GPT-2's matrices are (in, out)
            fill(linear.weight, name + ".weight", transposed=True)
            if linear.bias is not None:
                fill(linear.bias, name + ".bias")

        def fill_norm(module, name):
            fill(module.weight, name + ".weight")
            if getattr(module, "bias", None) is not None:
                fill(module.bias, name + ".bias")

        def fill_experts(parameter, name):
            for e in range(s["experts"]):
                fill(parameter[e], name.format(e))

        if not s["rotary"]:
            fill(model.tokens.weight, "transformer.wte.weight")
            fill(model.positions.weight, "transformer.wpe.weight")
            for i, block in enumerate(model.blocks):
                at = f"transformer.h.{i}."
                fill_norm(block.norm_1, at + "ln_1")
                fill_norm(block.norm_2, at + "ln_2")
                fill_conv(block.attention.qkv, at + "attn.c_attn")
                fill_conv(block.attention.out, at + "attn.c_proj")
                fill_conv(block.ff.up, at + "mlp.c_fc")
                fill_conv(block.ff.down, at + "mlp.c_proj")
            fill_norm(model.norm, "transformer.ln_f")
        else:
            fill(model.tokens.weight, "model.embed_tokens.weight")
            for i, block in enumerate(model.blocks):
                at = f"model.layers.{i}."
                fill_norm(block.norm_1, at + "input_layernorm")
                fill_norm(block.norm_2, at + "post_attention_layernorm")
                fill(block.attention.qkv.weight, *(at + f"self_attn.{p}_proj.weight" for p in "qkv"))
                fill(block.attention.out.weight, at + "self_attn.o_proj.weight")
                if s["experts"]:
                    moe = at + "block_sparse_moe."
                    fill(block.ff.router.weight, moe + "gate.weight")
                    fill_experts(block.ff.gate, moe + "experts.{}.w1.weight")
                    fill_experts(block.ff.down, moe + "experts.{}.w2.weight")
                    fill_experts(block.ff.up, moe + "experts.{}.w3.weight")
                else:
                    for part in ("gate", "up", "down"):
                        fill(getattr(block.ff, part).weight, at + f"mlp.{part}_proj.weight")
            fill_norm(model.norm, "model.norm")
        if not s["tied_head"]:
            fill(model.head.weight, "lm_head.weight")


# ---- What is timed.

def train(model, args, s):
    parameters = list(model.parameters())
    adamw = torch.optim.AdamW([{"params": [p for p in parameters if p.dim() >= 2], "weight_decay": s["weight_decay"]},
                               {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}],
                              lr=s["lr"], betas=s["betas"], eps=s["eps"], fused=True)
    B, T = s["batch"], s["context"]
    tokens = torch.tensor(cpu.random_tokens(s, B * T + 1))
    x, y = tokens[:-1].view(B, T), tokens[1:].view(B, T)
    run = torch.compile(model, dynamic=False) if args.compile else model
    autocast = torch.autocast("cpu", torch.bfloat16) if args.dtype == "bf16" else contextlib.nullcontext()

    def step():
        with autocast:
            loss = run(x, y)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, s["clip"])
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        return loss.item()

    losses = [step() for _ in range(3)]
    timing = cpu.Timing(args, step)
    return {**timing.result(losses), "tokens_per_s": cpu.rates(timing.seconds, B * T)}


@torch.no_grad()
def generate(model, args, s):
    if args.compile:
        from torch._inductor import config
        config.freezing = True  # the weights are constants then, and are packed once
    B, T, fresh = s["batch"], s["context"] - s["fresh"], s["fresh"]
    x = torch.tensor(cpu.random_tokens(s, B * T)).view(B, T)
    shape = (B, s["kv_heads"], s["context"], s["width"] // s["heads"])
    caches = [(torch.zeros(shape), torch.zeros(shape)) for _ in range(s["layers"])]
    positions = torch.arange(s["context"])
    prefill, decode = (torch.compile(model.next, dynamic=False) for _ in range(2)) if args.compile else (model.next, model.next)
    times, losses = ([], []), []

    def cost(logits, stage):
        targets = torch.tensor([cpu.mix(s["seed"] + 1, stage * B + b) % s["vocab"] for b in range(B)])
        return F.cross_entropy(logits.double(), targets).item()

    def run(note=False):
        begin = time.perf_counter()
        logits = prefill(x, positions[:T], caches)
        token = logits.argmax(-1, keepdim=True)
        prefilled = time.perf_counter()
        for i in range(fresh):
            if note and i < 3:
                losses.append(cost(logits, i))
            logits = decode(token, positions[T + i:T + i + 1], caches, None if args.compile else T + i + 1)
            token = logits.argmax(-1, keepdim=True)
        token[0].item()
        times[0].append(prefilled - begin), times[1].append(time.perf_counter() - prefilled)

    run(note=True)
    times = ([], [])
    timing = cpu.Timing(args, run)
    result = timing.result(losses)
    result["faults_per_step"] /= fresh
    return {**result, "tokens_per_s": cpu.rates(times[1], B * fresh), "prefill_tokens_per_s": cpu.rates(times[0], B * T)}


def main():
    parser = cpu.peer_parser(__doc__)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    s = cpu.describe(args.program, args.id)
    model = Decoder(s)
    load(model, args.weights)
    result = (generate if s["fresh"] else train)(model, args, s)
    cpu.print_result(s, args, f"PyTorch {torch.__version__} {'compiled' if args.compile else 'eager'}, {torch.backends.cpu.get_cpu_capability()}", result)


if __name__ == "__main__":
    main()
