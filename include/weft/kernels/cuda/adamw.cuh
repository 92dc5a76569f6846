// AdamW in one pass over memory, and the squared norm of a gradient in fixed pieces: a block sums a piece, in an order that does not
// depend on where the gradient lies. An element's new value depends on that element alone. One .cu file includes this: adamw_scale and
// tree_sum are no templates.
#pragma once

#include <cmath>
#include <limits>

#include "weft/kernels/cuda/adamw.hpp"
#include "weft/kernels/cuda/elements.cuh"
#include "weft/kernels/cuda/fault.cuh"
#include "weft/kernels/cuda/parts.cuh"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

/// What all parameters of a launch have in common.
template <class S>
struct AdamWFactors {
  S one_minus_beta1, beta2, one_minus_beta2, inverse_root_bias2, eps;
  const AdamWLaunch* launch;
  std::uint32_t step, micro;  ///< of the rounding
};

/// A parameter, or a part of one.
template <class W, class G, class M>
struct AdamWElements {
  W* param;
  stat_t<W>* master;
  const G* grad;
  M *m, *v;
  const float* scale;
  Index n, first;
  PhiloxKey key;
  stat_t<W> decay, step;
  double lr_scale, weight_decay;  ///< of a recorded step
};

/// Stores, rounding stochastically by the bits of elements i .. i + V - 1 of the parameter; for a pack i is a multiple of V = 8.
template <int V>
__device__ inline void store_stochastically(bf16* to, const float (&value)[V], const RandomKey& key, Index i) {
  static_assert(V == 1 || V == 8);
  const PhiloxWords drawn = philox(key, static_cast<std::uint64_t>(i) / 8);
  if constexpr (V == 1) {
    *to = round_stochastically(value[0], philox_half(drawn, static_cast<int>(i % 8)));
  } else {
    Pack<std::uint32_t, 4> pack;
#pragma unroll
    for (int j = 0; j < 4; ++j)
      pack.at[j] = static_cast<std::uint32_t>(round_stochastically(value[2 * j], drawn.w[j] & 0xffffu).bits) |
                   static_cast<std::uint32_t>(round_stochastically(value[2 * j + 1], drawn.w[j] >> 16).bits) << 16;
    pack.write(to);
  }
}

/// x / y and the root of x: within 2^-22 where the result is rounded to 16 bits, by the hardware's approximations, else rounded once.
template <bool narrow, class S>
__device__ inline S quotient(S x, S y) {
  if constexpr (narrow) return __fdividef(x, y);
  else return x / y;
}
template <bool narrow, class S>
__device__ inline S root(S x) {
  if constexpr (narrow) {
    float y;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  } else {
    return std::sqrt(x);
  }
}

/// Elements i .. i + V - 1.
template <int V, class W, class G, class M>
__device__ inline void adamw_elements(Index i, const AdamWElements<W, G, M>& part, const AdamWFactors<stat_t<W>>& k, stat_t<W> decay, stat_t<W> step,
                                      stat_t<W> scale) {
  using S = stat_t<W>;
  constexpr bool rounded = !std::is_same_v<M, S>;
  S p[V], ms[V], vs[V];
  stat_t<G> g[V];
  load<V>(part.grad + i, g);
  load<V>(part.m + i, ms);
  load<V>(part.v + i, vs);
  if (part.master != nullptr) load<V>(part.master + i, p);
  else load<V>(part.param + i, p);
#pragma unroll
  for (int e = 0; e < V; ++e) {
    const S scaled = static_cast<S>(g[e]) * scale;
    ms[e] = math::fma(scaled - ms[e], k.one_minus_beta1, ms[e]);
    vs[e] = math::fma(vs[e], k.beta2, scaled * scaled * k.one_minus_beta2);
    p[e] = p[e] * decay - step * quotient<rounded>(ms[e], math::fma(root<rounded>(vs[e]), k.inverse_root_bias2, k.eps));
  }
  if constexpr (!rounded) {
    store<V>(part.m + i, ms, 0);
    store<V>(part.v + i, vs, 0);
    if (part.master != nullptr) store<V>(part.master + i, p, 0);
    store<V>(part.param + i, p, 0);
  } else {
    RandomKey key{part.key, k.step, k.micro};
    store_stochastically<V>(part.param + i, p, key, part.first + i);
    ++key.micro;
    store_stochastically<V>(part.m + i, ms, key, part.first + i);
    ++key.micro;
    store_stochastically<V>(part.v + i, vs, key, part.first + i);
  }
}

