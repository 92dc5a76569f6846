// What a step costs and what the machine can do: the two numbers behind "share of the roof".
#pragma once

#include <algorithm>
#include <chrono>

#include "weft/kernels/cpu/matmul.hpp"
#include "weft/kernels/cuda/matmul.hpp"
#include "weft/nn/transformer_config.hpp"
#include "weft/ops/create.hpp"

namespace weft::inline WEFT_ABI::train {

/// FLOPs of training on one token: 6 for each weight that multiplies (of a mixture, of the chosen experts) and 12 layers C for each key that
/// a query sees, on average (T / 2 where attention is causal without a window); look-ups, norms and elementwise work do not count.
inline double flops_per_token(const nn::TransformerConfig& c) {
  const double C = static_cast<double>(c.width), kv = C * static_cast<double>(c.kv()) / static_cast<double>(c.heads);
  const double F = static_cast<double>(c.ff_width());
  double layer = C * (2 * C + 2 * kv) + (c.gated() ? 3 : 2) * C * F;
  if (c.feed_forward == nn::FeedForward::moe)
    layer = C * (2 * C + 2 * kv) + 3 * C * F * static_cast<double>(c.experts_per_token) + C * static_cast<double>(c.experts);
  const double L = static_cast<double>(c.layers), T = static_cast<double>(c.context);
  const double w = c.window > 0 ? std::min(static_cast<double>(c.window), T) : T;
  return 6 * (L * layer + C * static_cast<double>(c.vocab)) + 6 * L * w * (2 - w / T) * C;
}

/// The FLOP/s of products of T, 1024 x 768 x 1024 on this rank's threads or 8192^3 on its GPU: the best of what fits into about 60 ms.
template <class T = float, class D = default_device>
double gemm_roof_flops() {
  using Clock = std::chrono::steady_clock;
  constexpr Index M = std::is_same_v<D, cpu> ? 1024 : 8192, K = std::is_same_v<D, cpu> ? 768 : 8192, N = M;
  const auto a = full<T, D>({M, K}, T(0.5f)), b = full<T, D>({K, N}, T(0.25f));
  const Tensor<T, D> c({M, N});
  const auto begin = Clock::now();
  double best = 0;
  for (int i = 0; i < 3 || Clock::now() - begin < std::chrono::milliseconds(60); ++i) {
    const auto start = Clock::now();
    kernels::matmul<T, T, T>(D{}, a, b, c);
    if constexpr (std::is_same_v<D, cuda>) gpu::synchronize();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::max(best, 2.0 * M * K * N / seconds);
  }
  return best;
}

}  // namespace weft::inline WEFT_ABI::train
