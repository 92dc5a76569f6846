#!/usr/bin/env python3
"""A GPT-2 line of benchmarks/models.cpp in JAX: the same model, tokens, initial weights and optimizer, as one JSON object. The step
is one jitted function whose state is donated. Usage as cpu_torch.py's, without --compile; the threads are the process's cores."""

import jax
import jax.numpy as jnp
from safetensors import safe_open

import cpu


def load(path, s):
    """A tree of Hugging Face's tensors, all layers of a name as one."""
    with safe_open(path, "np") as file:
        get = lambda name: jnp.asarray(file.get_tensor("transformer." + name))
        names = [n[len("transformer.h.0."):] for n in file.keys() if n.startswith("transformer.h.0.")]
        layers = [{n: get(f"h.{i}.{n}") for n in names} for i in range(s["layers"])]
        outer = {n[len("transformer."):]: get(n[len("transformer."):]) for n in file.keys() if ".h." not in n}
    return {"outer": outer, "layers": layers}


def loss_of(parameters, x, y, s):
    B, T = x.shape
    H, C = s["heads"], s["width"]

    def norm(h, at, name):
        h = h - h.mean(-1, keepdims=True)
        h = h * jax.lax.rsqrt((h * h).mean(-1, keepdims=True) + s["norm_eps"]) * at[name + ".weight"]
        return h + at[name + ".bias"] if s["bias"] else h

    def linear(h, at, name):
        h = h @ at[name + ".weight"]
        return h + at[name + ".bias"] if s["bias"] else h

    outer = parameters["outer"]
    h = outer["wte.weight"][x] + outer["wpe.weight"][:T]
    for at in parameters["layers"]:
        q, k, v = (p.reshape(B, T, H, C // H) for p in jnp.split(linear(norm(h, at, "ln_1"), at, "attn.c_attn"), 3, -1))
        h = h + linear(jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(B, T, C), at, "attn.c_proj")
        h = h + linear(jax.nn.gelu(linear(norm(h, at, "ln_2"), at, "mlp.c_fc"), approximate=s["tanh_gelu"]), at, "mlp.c_proj")
    logits = norm(h, outer, "ln_f") @ outer["wte.weight"].T
    at_target = jnp.take_along_axis(logits, y[..., None], -1)[..., 0]
    return (jax.nn.logsumexp(logits, -1) - at_target).mean()


def main():
    args = cpu.peer_parser(__doc__).parse_args()
    s = cpu.describe(args.program, args.id)
    if s["rotary"] or s["fresh"] or args.dtype != "float":
        raise SystemExit("expected a GPT-2 line that trains in float")
    parameters = load(args.weights, s)
    zeros = lambda: jax.tree.map(jnp.zeros_like, parameters)
    state = (parameters, zeros(), zeros(), jnp.int32(0))
    B, T = s["batch"], s["context"]
    tokens = jnp.array(cpu.random_tokens(s, B * T + 1), jnp.int32)
    x, y = tokens[:-1].reshape(B, T), tokens[1:].reshape(B, T)
    beta1, beta2 = s["betas"]

    def update(state):
        parameters, m, v, t = state
        loss, gradients = jax.value_and_grad(lambda p: loss_of(p, x, y, s))(parameters)
        norm = jnp.sqrt(sum((g * g).sum() for g in jax.tree.leaves(gradients)))
        scale = jnp.minimum(1.0, s["clip"] / norm)
        t = t + 1
        m = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * scale * g, m, gradients)
        v = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * (scale * g) ** 2, v, gradients)

        def moved(p, m, v):
            decay = s["weight_decay"] if p.ndim >= 2 else 0.0
            return p * (1 - s["lr"] * decay) - s["lr"] * (m / (1 - beta1 ** t)) / (jnp.sqrt(v / (1 - beta2 ** t)) + s["eps"])
        return (jax.tree.map(moved, parameters, m, v), m, v, t), loss

    update = jax.jit(update, donate_argnums=0)
    del parameters

    def step():
        nonlocal state
        state, loss = update(state)
        return jax.block_until_ready((state, loss))[1].item()

    losses = [step() for _ in range(3)]
    timing = cpu.Timing(args, step)
    cpu.print_result(s, args, f"JAX {jax.__version__}", {**timing.result(losses), "tokens_per_s": cpu.rates(timing.seconds, B * T)})


if __name__ == "__main__":
    main()