/// A recorded step's factors, as the host computes them: each operation rounded by itself.
template <class S>
__device__ inline void read_launch(double lr_scale, double weight_decay, AdamWFactors<S>& k, S& decay, S& step) {
  const AdamWLaunch now = *k.launch;
  const double lr = __dmul_rn(now.lr, lr_scale);
  decay = static_cast<S>(__dsub_rn(1.0, __dmul_rn(lr, weight_decay)));
  step = static_cast<S>(__ddiv_rn(lr, now.bias1));
  k.inverse_root_bias2 = static_cast<S>(__ddiv_rn(1.0, __dsqrt_rn(now.bias2)));
  k.step = static_cast<std::uint32_t>(now.step);
}

inline constexpr int adamw_threads = 256;

/// The last elements make no whole pack. A recorded step runs the same kernel: another would fuse other multiplications with additions.
template <class W, class G, class M, int V>
__global__ void __launch_bounds__(adamw_threads) adamw_kernel(AdamWFactors<stat_t<W>> k, const __grid_constant__ Parts<AdamWElements<W, G, M>> parts) {
  using S = stat_t<W>;
  int block;
  const AdamWElements<W, G, M>& part = parts.here(block);
  const float factor = part.scale != nullptr ? *part.scale : 1.0f;
  if (!(factor - factor == 0)) return;  // not finite
  S decay = part.decay, step = part.step;
  if (k.launch != nullptr) {
    __shared__ AdamWFactors<S> of_launch;
    __shared__ S its_decay, its_step;
    if (threadIdx.x == 0) {
      read_launch(part.lr_scale, part.weight_decay, k, decay, step);
      of_launch = k, its_decay = decay, its_step = step;
    }
    __syncthreads();
    k = of_launch, decay = its_decay, step = its_step;
  }
  const Index i = (Index{block} * adamw_threads + threadIdx.x) * V;
  if (i + V <= part.n) adamw_elements<V>(i, part, k, decay, step, static_cast<S>(factor));
  else
    for (Index e = i; e < part.n; ++e) adamw_elements<1>(e, part, k, decay, step, static_cast<S>(factor));
}

template <class G>
struct NormElements {
  const G* grad;
  Index n;
  double* sums;
};

/// A block a piece: thread t has the elements 4 t .. 4 t + 3 of each 1,024.
template <class G>
__global__ void __launch_bounds__(256) squared_norm_kernel(const __grid_constant__ Parts<NormElements<G>> parts) {
  static_assert(norm_piece % 1024 == 0);
  __shared__ double shared[32];
  int piece;
  const NormElements<G>& part = parts.here(piece);
  const bool packs = is_aligned<4>(part.grad);
  double sum = 0;
#pragma unroll
  for (int k = 0; k < norm_piece / 1024; ++k) {
    const Index i = piece * norm_piece + k * 1024 + threadIdx.x * 4;
    stat_t<G> value[4];
    if (packs && i + 4 <= part.n) {
      load<4>(part.grad + i, value);
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e) value[e] = i + e < part.n ? static_cast<stat_t<G>>(part.grad[i + e]) : stat_t<G>(0);
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) sum = math::fma(static_cast<double>(value[e]), static_cast<double>(value[e]), sum);
  }
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) part.sums[piece] = sum;
}

