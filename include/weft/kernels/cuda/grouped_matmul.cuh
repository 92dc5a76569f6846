// Products of the rows of each expert, whose offsets only the GPU reads: a block finds its tiles in them by itself. Kernels for tensor cores,
// wgmma's (of bf16) and mma.sync's, where operands have 16 bits and are aligned, and one for all types and strides. An element is one chain over K: run-exact.
#pragma once

#include <cassert>
#include <type_traits>
#include <utility>

#include "weft/kernels/cuda/grouped_mma.cuh"
#include "weft/kernels/cuda/grouped_place.cuh"
#include "weft/kernels/cuda/grouped_wgmma.cuh"
#include "weft/kernels/cuda/launch.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

/// c (+)= a b in tiles of 16 P x 16 P, 16 x 16 threads with P x P elements each. listed: an operand may come through a list.
template <Cut cut, int P, bool listed, class TA, class TB, class TC>
__global__ void __launch_bounds__(256, 2) grouped_kernel(Grouped<TA, TB, TC> g) {
  using S = stat_t<TC>;
  constexpr int tile = 16 * P, depth = 8, per_thread = tile * depth / 256, pitch = tile + 4;
  struct alignas(4 * sizeof(S)) Four {
    S v[4];
  };
  __shared__ alignas(32) S a_tile[depth * pitch];
  __shared__ alignas(32) S b_tile[depth * pitch];
  Place<TA, TB, TC> p;
  if (!find_place<cut, tile, tile>(g, p)) return;

  // A thread's elements of an operand's tile, a step apart: along K first where that is how they lie.
  constexpr int slices = 256 / tile, lines = 256 / depth;
  const int t = static_cast<int>(threadIdx.x);
  const bool a_along = g.a_k == 1, b_along = g.b_k == 1;
  const int a_o = a_along ? t / depth : t % tile, a_k = a_along ? t % depth : t / tile;
  const int b_o = b_along ? t / depth : t % tile, b_k = b_along ? t % depth : t / tile;
  const int a_step_o = a_along ? lines : 0, a_step_k = a_along ? 0 : slices;
  const int b_step_o = b_along ? lines : 0, b_step_k = b_along ? 0 : slices;
  const TA* a_from = p.a + (p.m0 + a_o) * g.a_m + a_k * g.a_k;
  const TB* b_from = p.b + (p.n0 + b_o) * g.b_n + b_k * g.b_k;
  const Index a_step = a_along ? lines * g.a_m : slices * g.a_k, b_step = b_along ? lines * g.b_n : slices * g.b_k;
  const auto a_at = [&](Index k0, int i) {
    if (!listed || p.a_rows == nullptr) return a_from[i * a_step];
    const Index m = p.m0 + a_o + i * a_step_o, k = k0 + a_k + i * a_step_k;
    return cut == Cut::rows ? p.a[p.a_rows[m] * g.a_m + k * g.a_k] : p.a[p.a_rows[k] * g.a_k + m * g.a_m];
  };
  const auto b_at = [&](Index k0, int i) {
    if (!listed || p.b_rows == nullptr) return b_from[i * b_step];
    return p.b[p.b_rows[k0 + b_k + i * b_step_k] * g.b_k + (p.n0 + b_o + i * b_step_o) * g.b_n];
  };
  const int m_left = static_cast<int>(min(p.M - p.m0 - a_o, Index{tile})), n_left = static_cast<int>(min(p.N - p.n0 - b_o, Index{tile}));
  S a_next[per_thread], b_next[per_thread];
  const auto fetch = [&](Index k0) {
    const int k_left = static_cast<int>(min(p.K - k0, Index{depth}));
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
      const bool a_inside = i * a_step_o < m_left && a_k + i * a_step_k < k_left;
      const bool b_inside = i * b_step_o < n_left && b_k + i * b_step_k < k_left;
      a_next[i] = a_inside ? static_cast<S>(a_at(k0, i)) : S(0);
      b_next[i] = b_inside ? static_cast<S>(b_at(k0, i)) : S(0);
    }
    a_from += depth * g.a_k;
    b_from += depth * g.b_k;
  };

  const int row = t / 16 * 4, column = t % 16 * 4;  // then every 64th four
  S sums[P][P] = {};
  fetch(0);
  for (Index k0 = 0; k0 < p.K; k0 += depth) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
      a_tile[(a_k + i * a_step_k) * pitch + a_o + i * a_step_o] = a_next[i];
      b_tile[(b_k + i * b_step_k) * pitch + b_o + i * b_step_o] = b_next[i];
    }
    __syncthreads();
    fetch(k0 + depth);  // zeros past the end
#pragma unroll
    for (int k = 0; k < depth; ++k) {
      Four a[P / 4], b[P / 4];
#pragma unroll
      for (int i = 0; i < P / 4; ++i) {
        a[i] = *reinterpret_cast<const Four*>(&a_tile[k * pitch + row + 64 * i]);
        b[i] = *reinterpret_cast<const Four*>(&b_tile[k * pitch + column + 64 * i]);
      }
#pragma unroll
      for (int i = 0; i < P; ++i)
#pragma unroll
        for (int j = 0; j < P; ++j) sums[i][j] = math::fma(a[i / 4].v[i % 4], b[j / 4].v[j % 4], sums[i][j]);
    }
  }
