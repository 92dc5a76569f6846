// AdamW in one pass over memory, and the squared norm of a gradient in fixed pieces: a block sums a piece, in an order that does not
// depend on where the gradient lies. An element's new value depends on that element alone. One .cu file includes this: adamw_scale is no
// template.
#pragma once

#include <cmath>

#include "weft/kernels/cuda/adamw.hpp"
#include "weft/kernels/cuda/elements.cuh"
#include "weft/kernels/cuda/fault.cuh"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

template <class S>
struct AdamWFactors {
  S decay, one_minus_beta1, beta2, one_minus_beta2, step, root_bias2, eps;
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

/// Elements i .. i + V - 1; `rounding` and `first` are AdamWArgs'.
template <class W, class G, class M, int V>
__device__ inline void adamw_elements(Index i, const AdamWFactors<stat_t<W>>& k, stat_t<W> scale, const RandomKey& rounding, Index first,
                                      W* param, stat_t<W>* master, const G* grad, M* m, M* v) {
  using S = stat_t<W>;
  S p[V], ms[V], vs[V];
  stat_t<G> g[V];
  load<V>(grad + i, g);
  load<V>(m + i, ms);
  load<V>(v + i, vs);
  if (master != nullptr) load<V>(master + i, p);
  else load<V>(param + i, p);
#pragma unroll
  for (int e = 0; e < V; ++e) {
    const S scaled = static_cast<S>(g[e]) * scale;
    ms[e] = math::fma(scaled - ms[e], k.one_minus_beta1, ms[e]);
    vs[e] = math::fma(vs[e], k.beta2, scaled * scaled * k.one_minus_beta2);
    p[e] = p[e] * k.decay - k.step * (ms[e] / (std::sqrt(vs[e]) / k.root_bias2 + k.eps));
  }
  if constexpr (std::is_same_v<M, S>) {
    store<V>(m + i, ms, 0);
    store<V>(v + i, vs, 0);
    if (master != nullptr) store<V>(master + i, p, 0);
    store<V>(param + i, p, 0);
  } else {
    RandomKey key = rounding;
    store_stochastically<V>(param + i, p, key, first + i);
    ++key.micro;
    store_stochastically<V>(m + i, ms, key, first + i);
    ++key.micro;
    store_stochastically<V>(v + i, vs, key, first + i);
  }
}

/// A recorded step's factors, as the host computes them: each operation rounded by itself.
template <class S>
__device__ inline void read_launch(const AdamWArgs& args, AdamWFactors<S>& factors, RandomKey& rounding) {
  const AdamWLaunch now = *args.launch;
  const double lr = __dmul_rn(now.lr, args.lr_scale);
  factors.decay = static_cast<S>(__dsub_rn(1.0, __dmul_rn(lr, args.weight_decay)));
  factors.step = static_cast<S>(__ddiv_rn(lr, now.bias1));
  factors.root_bias2 = static_cast<S>(__dsqrt_rn(now.bias2));
  rounding.step = static_cast<std::uint32_t>(now.step);
}

/// The last `rest` elements make no whole pack. A recorded step runs the same kernel: another would fuse other multiplications with additions.
template <class W, class G, class M, int V>
__global__ void __launch_bounds__(256) adamw_kernel(Index packs, int rest, AdamWFactors<stat_t<W>> factors, const __grid_constant__ AdamWArgs args,
                                                    const float* scale, W* param, stat_t<W>* master, const G* grad, M* m, M* v) {
  const float factor = scale != nullptr ? *scale : 1.0f;
  if (!(factor - factor == 0)) return;  // not finite
  RandomKey rounding = args.rounding;
  const Index first = args.first;
  if (args.launch != nullptr) {
    __shared__ AdamWFactors<stat_t<W>> of_launch;
    __shared__ std::uint32_t step;
    if (threadIdx.x == 0) {
      read_launch(args, factors, rounding);
      of_launch = factors, step = rounding.step;
    }
    __syncthreads();
    factors = of_launch, rounding.step = step;
  }
  const Index thread = thread_index();
  for (Index i = thread; i < packs; i += thread_count())
    adamw_elements<W, G, M, V>(i * V, factors, static_cast<stat_t<W>>(factor), rounding, first, param, master, grad, m, v);
  if (V > 1 && thread < rest)
    adamw_elements<W, G, M, 1>(packs * V + thread, factors, static_cast<stat_t<W>>(factor), rounding, first, param, master, grad, m, v);
}

/// Thread t of a piece's block has the elements 4 t .. 4 t + 3 of each 1,024.
template <class G>
__global__ void __launch_bounds__(256) squared_norm_kernel(const G* grad, Index n, bool packs, Index pieces, double* sums) {
  static_assert(norm_piece % 1024 == 0);
  __shared__ double shared[32];
  for (Index piece = blockIdx.x; piece < pieces; piece += gridDim.x) {
    double sum = 0;
#pragma unroll
    for (int k = 0; k < norm_piece / 1024; ++k) {
      const Index i = piece * norm_piece + k * 1024 + threadIdx.x * 4;
      stat_t<G> value[4];
      if (packs && i + 4 <= n) {
        load<4>(grad + i, value);
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e) value[e] = i + e < n ? static_cast<stat_t<G>>(grad[i + e]) : stat_t<G>(0);
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) sum = math::fma(static_cast<double>(value[e]), static_cast<double>(value[e]), sum);
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) sums[piece] = sum;
  }
}