/// A block a part.
__global__ void __launch_bounds__(1024) finite_factors_kernel(const __grid_constant__ Parts<NormElements<void>> parts, const weft::gpu::Fault* fault, float* factors) {
  const NormElements<void>& part = parts.of[blockIdx.x];
  bool bad = faulty(fault);
#pragma unroll 8
  for (Index i = threadIdx.x; i < part.n; i += blockDim.x) bad |= !(part.sums[i] - part.sums[i] == 0);
  bad = __syncthreads_or(bad);
  if (threadIdx.x == 0) factors[blockIdx.x] = bad ? std::numeric_limits<float>::quiet_NaN() : 1.0f;
}

/// tree_sum's tree over n values in shared memory; the sum is values[0].
__device__ inline void fold_tree(double* values, int n) {
  for (int step = 1; step < n; step *= 2) {
    __syncthreads();
    for (int i = 2 * step * static_cast<int>(threadIdx.x); i + step < n; i += 2 * step * static_cast<int>(blockDim.x)) values[i] += values[i + step];
  }
}
inline constexpr int tree_width = 2048;
/// Sums of tree_width values each, which are a level of the tree.
__global__ void __launch_bounds__(256) tree_level_kernel(const double* x, Index n, double* sums) {
  __shared__ double values[tree_width];
  const Index begin = Index{blockIdx.x} * tree_width;
  const int count = static_cast<int>(n - begin < tree_width ? n - begin : tree_width);
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) values[i] = x[begin + i];
  fold_tree(values, count);
  if (threadIdx.x == 0) sums[blockIdx.x] = values[0];
}
/// sum = x's sum in tree_sum's tree.
inline void fold_tree(const double* x, Index n, double* sum) {
  if (n == 0) return check(cudaMemsetAsync(sum, 0, sizeof *sum, stream()), "tree_sum");
  const auto level = [](const double* from, Index count, double* to) {
    tree_level_kernel<<<static_cast<unsigned>((count + tree_width - 1) / tree_width), 256, 0, stream()>>>(from, count, to);
    check_launch("tree_sum");
  };
  if (n <= tree_width) return level(x, n, sum);
  const Index above = (n + tree_width - 1) / tree_width;
  const Scratch<double> sums(above);
  level(x, n, sums.data());
  fold_tree(sums.data(), above, sum);
}

__global__ void adamw_scale_kernel(double clip, double loss_scale, const AdamWLaunch* launch, const __grid_constant__ weft::gpu::Fault wrong,
                                   weft::gpu::Fault* fault, double* norm, float* scale, std::int64_t* taken) {
  const double root = std::sqrt(*norm) / loss_scale;
  *norm = root;
  if (!(root - root == 0)) note(fault, wrong, launch->step - 1, __double_as_longlong(root));
  if (faulty(fault)) {
    *scale = std::numeric_limits<float>::quiet_NaN();
    if (taken[1] == 0) taken[0] = launch->step - 1, taken[1] = 1;
  } else {
    *scale = static_cast<float>((clip > 0 && root > clip ? clip / root : 1) / loss_scale);
    taken[0] = launch->step, taken[1] = 0;
  }
}

}  // namespace gpu

void adamw_scale(cuda, In<double, cuda> pieces, double clip, double loss_scale, const AdamWLaunch* launch, const weft::gpu::Fault& wrong, Out<double, cuda> norm,
                 Out<float, cuda> scale, Out<std::int64_t, cuda> taken) {
  gpu::fold_tree(pieces.data, pieces.numel(), norm.data);
  gpu::adamw_scale_kernel<<<1, 1, 0, gpu::stream()>>>(clip, loss_scale, launch, wrong, &weft::gpu::fault(), norm.data, scale.data, taken.data);
  gpu::check_launch("adamw");
}

void tree_sum(cuda, In<double, cuda> x, Out<double, cuda> sum) { gpu::fold_tree(x.data, x.numel(), sum.data); }

