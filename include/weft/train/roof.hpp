// What a step costs and what the machine can do: the two numbers behind "share of the roof".
#pragma once

#include <chrono>

#include "weft/kernels/cpu/matmul.hpp"
#include "weft/nn/transformer_config.hpp"
#include "weft/ops/create.hpp"

namespace weft::inline WEFT_ABI::train {

/// FLOPs of training on one token: 6 for each weight that multiplies (of a mixture, of the chosen experts) and 6 layers T C for causal
/// attention; look-ups, norms and elementwise work do not count.
inline double flops_per_token(const nn::TransformerConfig& c) {
  const double C = static_cast<double>(c.width), kv = C * static_cast<double>(c.kv()) / static_cast<double>(c.heads);
  const double F = static_cast<double>(c.ff_width());
  double layer = C * (2 * C + 2 * kv) + (c.gated() ? 3 : 2) * C * F;
  if (c.feed_forward == nn::FeedForward::moe)
    layer = C * (2 * C + 2 * kv) + 3 * C * F * static_cast<double>(c.experts_per_token) + C * static_cast<double>(c.experts);
  const double L = static_cast<double>(c.layers);
  return 6 * (L * layer + C * static_cast<double>(c.vocab)) + 6 * L * static_cast<double>(c.context) * C;
}

/// The FLOP/s of float products of 1024 x 768 x 1024 on this rank's threads: the best of what fits into about 60 ms.
inline double gemm_roof_flops() {
  using Clock = std::chrono::steady_clock;
  constexpr Index M = 1024, K = 768, N = 1024;
  const auto a = full<float, cpu>({M, K}, 0.5f), b = full<float, cpu>({K, N}, 0.25f);
  const Tensor<float, cpu> c({M, N});
  const auto begin = Clock::now();
  double best = 0;
  for (int i = 0; i < 3 || Clock::now() - begin < std::chrono::milliseconds(60); ++i) {
    const auto start = Clock::now();
    kernels::matmul<float, float, float>(cpu{}, a, b, c);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::max(best, 2.0 * M * K * N / seconds);
  }
  return best;
}

}  // namespace weft::inline WEFT_ABI::train
