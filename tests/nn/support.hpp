// What the tests of modules and models share: tiny decoders of the three families, tokens with something to learn, a training loop.
#pragma once

#include "../support.hpp"
#include "weft/nn/transformer.hpp"
#include "weft/optim/adamw.hpp"

namespace weft::test {

enum class Arch { gpt2, llama, mixtral };
inline constexpr Arch all_archs[] = {Arch::gpt2, Arch::llama, Arch::mixtral};

inline const char* name(Arch arch) { return arch == Arch::gpt2 ? "gpt2" : arch == Arch::llama ? "llama" : "mixtral"; }

/// Grouped queries but for GPT-2; four experts, of which each token takes two.
inline nn::TransformerConfig tiny(Arch arch, nn::TransformerConfig sizes = {.vocab = 17, .width = 16, .layers = 2, .heads = 4, .context = 12}) {
  if (arch != Arch::gpt2 && sizes.kv_heads == 0) sizes.kv_heads = sizes.heads / 2;
  sizes.experts = 4;
  return arch == Arch::gpt2 ? nn::TransformerConfig::gpt2(sizes)
         : arch == Arch::llama ? nn::TransformerConfig::llama(sizes) : nn::TransformerConfig::mixtral(sizes);
}

/// Tokens (B, T) that follow a rule, from `start` on; the targets are those from start + 1 on.
inline Tensor<std::int64_t> rule_tokens(Index B, Index T, Index start, Index vocab = 17) {
  std::vector<std::int64_t> tokens;
  for (Index b = 0; b < B; ++b)
    for (Index t = 0; t < T; ++t) {
      const Index i = b * 5 + t + start;
      tokens.push_back((i * i + 3 * i) % vocab);
    }
  return from_vector<std::int64_t>(tokens, {B, T});
}

/// All weights, one after the other, as they are in memory.
template <class M>
auto weights(const M& model) {
  using W = typename std::remove_cvref_t<decltype(model.lm_head)>::value_type;
  std::vector<W> all;
  nn::for_each_parameter(model, [&](const std::string&, const auto& p) {
    const std::vector<W> values = p.to_vector();
    all.insert(all.end(), values.begin(), values.end());
  });
  return all;
}

/// Trains from step `first` up to `last`; returns the losses.
template <class M, class Optimizer>
std::vector<double> train_steps(const M& model, Optimizer& adamw, Index first, Index last) {
  std::vector<double> losses;
  for (Index step = first; step < last; ++step) {
    Tape tape(Key{7, step});
    const Index start = step % 13;
    const auto loss = model.loss(rule_tokens(3, 11, start), rule_tokens(3, 11, start + 1));
    tape.backward(loss);
    losses.push_back(loss.value());
    adamw.step({.lr = 3e-3, .clip = 1.0});
  }
  return losses;
}

}  // namespace weft::test