template <class W, class G, class M>
void adamw_step(cuda, std::span<const AdamWPart<W, G, M, cuda>> parts) {
  using S = stat_t<W>;
  using Elements = gpu::AdamWElements<W, G, M>;
  constexpr bool rounded = !std::is_same_v<M, S>;
  static_assert(!rounded || std::is_same_v<M, W>);
  if (parts.empty()) return;
  const AdamWArgs& common = parts[0].args;
  const gpu::AdamWFactors<S> factors{static_cast<S>(1 - common.beta1),
                                     static_cast<S>(common.beta2),
                                     static_cast<S>(1 - common.beta2),
                                     static_cast<S>(1 / std::sqrt(common.bias2)),
                                     static_cast<S>(common.eps),
                                     common.launch,
                                     common.rounding.step,
                                     common.rounding.micro};
  constexpr int V = rounded ? 8 : gpu::pack_of<S>;  // a block of Philox rounds eight
  const auto in_packs = [](const auto& p) {
    return gpu::is_aligned<V>(p.param.data) && gpu::is_aligned<V>(p.master.data) && gpu::is_aligned<V>(p.grad.data) && gpu::is_aligned<V>(p.m.data) &&
           gpu::is_aligned<V>(p.v.data) && (!rounded || p.args.first % V == 0);
  };
  const auto launch_those = [&](bool packed, auto kernel, Index width) {
    const auto each = [&](auto&& add) {
      for (const auto& p : parts) {
        const Index n = p.param.numel();
        assert(!rounded || p.master.data == nullptr);
        if (n == 0 || in_packs(p) != packed) continue;
        const AdamWArgs& a = p.args;
        add({p.param.data, p.master.data, p.grad.data, p.m.data, p.v.data, p.scale.data, n, a.first, a.rounding.key, static_cast<S>(1 - a.lr * a.weight_decay),
             static_cast<S>(a.lr / a.bias1), a.lr_scale, a.weight_decay},
            (n + gpu::adamw_threads * width - 1) / (gpu::adamw_threads * width));
      }
    };
    gpu::launch_parts<Elements>(each, [&](const gpu::Parts<Elements>& some) {
      kernel<<<static_cast<unsigned>(some.blocks), gpu::adamw_threads, 0, gpu::stream()>>>(factors, some);
      gpu::check_launch("adamw");
    });
  };
  launch_those(true, gpu::adamw_kernel<W, G, M, V>, V);
  launch_those(false, gpu::adamw_kernel<W, G, M, 1>, 1);
}

template <class G>
void squared_norm(cuda, std::span<const NormPart<G, cuda>> parts) {
  using Elements = gpu::NormElements<G>;
  const auto each = [&](auto&& add) {
    for (const auto& p : parts)
      if (const Index n = p.grad.numel(); n > 0) add({p.grad.data, n, p.pieces.data}, (n + norm_piece - 1) / norm_piece);
  };
  gpu::launch_parts<Elements>(each, [](const gpu::Parts<Elements>& some) {
    gpu::squared_norm_kernel<G><<<static_cast<unsigned>(some.blocks), 256, 0, gpu::stream()>>>(some);
    gpu::check_launch("squared_norm");
  });
}

template <class G>
void finite_factors(cuda, std::span<const NormPart<G, cuda>> parts, Out<float, cuda> factors) {
  using Elements = gpu::NormElements<void>;
  float* to = factors.data;
  const auto each = [&](auto&& add) {
    for (const auto& p : parts) add({nullptr, p.pieces.numel(), p.pieces.data}, 1);
  };
  gpu::launch_parts<Elements>(each, [&](const gpu::Parts<Elements>& some) {
    gpu::finite_factors_kernel<<<static_cast<unsigned>(some.count), 1024, 0, gpu::stream()>>>(some, &weft::gpu::fault(), to);
    gpu::check_launch("finite_factors");
    to += some.count;
  });
}

}  // namespace weft::inline WEFT_ABI::kernels
