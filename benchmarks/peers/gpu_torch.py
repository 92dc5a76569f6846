"""GPT-2 on one GPU in PyTorch: the sizes of benchmarks/cuda.cpp, bf16 autocast, fused AdamW, clipping, SDPA (cuDNN's where it is faster),
eager and compiled. Usage: gpu_torch.py [124m] [1.5b] [eager] [compiled]"""
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

torch.set_float32_matmul_precision("high")


class Block(nn.Module):
    def __init__(self, C, H):
        super().__init__()
        self.H = H
        self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.proj = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.fc, self.out = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(self.ln_1(x)).view(B, T, 3, self.H, C // self.H).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(B, T, C))
        return x + self.out(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self, V, C, L, H, T):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(V, C), nn.Embedding(T, C)
        self.blocks = nn.ModuleList(Block(C, H) for _ in range(L))
        self.ln_f = nn.LayerNorm(C)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, x, y):
        h = self.wte(x) + self.wpe(torch.arange(x.shape[1], device=x.device))
        for b in self.blocks:
            h = b(h)
        logits = F.linear(self.ln_f(h), self.wte.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1))


def measure(name, C, L, H, B, T, steps, compiled, backend):
    torch.manual_seed(1)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = GPT(50304, C, L, H, T).cuda()
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
    run = torch.compile(model) if compiled else model
    x = torch.randint(50257, (B, T), device="cuda")
    y = torch.randint(50257, (B, T), device="cuda")
    best = 1e30
    from torch.nn.attention import SDPBackend, sdpa_kernel
    with sdpa_kernel([getattr(SDPBackend, backend)]):
        for step in range(steps):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            with torch.autocast("cuda", torch.bfloat16):
                loss = run(x, y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adamw.step()
            adamw.zero_grad(set_to_none=True)
            torch.cuda.synchronize()
            if step > 2:
                best = min(best, time.perf_counter() - begin)
    print(f"PyTorch {torch.__version__} {'compiled' if compiled else 'eager'}, {backend}: {name}, {B} x {T}: {B * T / best:.0f} tokens/s, {best * 1e3:.1f} ms a step, "
          f"loss {loss.item():.4f}, {torch.cuda.max_memory_allocated() * 1e-9:.1f} GB", flush=True)


if __name__ == "__main__":
    parts = sys.argv[1:] or ["124m", "1.5b", "eager", "compiled"]
    for compiled, backend in [(False, "FLASH_ATTENTION"), (False, "CUDNN_ATTENTION"), (True, "CUDNN_ATTENTION"), (True, "FLASH_ATTENTION")]:
        if ("compiled" if compiled else "eager") not in parts:
            continue
        try:
            if "124m" in parts:
                measure("GPT-2 124M", 768, 12, 12, 64, 1024, 10, compiled, backend)
            if "1.5b" in parts:
                measure("GPT-2 1.5B", 1600, 48, 25, 16, 1024, 7, compiled, backend)
        except Exception as error:
            print(f"{'compiled' if compiled else 'eager'}, {backend}: {str(error).splitlines()[0]}", flush=True)
