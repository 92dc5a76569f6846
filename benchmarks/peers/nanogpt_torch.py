#!/usr/bin/env python3
"""nanoGPT's CPU recipe in PyTorch: what weft's `--preset nanogpt` is compared with, in loss and in time.

    nanogpt_torch.py shakespeare.txt [--seed 1337] [--steps 2000] [--threads N] [--compile]

A decoder of 4 layers, 4 heads and width 128 reads contexts of 64 characters, 12 a batch. The first 90 % of the text are for
training; the loss is reported over all of the rest, in windows of 64 that do not overlap. The model and the recipe are those
of https://github.com/karpathy/nanoGPT (README, "I only have a macbook"; its sample data preparation and its optimizer).
"""

import argparse
import math
import time

import torch
from torch import nn
from torch.nn import functional as F

LAYERS, HEADS, WIDTH, CONTEXT, BATCH = 4, 4, 128, 64, 12
PEAK_LR, LAST_LR, WARMUP, DECAY_STEPS = 1e-3, 1e-4, 100, 2000
BETAS, EPS, WEIGHT_DECAY, CLIP = (0.9, 0.99), 1e-8, 0.1, 1.0


class Norm(nn.Module):
    """LayerNorm over the last axis, with a weight and no bias."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, None, 1e-5)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self):
        super().__init__()
        self.norm_1, self.norm_2 = Norm(WIDTH), Norm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.attention_out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.mlp_out = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (part.view(B, T, HEADS, C // HEADS).transpose(1, 2) for part in self.qkv(self.norm_1(x)).split(C, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attention_out(y.transpose(1, 2).reshape(B, T, C))
        return x + self.mlp_out(F.gelu(self.up(self.norm_2(x))))


class Decoder(nn.Module):
    """Token and position embeddings, the blocks, a norm, and a head tied to the token embedding."""

    def __init__(self, vocab):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = Norm(WIDTH)
        for name, p in self.named_parameters():
            if p.dim() >= 2:
                residual = name.endswith("_out.weight")
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * LAYERS) if residual else 0.02)

    def forward(self, inputs, labels):
        """The mean cross entropy over the labels that are not -100."""
        x = self.tokens(inputs) + self.positions(torch.arange(inputs.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)


def learning_rate(step):
    """Linear warm-up, then half a cosine to the last rate; step counts from 0."""
    if step < WARMUP:
        return PEAK_LR * (step + 1) / (WARMUP + 1)
    share = min((step - WARMUP) / (DECAY_STEPS - WARMUP), 1.0)
    return LAST_LR + 0.5 * (1 + math.cos(math.pi * share)) * (PEAK_LR - LAST_LR)


@torch.no_grad()
def validation_loss(model, tokens, windows_at_once=64):
    """The mean over all of the split: every token but the first is a label once; the last window is padded."""
    labels = len(tokens) - 1
    rows = math.ceil(labels / CONTEXT)
    inputs, targets = torch.zeros(rows * CONTEXT, dtype=torch.long), torch.full((rows * CONTEXT,), -100)
    inputs[:labels], targets[:labels] = tokens[:-1], tokens[1:]
    inputs, targets = inputs.view(rows, CONTEXT), targets.view(rows, CONTEXT)
    total = 0.0
    for x, y in zip(inputs.split(windows_at_once), targets.split(windows_at_once)):
        total += model(x, y).item() * (y != -100).sum().item()
    return total / labels


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("text", help="a UTF-8 text file")
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--steps", type=int, default=2000, help="the learning rate's cosine ends at 2000 all the same")
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.set_flush_denormal(True)
    if args.threads:
        torch.set_num_threads(args.threads)

    with open(args.text, encoding="utf-8", newline="") as file:
        text = file.read()
    ids = {character: i for i, character in enumerate(sorted(set(text)))}
    tokens = torch.tensor([ids[character] for character in text])
    first = len(tokens) * 9 // 10
    train, validation = tokens[:first], tokens[first:]

    decoder = Decoder(len(ids))
    parameters = list(decoder.parameters())
    adamw = torch.optim.AdamW([
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ], lr=PEAK_LR, betas=BETAS, eps=EPS)
    model = torch.compile(decoder) if args.compile else decoder
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {sum(p.numel() for p in parameters):,} parameters, "
          f"vocabulary {len(ids)}, {len(train):,} + {len(validation):,} tokens, seed {args.seed}", flush=True)

    def batch():
        offsets = torch.randint(len(train) - CONTEXT, (BATCH,))
        return (torch.stack([train[o:o + CONTEXT] for o in offsets]), torch.stack([train[o + 1:o + CONTEXT + 1] for o in offsets]))

    if args.compile:  # compilation is no part of the training time
        model(*batch()).backward()
        adamw.zero_grad(set_to_none=True)

    began = shown = time.perf_counter()
    for step in range(args.steps):
        for group in adamw.param_groups:
            group["lr"] = learning_rate(step)
        loss = model(*batch())
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        if time.perf_counter() - shown > 10:
            shown = time.perf_counter()
            print(f"step {step + 1}/{args.steps}  loss {loss.item():.4f}", flush=True)
    seconds = time.perf_counter() - began

    print(f"training {seconds:.2f} s, {args.steps * BATCH * CONTEXT / max(seconds, 1e-9):,.0f} tokens/s")
    print(f"validation loss {validation_loss(decoder, validation):.4f} over {len(validation) - 1:,} characters")


if __name__ == "__main__":
    main()
