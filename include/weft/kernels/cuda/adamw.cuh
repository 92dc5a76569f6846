// AdamW in one pass over memory. An element's new value depends on that element alone. One .cu file includes this: adamw_scale is no template.
#pragma once

#include <cmath>
#include <limits>

#include "weft/kernels/cuda/adamw.hpp"
#include "weft/kernels/cuda/elements.cuh"
#include "weft/kernels/cuda/fault.cuh"
#include "weft/kernels/cuda/hardware_math.cuh"
#include "weft/kernels/cuda/parts.cuh"
#include "weft/kernels/cuda/squared_norm.cuh"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

/// What all parameters of a launch have in common.
template <class S>
struct AdamWFactors {
  S one_minus_beta1, beta2, one_minus_beta2, inverse_root_bias2, eps;
  const AdamWLaunch* launch;
  std::uint32_t rounding_step, rounding_micro;
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
  stat_t<W> decay, rate;
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

/// Elements i .. i + V - 1.
template <int V, class W, class G, class M>
__device__ inline void adamw_elements(Index i, const AdamWElements<W, G, M>& part, const AdamWFactors<stat_t<W>>& k, stat_t<W> decay, stat_t<W> rate,
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
    p[e] = p[e] * decay - rate * quotient<rounded>(ms[e], math::fma(root<rounded>(vs[e]), k.inverse_root_bias2, k.eps));
  }
  if constexpr (!rounded) {
    store<V>(part.m + i, ms, 0);
    store<V>(part.v + i, vs, 0);
    if (part.master != nullptr) store<V>(part.master + i, p, 0);
    store<V>(part.param + i, p, 0);
  } else {
    RandomKey key{part.key, k.rounding_step, k.rounding_micro};
    store_stochastically<V>(part.param + i, p, key, part.first + i);
    ++key.micro;
    store_stochastically<V>(part.m + i, ms, key, part.first + i);
    ++key.micro;
    store_stochastically<V>(part.v + i, vs, key, part.first + i);
  }
}

/// A recorded step's factors, as the host computes them: each operation rounded by itself.
template <class S>
__device__ inline void read_launch(double lr_scale, double weight_decay, AdamWFactors<S>& k, S& decay, S& rate) {
  const AdamWLaunch now = *k.launch;
  const double lr = __dmul_rn(now.lr, lr_scale);
  decay = static_cast<S>(__dsub_rn(1.0, __dmul_rn(lr, weight_decay)));
  rate = static_cast<S>(__ddiv_rn(lr, now.bias1));
  k.inverse_root_bias2 = static_cast<S>(__ddiv_rn(1.0, __dsqrt_rn(now.bias2)));
  k.rounding_step = static_cast<std::uint32_t>(now.step);
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
  S decay = part.decay, rate = part.rate;
  if (k.launch != nullptr) {
    __shared__ AdamWFactors<S> of_launch;
    __shared__ S its_decay, its_rate;
    if (threadIdx.x == 0) {
      read_launch(part.lr_scale, part.weight_decay, k, decay, rate);
      of_launch = k, its_decay = decay, its_rate = rate;
    }
    __syncthreads();
    k = of_launch, decay = its_decay, rate = its_rate;
  }
  const Index i = (Index{block} * adamw_threads + threadIdx.x) * V;
  if (i + V <= part.n) adamw_elements<V>(i, part, k, decay, rate, static_cast<S>(factor));
  else
    for (Index e = i; e < part.n; ++e) adamw_elements<1>(e, part, k, decay, rate, static_cast<S>(factor));
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
  gpu::launch_tree_sum(pieces.data, pieces.numel(), norm.data);
  gpu::adamw_scale_kernel<<<1, 1, 0, gpu::stream()>>>(clip, loss_scale, launch, wrong, &weft::gpu::fault(), norm.data, scale.data, taken.data);
  gpu::check_launch("adamw");
}

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
        assert(p.args.beta1 == common.beta1 && p.args.beta2 == common.beta2 && p.args.eps == common.eps && p.args.bias2 == common.bias2 && p.args.launch == common.launch);
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

}  // namespace weft::inline WEFT_ABI::kernels
