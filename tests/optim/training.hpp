// A short training run of a tiny decoder, on any Communicator: what ZeRO's tests compare.
#pragma once

#include <random>

#include "../nn/support.hpp"
#include "weft/comm/communicator.hpp"

namespace weft::test {

struct Plan {
  Arch arch = Arch::gpt2;
  int ranks = 1, zero = 0;
  bool exact = true;
  Index micros = 4;
  bool recompute = false, inside = false;
  int threads = 1;
  std::size_t bucket_bytes = std::size_t{1} << 15;  // several a unit
  unsigned sizes = 0;                               // not 0: drawn from it
  bool bf16_states = false;
  bool offload = false;
};
inline std::string name(const Plan& p) {
  return std::string(name(p.arch)) + ", " + std::to_string(p.ranks) + " ranks, ZeRO " + std::to_string(p.zero) + (p.exact ? " exact" : "") +
         (p.recompute ? ", recompute" : "") + (p.inside ? ", inside the backward" : "") + (p.bf16_states ? ", bf16 states" : "") + (p.offload ? ", offload" : "") + (p.sizes != 0 ? ", sizes " + std::to_string(p.sizes) : "");
}

template <class T>
struct Result {
  std::vector<double> losses, norms;  // of each micro-batch and step
  std::vector<T> weights;
  bool operator==(const Result& other) const {
    return same_bits(losses, other.losses) && same_bits(norms, other.norms) && same_bits(weights, other.weights);
  }
};

inline nn::TransformerConfig config_of(const Plan& p) {
  nn::TransformerConfig c = tiny(p.arch);
  if (p.sizes != 0) {
    std::mt19937 random(p.sizes);
    const auto pick = [&](int n) { return 1 + static_cast<Index>(random() % static_cast<unsigned>(n)); };
    const Index kv_heads = pick(2), heads = kv_heads * pick(3);
    c = tiny(p.arch, {.vocab = 16 + pick(30), .width = heads * 2 * pick(7), .layers = pick(3), .heads = heads, .kv_heads = kv_heads, .context = 12});
  }
  c.dropout = 0.1;
  c.recompute = p.recompute;
  return c;
}

/// What rank `comm` does; each writes its losses, rank 0 the norms and the weights.
template <class T, class W = T>
void train_rank(const Plan& plan, Communicator& comm, Result<W>& result, Index steps = 4) {
  const nn::Transformer<T, W> model(config_of(plan));
  optim::AdamW adamw(model, comm, {.beta2 = 0.99, .bf16_states = plan.bf16_states, .offload = plan.offload, .zero = plan.zero, .exact = plan.exact, .bucket_bytes = plan.bucket_bytes});
  adamw.materialise(1);
  const auto note = [&](Index step, double norm) { if (comm.rank() == 0) result.norms[static_cast<std::size_t>(step)] = norm; };
  for (Index step = 0; step < steps; ++step) {
    const double lr = 3e-3;
    for (Index i = 0; i < plan.micros / comm.size(); ++i) {
      const Index micro = adamw.micro(i, plan.micros), start = 3 * step + micro;
      Tape tape(Key{7, step, micro, plan.micros, {static_cast<double>(22 * plan.micros)}});
      const auto loss = model.loss(rule_tokens(2, 11, start), rule_tokens(2, 11, start + 1));
      result.losses[static_cast<std::size_t>(step * plan.micros + micro)] = loss.value();
      if (plan.inside) note(step, adamw.backward(tape, loss, {.lr = lr}));
      else tape.backward(loss);
    }
    if (!plan.inside) note(step, adamw.step({.lr = lr, .clip = 1}));
  }
  adamw.with_parameters([&] { if (comm.rank() == 0) result.weights = weights(model); });
}
template <class W>
Result<W> room_for(const Plan& plan, Index steps = 4) {
  return {std::vector<double>(static_cast<std::size_t>(steps * plan.micros)), std::vector<double>(static_cast<std::size_t>(steps)), {}};
}

}  // namespace weft::test