#pragma unroll
  for (int i = 0; i < P; ++i) {
    const Index m = p.m0 + row + 64 * (i / 4) + i % 4;
    if (m >= p.M) continue;
#pragma unroll
    for (int j = 0; j < P; ++j) {
      const Index n = p.n0 + column + 64 * (j / 4) + j % 4;
      if (n < p.N) put(p.c[m * g.c_m + n], sums[i][j], g.beta);
    }
  }
}

template <Cut cut, class TA, class TB, class TC>
void grouped(const Grouped<TA, TB, TC>& g) {
  if constexpr (Narrow<TA> && std::is_same_v<TA, TB>) {
    if constexpr (std::is_same_v<TA, bf16> && std::is_same_v<TC, bf16> == (cut == Cut::rows))  // the types of activations, and of parameters' gradients
      if (grouped_wgmma<cut>(g)) return;
    if (grouped_mma<cut>(g)) return;
  }
  constexpr int P = std::is_same_v<stat_t<TC>, double> ? 4 : 8;
  const bool listed = g.a_rows != nullptr || g.b_rows != nullptr;
  const auto kernel = listed ? grouped_kernel<cut, P, true, TA, TB, TC> : grouped_kernel<cut, P, false, TA, TB, TC>;
  kernel<<<blocks_for_tiles<cut>(g, 16 * P), 256, 0, stream()>>>(g);
  check_launch("grouped_matmul");
}

template <class TA, class TB, class TC>
Grouped<TA, TB, TC> grouped_of_rows(const In<TA, cuda>& x, const int* list, const In<TB, cuda>& w, const std::int64_t* offsets,
                                    const Out<TC, cuda>& y) {
  const Index N = y.shape[0], E = w.shape[0], K = w.shape[1], M = w.shape[2];
  assert(x.shape[1] == K && y.shape[1] == M && (list != nullptr || x.shape[0] == N));
  assert(M <= 1 || y.strides[1] == 1);
  return {x.data,       w.data,       y.data,       offsets,      N, M,      K,   E, N, x.strides[0], x.strides[1],
          w.strides[1], w.strides[2], w.strides[0], y.strides[0], 0, y.beta, list};
}

/// y[rows of e] (+)= x[rows of e] w[e]; with a list, row p of x is row list[p] of it.
template <class TA, class TB, class TC>
void grouped_rows(const In<TA, cuda>& x, const int* list, const In<TB, cuda>& w, const std::int64_t* offsets, const Out<TC, cuda>& y) {
  if (!y || y.numel() == 0 || w.shape[0] == 0) return;
  grouped<Cut::rows>(grouped_of_rows(x, list, w, offsets, y));
}

/// y[rows of e] = x[rows of e] w[e] + x'[rows of e] w'[e]; on wgmma one product of both.
template <class TA, class TB, class TC>
void grouped_two_rows(const In<TA, cuda>& x, const In<TB, cuda>& w, const In<TA, cuda>& x_too, const In<TB, cuda>& w_too, const std::int64_t* offsets,
                      Out<TC, cuda> y) {
  if constexpr (std::is_same_v<TA, bf16> && std::is_same_v<TB, bf16> && std::is_same_v<TC, bf16>)
    if (y && y.numel() > 0 && x.strides == x_too.strides && w.strides == w_too.strides &&
        grouped_wgmma<Cut::rows, warpgroups::Form::two_terms>(grouped_of_rows(x, nullptr, w, offsets, y), {.a = x_too.data, .b = w_too.data}))
      return;
  grouped_rows(x, nullptr, w, offsets, y);
  y.beta = 1;
  grouped_rows(x_too, nullptr, w_too, offsets, y);
}

/// dw[e] (+)= x[rows of e]^T dy[rows of e], of N rows in all; a list as for grouped_rows, of one of the two at most.
template <class TA, class TB, class TC>
void grouped_sum(const In<TA, cuda>& x, const int* x_list, const In<TB, cuda>& dy, const int* dy_list, const std::int64_t* offsets, Index N,
                 Out<TC, cuda> dw) {
  if (!dw) return;
  if (dw.shape[2] > 1 && dw.strides[2] != 1) {  // then dw^T = dy^T x
    std::swap(dw.shape[1], dw.shape[2]);
    std::swap(dw.strides[1], dw.strides[2]);
    return grouped_sum(dy, dy_list, x, x_list, offsets, N, dw);
  }
  const Index E = dw.shape[0], K = dw.shape[1], M = dw.shape[2];
  assert(x.shape[1] == K && dy.shape[1] == M && (x_list != nullptr || x.shape[0] == N) && (dy_list != nullptr || dy.shape[0] == N));
  if (E == 0 || K == 0 || M == 0) return;
  grouped<Cut::sum>(Grouped<TA, TB, TC>{x.data, dy.data, dw.data, offsets, K, M, N, E, N, x.strides[1], x.strides[0], dy.strides[0],
                                        dy.strides[1], 0, dw.strides[1], dw.strides[0], dw.beta, x_list, dy_list});
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu
