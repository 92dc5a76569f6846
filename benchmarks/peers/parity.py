"""Random tiny GPT-2, Llama and Mixtral of transformers, saved as safetensors: weft must load them and give the same logits.

    python parity.py PARITY      the program built from parity.cpp
"""
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

V, C, L, H, K, F, T, E = 97, 64, 3, 4, 2, 112, 48, 4


def models():
    yield "gpt2", GPT2LMHeadModel(GPT2Config(vocab_size=V, n_embd=C, n_layer=L, n_head=H, n_inner=F, n_positions=T)), 1e-5, 1e4
    sizes = dict(vocab_size=V, hidden_size=C, num_hidden_layers=L, num_attention_heads=H, num_key_value_heads=K, intermediate_size=F,
                 max_position_embeddings=T, rms_norm_eps=1e-6, tie_word_embeddings=False)
    yield "llama", LlamaForCausalLM(LlamaConfig(**sizes, rope_theta=1e4)), 1e-6, 1e4
    yield "mixtral", MixtralForCausalLM(MixtralConfig(**sizes, num_local_experts=E, num_experts_per_tok=2, rope_theta=1e6)), 1e-6, 1e6


def main(program):
    torch.manual_seed(1)
    failed = False
    for arch, model, eps, theta in models():
        model.eval()
        with torch.no_grad():
            for name, p in model.named_parameters():  # nothing left at 0 or 1, and logits of size 1
                p.add_(torch.randn_like(p) * (0.05 if p.dim() == 1 else 0.08))
            tokens = torch.randint(0, V, (3, T))
            logits = model(tokens).logits
        config = getattr(model.config, "rope_parameters", None)  # newer versions keep it there
        if arch != "gpt2" and config and "rope_theta" in config:
            theta = config["rope_theta"]
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder, safe_serialization=True)
            save_file({"tokens": tokens, "logits": logits.float().contiguous()}, pathlib.Path(folder) / "expected.safetensors")
            kv = H if arch == "gpt2" else K
            failed |= subprocess.run([program, folder, arch, *map(str, (V, C, L, H, kv, F, T, E, eps, theta))]).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