__global__ void __launch_bounds__(1024) adamw_scale_kernel(double* pieces, Index n, double clip, double loss_scale, const AdamWLaunch* launch,
                                                           const __grid_constant__ weft::gpu::Fault wrong, weft::gpu::Fault* fault, double* norm,
                                                           float* scale, std::int64_t* taken) {
  for (Index step = 1; step < n; step *= 2) {
    for (Index i = 2 * step * threadIdx.x; i + step < n; i += 2 * step * blockDim.x) pieces[i] += pieces[i + step];
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  const double root = n > 0 ? std::sqrt(pieces[0]) / loss_scale : 0.0;
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

void adamw_scale(cuda, Out<double, cuda> pieces, double clip, double loss_scale, const AdamWLaunch* launch, const weft::gpu::Fault& wrong, Out<double, cuda> norm,
                 Out<float, cuda> scale, Out<std::int64_t, cuda> taken) {
  gpu::adamw_scale_kernel<<<1, 1024, 0, gpu::stream()>>>(pieces.data, pieces.numel(), clip, loss_scale, launch, wrong, &weft::gpu::fault(), norm.data, scale.data, taken.data);
  gpu::check_launch("adamw");
}

template <class W, class G, class M>
void adamw_step(cuda, Out<W, cuda> param, Out<stat_t<W>, cuda> master, In<G, cuda> grad, Out<M, cuda> m, Out<M, cuda> v, const AdamWArgs& args,
                In<float, cuda> scale) {
  using S = stat_t<W>;
  constexpr bool rounded = !std::is_same_v<M, S>;
  static_assert(!rounded || std::is_same_v<M, W>);
  assert(!rounded || master.data == nullptr);
  const Index n = param.numel();
  if (n == 0) return;
  const gpu::AdamWFactors<S> factors{static_cast<S>(1 - args.lr * args.weight_decay),
                                     static_cast<S>(1 - args.beta1),
                                     static_cast<S>(args.beta2),
                                     static_cast<S>(1 - args.beta2),
                                     static_cast<S>(args.lr / args.bias1),
                                     static_cast<S>(std::sqrt(args.bias2)),
                                     static_cast<S>(args.eps)};
  const auto launch = [&](auto kernel, int width) {
    kernel<<<gpu::blocks_for(n / width), 256, 0, gpu::stream()>>>(n / width, static_cast<int>(n % width), factors, args, scale.data, param.data,
                                                                  master.data, grad.data, m.data, v.data);
  };
  constexpr int V = rounded ? 8 : gpu::pack_of<S>;  // a block of Philox rounds eight
  if (gpu::is_aligned<V>(param.data) && gpu::is_aligned<V>(master.data) && gpu::is_aligned<V>(grad.data) && gpu::is_aligned<V>(m.data) &&
      gpu::is_aligned<V>(v.data) && (!rounded || args.first % V == 0))
    launch(gpu::adamw_kernel<W, G, M, V>, V);
  else launch(gpu::adamw_kernel<W, G, M, 1>, 1);
  gpu::check_launch("adamw");
}

template <class G>
void squared_norm(cuda, In<G, cuda> grad, Out<double, cuda> pieces) {
  const Index n = grad.numel(), count = (n + norm_piece - 1) / norm_piece;
  if (n == 0) return;
  gpu::squared_norm_kernel<G>
      <<<gpu::blocks_for(count, 1), 256, 0, gpu::stream()>>>(grad.data, n, gpu::is_aligned<4>(grad.data), count, pieces.data);
  gpu::check_launch("squared_norm");
}

}  // namespace weft::inline WEFT_ABI::kernels
