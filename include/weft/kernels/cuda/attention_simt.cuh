// Attention in float or double for any head width up to 256 and any alignment: forward. A block of 16 columns of threads owns a tile of
// queries of one head; rows of W = D rounded up, W + one vector apart, lie in shared memory, so that 16 threads which read one vector each
// of 16 rows touch all banks. What lies beyond an extent is zero there and is never stored.
#pragma once

#include "weft/kernels/cuda/attention_limits.cuh"
#include "weft/kernels/math.hpp"

namespace weft::inline WEFT_ABI::kernels::gpu::attention {

/// 16 bytes of S, or as many elements of T.
template <class S>
inline constexpr int lanes = 16 / sizeof(S);
template <class T, int V>
struct alignas(sizeof(T) * V) Vector {
  T x[V];
};

/// `count` rows of D elements into a tile of `tile_rows` rows; the rest becomes zeros.
template <class T, class S, int W, int tile_rows, int threads>
__device__ inline void load_tile(S* to, const T* from, Index stride, int count, int D, bool vectors) {
  constexpr int V = lanes<S>, row_vectors = W / V;
  for (int u = threadIdx.x; u < tile_rows * row_vectors; u += threads) {
    const int r = u / row_vectors, c = u % row_vectors * V;
    Vector<S, V> x = {};
    if (r < count && c < D) {
      const T* p = from + r * stride + c;
      if (vectors) {
        const auto loaded = *reinterpret_cast<const Vector<T, V>*>(p);
#pragma unroll
        for (int e = 0; e < V; ++e) x.x[e] = static_cast<S>(loaded.x[e]);
      } else {
#pragma unroll
        for (int e = 0; e < V; ++e)
          if (c + e < D) x.x[e] = static_cast<S>(p[e]);
      }
    }
    *reinterpret_cast<Vector<S, V>*>(to + r * (W + V) + c) = x;
  }
}
/// Stores or adds `V` elements of a row from column c on, those before D.
template <class T, class S, int V>
__device__ inline void store_vector(T* row, const S (&x)[V], int c, int D, int beta, bool vectors) {
  if (vectors && beta == 0 && c < D) {
    Vector<T, V> y;
#pragma unroll
    for (int e = 0; e < V; ++e) y.x[e] = static_cast<T>(x[e]);
    *reinterpret_cast<Vector<T, V>*>(row + c) = y;
  } else {
#pragma unroll
    for (int e = 0; e < V; ++e)
      if (c + e < D) put(row[c + e], x[e], beta);
  }
}

/// c[i][j] += row a + i a_step times row b + j b_step over D columns, both in rows of `stride`.
template <class S, int R, int N>
__device__ inline void multiply_rows(S (&c)[R][N], const S* a, int a_step, const S* b, int b_step, int stride, int D) {
  constexpr int V = lanes<S>;
#pragma unroll 2
  for (int d = 0; d < D; d += V) {
    Vector<S, V> x[R], y[N];
#pragma unroll
    for (int j = 0; j < N; ++j) y[j] = *reinterpret_cast<const Vector<S, V>*>(b + j * b_step * stride + d);
#pragma unroll
    for (int i = 0; i < R; ++i) x[i] = *reinterpret_cast<const Vector<S, V>*>(a + i * a_step * stride + d);
#pragma unroll
    for (int e = 0; e < V; ++e)
#pragma unroll
      for (int i = 0; i < R; ++i)
#pragma unroll
        for (int j = 0; j < N; ++j) c[i][j] += x[i].x[e] * y[j].x[e];
  }
}
/// c[i][.] += p[row i p_step][k] b[k][.] over k < count, a multiple of a vector; this thread's columns start at b.
template <class S, int R, int C>
__device__ inline void multiply_by_tile(S (&c)[R][C][lanes<S>], const S* p, int p_step, int p_stride, const S* b, int b_stride, int count) {
  constexpr int V = lanes<S>;
#pragma unroll 1
  for (int k = 0; k < count; k += V) {
    Vector<S, V> x[R];
#pragma unroll
    for (int i = 0; i < R; ++i) x[i] = *reinterpret_cast<const Vector<S, V>*>(p + i * p_step * p_stride + k);
#pragma unroll
    for (int e = 0; e < V; ++e)
#pragma unroll
      for (int s = 0; s < C; ++s) {
        const auto y = *reinterpret_cast<const Vector<S, V>*>(b + (k + e) * b_stride + s * 16 * V);
#pragma unroll
        for (int i = 0; i < R; ++i)
#pragma unroll
          for (int f = 0; f < V; ++f) c[i][s][f] += x[i].x[e] * y.x[f];
      }
  }
}

/// A tile of queries and keys, rows of W columns, and how many query rows a thread takes in forward.
template <class S, int W>
struct SimtForward {
  static constexpr bool wide = sizeof(S) == 8;
  static constexpr int tile = wide ? 32 : 64, R = (wide ? 4 : 8) / (W > 128 ? 2 : 1), threads = tile / R * 16;
  static constexpr int stride = W + lanes<S>, p_stride = tile + 16;
  static constexpr int shared = (2 * stride + p_stride) * tile * static_cast<int>(sizeof(S));
};

template <class T, int W, bool limited, class S = stat_t<T>>
__global__ __launch_bounds__(SimtForward<S, W>::threads) void simt_forward(Sizes n, Rows<const T> q, Rows<const T> k, Rows<const T> v,
                                                                           Rows<T> y, Rows<S> lse, bool vectors, bool y_vectors,
                                                                           Limits limits) {
  using F = SimtForward<S, W>;
  constexpr int V = lanes<S>, tile = F::tile, R = F::R, down = tile / R, N = tile / 16, C = W / 16 / V;
  extern __shared__ __align__(1024) unsigned char shared_memory[];
  S* q_tile = reinterpret_cast<S*>(shared_memory);
  S* kv_tile = q_tile + tile * F::stride;
  S* p_tile = kv_tile + tile * F::stride;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;  // rows ty + down i, keys tx + 16 j

  const int tiles = pieces(n.Tq, tile);
  const int head = static_cast<int>(blockIdx.x) / tiles, first = (tiles - 1 - static_cast<int>(blockIdx.x) % tiles) * tile;
  const int b = head / n.H, h = head % n.H, kv_head = h / n.group(), end = min(first + tile, n.Tq);
  const int keys_from = limited ? limits.first_key(b, first) / tile * tile : 0, keys_end = n.keys_seen(end - 1);
  const S scale = static_cast<S>(n.scale);

  load_tile<T, S, W, tile, F::threads>(q_tile, q.at(b, h) + first * q.time, q.time, end - first, n.D, vectors);
  S o[R][C][V] = {}, top[R], sum[R] = {};
#pragma unroll
  for (int i = 0; i < R; ++i) top[i] = -static_cast<S>(INFINITY);

#pragma unroll 1
  for (int from = keys_from; from < keys_end; from += tile) {
    const int keys = min(tile, n.Tk - from);
    __syncthreads();
    load_tile<T, S, W, tile, F::threads>(kv_tile, k.at(b, kv_head) + from * k.time, k.time, keys, n.D, vectors);
    __syncthreads();
    S s[R][N] = {};
    multiply_rows(s, q_tile + ty * F::stride, down, kv_tile + tx * F::stride, 16, F::stride, n.D);
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const int hidden = limited ? limits.first_key(b, first + ty + down * i) - from : 0, limit = n.keys_seen(first + ty + down * i) - from;
      S most = top[i];
#pragma unroll
      for (int j = 0; j < N; ++j) {
        s[i][j] = (!limited || tx + 16 * j >= hidden) && tx + 16 * j < limit ? s[i][j] * scale : -static_cast<S>(INFINITY);
        most = max(most, s[i][j]);
      }
#pragma unroll
      for (int step = 8; step > 0; step >>= 1) most = max(most, __shfl_xor_sync(0xffffffffu, most, step));
      const S base = limited && most == -static_cast<S>(INFINITY) ? S(0) : most;  // a row has seen no key so far
      const S factor = math::exp(top[i] - base);
      top[i] = most;
      S total = 0;
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const S p = math::exp(s[i][j] - base);
        total += p;
        p_tile[(ty + down * i) * F::p_stride + tx + 16 * j] = p;
      }
      sum[i] = sum[i] * factor + total;
#pragma unroll
      for (int c = 0; c < C; ++c)
#pragma unroll
        for (int e = 0; e < V; ++e) o[i][c][e] *= factor;
    }
    __syncthreads();
    load_tile<T, S, W, tile, F::threads>(kv_tile, v.at(b, kv_head) + from * v.time, v.time, keys, n.D, vectors);
    __syncthreads();
    multiply_by_tile(o, p_tile + ty * F::p_stride, down, F::p_stride, kv_tile + tx * V, F::stride, pieces(keys, V) * V);
  }

