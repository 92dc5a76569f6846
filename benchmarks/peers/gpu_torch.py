"""GPT-2 on one GPU in PyTorch: the sizes of benchmarks/cuda.cpp, bf16 autocast, fused AdamW, clipping, SDPA (cuDNN's where it is faster),
eager and compiled (deep models block by block, which share their code: one compilation); and Llama 3 8B, compiled, with parameters, gradients and AdamW's states in bf16 and no clipping (needs 141 GB).
Usage: gpu_torch.py [124m] [1.5b] [eager] [compiled]; gpu_torch.py 8b"""
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
        return self.loss_of(h, y)

    def loss_of(self, h, y):
        logits = F.linear(self.ln_f(h), self.wte.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1))


def compile_parts(model):
    for b in model.blocks:
        b.compile(dynamic=False)
    model.loss_of = torch.compile(model.loss_of, dynamic=False)


def measure(name, C, L, H, B, T, steps, compiled, backend):
    torch.manual_seed(1)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = GPT(50304, C, L, H, T).cuda()
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
    run = torch.compile(model) if compiled and L <= 12 else model
    if compiled and L > 12:
        compile_parts(model)
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


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class LlamaBlock(nn.Module):
    def __init__(self, C, H, K, hidden):
        super().__init__()
        self.H, self.K = H, K
        self.norm_1, self.norm_2 = nn.RMSNorm(C, eps=1e-5), nn.RMSNorm(C, eps=1e-5)
        self.qkv, self.proj = nn.Linear(C, C + 2 * K * (C // H), bias=False), nn.Linear(C, C, bias=False)
        self.gate, self.up, self.down = nn.Linear(C, hidden, bias=False), nn.Linear(C, hidden, bias=False), nn.Linear(hidden, C, bias=False)

    def forward(self, x, cos, sin):
        B, T, C = x.shape
        H, K = self.H, self.K
        q, k, v = self.qkv(self.norm_1(x)).view(B, T, H + 2 * K, C // H).transpose(1, 2).split([H, K, K], dim=1)
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True, enable_gqa=True)
        x = x + self.proj(y.transpose(1, 2).reshape(B, T, C))
        h = self.norm_2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    def __init__(self, V, C, L, H, K, hidden, T, theta):
        super().__init__()
        self.embed = nn.Embedding(V, C)
        self.blocks = nn.ModuleList(LlamaBlock(C, H, K, hidden) for _ in range(L))
        self.norm, self.head = nn.RMSNorm(C, eps=1e-5), nn.Linear(C, V, bias=False)
        D = C // H
        angle = torch.outer(torch.arange(T, dtype=torch.float32), theta ** (-torch.arange(0, D, 2, dtype=torch.float32) / D))
        self.register_buffer("cos", angle.cos().to(self.embed.weight.dtype)), self.register_buffer("sin", angle.sin().to(self.embed.weight.dtype))
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def loss_of(self, h, y):
        logits = self.head(self.norm(h)).float()
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1))

    def forward(self, x, y):
        h = self.embed(x)
        for b in self.blocks:
            h = b(h, self.cos, self.sin)
        return self.loss_of(h, y)


def measure_llama(name, V, C, L, H, K, hidden, T, steps, device="cuda"):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    torch.manual_seed(1)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = Llama(V, C, L, H, K, hidden, T, 500000.0)
    torch.set_default_dtype(torch.float32)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    x = torch.randint(50257, (1, T), device=device)
    y = torch.randint(50257, (1, T), device=device)
    compile_parts(model)
    best = 1e30
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION], set_priority=True):
        for step in range(steps):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            loss = model(x, y)
            loss.backward()
            adamw.step()
            adamw.zero_grad(set_to_none=True)
            torch.cuda.synchronize()
            if step > 1:
                best = min(best, time.perf_counter() - begin)
    print(f"PyTorch {torch.__version__} compiled: {name}, 1 x {T}: {T / best:.0f} tokens/s, {best * 1e3:.1f} ms a step, "
          f"loss {loss.item():.4f}, {torch.cuda.max_memory_allocated() * 1e-9:.1f} GB", flush=True)


if __name__ == "__main__":
    parts = sys.argv[1:] or ["124m", "1.5b", "eager", "compiled"]
    if "8b" in parts:
        try:
            measure_llama("Llama 3 8B", 128256, 4096, 32, 32, 8, 14336, 8192, 6)
        except Exception as error:
            print(f"Llama 3 8B: {str(error).splitlines()[0]}", flush=True)
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