#pragma unroll
  for (int i = 0; i < R; ++i) {
    S total = sum[i];
#pragma unroll
    for (int step = 8; step > 0; step >>= 1) total += __shfl_xor_sync(0xffffffffu, total, step);
    const int row = first + ty + down * i;
    if (row >= end) continue;
    if (lse && tx == 0) put(lse.at(b, h)[row * lse.time], top[i] + math::log(total), lse.beta);
    if (!y) continue;
    const S factor = total == 0 ? S(0) : 1 / total;
    T* to = y.at(b, h) + row * y.time;
#pragma unroll
    for (int c = 0; c < C; ++c) {
#pragma unroll
      for (int e = 0; e < V; ++e) o[i][c][e] *= factor;
      store_vector(to, o[i][c], (c * 16 + tx) * V, n.D, y.beta, y_vectors);
    }
  }
}

/// Calls f with a constant W of at least D.
template <class F>
void for_width(int D, F&& f) {
  if (D <= 64) return f(std::integral_constant<int, 64>());
  if (D <= 128) return f(std::integral_constant<int, 128>());
  if (D <= 256) return f(std::integral_constant<int, 256>());
  throw Error("[attention] CUDA: expected heads of at most 256 elements, got " + std::to_string(D));
}

template <class T, class S = stat_t<T>>
void launch_simt_forward(const Sizes& n, const Limits& limits, const Rows<const T>& q, const Rows<const T>& k, const Rows<const T>& v,
                         const Rows<T>& y, const Rows<S>& lse) {
  constexpr int V = lanes<S>;
  const bool vectors = n.D % V == 0 && q.aligned(V) && k.aligned(V) && v.aligned(V), y_vectors = n.D % V == 0 && y.aligned(V);
  for_width(n.D, [&](auto width) {
    constexpr int W = decltype(width)::value;
    using F = SimtForward<S, W>;
    launch("attention_forward", limits ? simt_forward<T, W, true> : simt_forward<T, W, false>, grid(Index{n.B} * n.H, pieces(n.Tq, F::tile)),
           F::threads, F::shared, n, q, k, v, y, lse, vectors, y_vectors, limits);
  });
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu::attention
