// Attention backward in float or double for any head width up to 256 and any alignment, without atomics: as on the tensor cores, one
// kernel owns keys (dk, dv), the other owns queries (dq), and each sum has one owner and one order.
#pragma once

#include "weft/kernels/cuda/attention_simt.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu::attention {

/// 16 by 16 threads on a tile of as many queries as keys: rows of q, k, v, dy and one of p or ds in shared memory.
template <class S, int W>
struct SimtBackward {
  static constexpr int tile = 64 / (sizeof(S) == 8 ? 2 : 1) / (W > 128 ? 2 : 1), R = tile / 16, threads = 256;
  static constexpr int stride = W + lanes<S>, p_stride = tile + 16;
  static constexpr int shared = (4 * stride + p_stride + 2) * tile * static_cast<int>(sizeof(S));
};

/// p and ds of a tile: this thread's are those of queries ty + 16 i and keys tx + 16 j; 0 where a query does not see a key.
template <bool limited, class S, int R>
__device__ inline void probabilities(S (&p)[R][R], S (&ds)[R][R], const S* q, const S* k, const S* dy, const S* v, const S* lse,
                                     const S* delta, int stride, const Sizes& n, const Limits& limits, int b, int first_query, int first_key) {
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const S scale = static_cast<S>(n.scale);
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < R; ++j) p[i][j] = ds[i][j] = 0;
  multiply_rows(p, q + ty * stride, 16, k + tx * stride, 16, stride, n.D);
  multiply_rows(ds, dy + ty * stride, 16, v + tx * stride, 16, stride, n.D);
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const int hidden = limited ? limits.first_key(b, first_query + ty + 16 * i) - first_key : 0;
    const int limit = n.keys_seen(first_query + ty + 16 * i) - first_key;
    const S l = lse[ty + 16 * i], d = delta[ty + 16 * i];
#pragma unroll
    for (int j = 0; j < R; ++j) {
      p[i][j] = (!limited || tx + 16 * j >= hidden) && tx + 16 * j < limit ? math::exp(p[i][j] * scale - l) : S(0);
      ds[i][j] = p[i][j] * (ds[i][j] - d);
    }
  }
}

/// This thread's part of p or ds where others read it.
template <class S, int R>
__device__ inline void share(S* tile, const S (&x)[R][R], int stride) {
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < R; ++j) tile[(ty + 16 * i) * stride + tx + 16 * j] = x[i][j];
}

/// c[i][.] += p[q][i] b[q][.] over q < count: the sums of R keys side by side, which start at p.
template <class S, int R, int C>
__device__ inline void multiply_transposed(S (&c)[R][C][lanes<S>], const S* p, int p_stride, const S* b, int b_stride, int count) {
  constexpr int V = lanes<S>;
#pragma unroll 4
  for (int q = 0; q < count; ++q) {
    const auto x = *reinterpret_cast<const Vector<S, R>*>(p + q * p_stride);
#pragma unroll
    for (int s = 0; s < C; ++s) {
      const auto y = *reinterpret_cast<const Vector<S, V>*>(b + q * b_stride + s * 16 * V);
#pragma unroll
      for (int i = 0; i < R; ++i)
#pragma unroll
        for (int f = 0; f < V; ++f) c[i][s][f] += x.x[i] * y.x[f];
    }
  }
}

template <class T, int W, bool limited, class S = stat_t<T>>
__global__ __launch_bounds__(256) void simt_backward_keys(Sizes n, Rows<const T> q, Rows<const T> k, Rows<const T> v, Rows<const T> dy,
                                                          QueryStatistics<S> statistics, Rows<T> dk, Rows<T> dv, bool vectors,
                                                          bool dk_vectors, bool dv_vectors, Limits limits) {
  using F = SimtBackward<S, W>;
  constexpr int V = lanes<S>, tile = F::tile, R = F::R, C = W / 16 / V;
  extern __shared__ __align__(1024) unsigned char shared_memory[];
  S* k_tile = reinterpret_cast<S*>(shared_memory);
  S* v_tile = k_tile + tile * F::stride;
  S* q_tile = v_tile + tile * F::stride;
  S* dy_tile = q_tile + tile * F::stride;
  S* p_tile = dy_tile + tile * F::stride;
  S* lse = p_tile + tile * F::p_stride;
  S* delta = lse + tile;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;

  const int tiles = pieces(n.Tk, tile), head = static_cast<int>(blockIdx.x) / tiles, first = static_cast<int>(blockIdx.x) % tiles * tile;
  const int b = head / n.K, kv_head = head % n.K, end = min(first + tile, n.Tk);
  load_tile<T, S, W, tile, 256>(k_tile, k.at(b, kv_head) + first * k.time, k.time, end - first, n.D, vectors);
  load_tile<T, S, W, tile, 256>(v_tile, v.at(b, kv_head) + first * v.time, v.time, end - first, n.D, vectors);
  S dk_sum[R][C][V] = {}, dv_sum[R][C][V] = {};  // of keys ty R + i

  const int first_query = n.causal ? max(0, first - n.shift()) / tile * tile : 0, queries_end = limited ? limits.query_end(b, end - 1) : n.Tq;
  for (int g = 0; g < n.group(); ++g) {
    const int h = kv_head * n.group() + g;
#pragma unroll 1
    for (int from = first_query; from < queries_end; from += tile) {
      const int queries = min(tile, n.Tq - from);
      __syncthreads();
      load_tile<T, S, W, tile, 256>(q_tile, q.at(b, h) + from * q.time, q.time, queries, n.D, vectors);
      load_tile<T, S, W, tile, 256>(dy_tile, dy.at(b, h) + from * dy.time, dy.time, queries, n.D, vectors);
      if (threadIdx.x < tile) {
        const Index at = (Index{b} * n.H + h) * statistics.padded + from + threadIdx.x;
        lse[threadIdx.x] = statistics.lse[at];
        delta[threadIdx.x] = statistics.delta[at];
      }
      __syncthreads();
      S p[R][R], ds[R][R];
      probabilities<limited>(p, ds, q_tile, k_tile, dy_tile, v_tile, lse, delta, F::stride, n, limits, b, from, first);
      share(p_tile, p, F::p_stride);
      __syncthreads();
      multiply_transposed(dv_sum, p_tile + ty * R, F::p_stride, dy_tile + tx * V, F::stride, queries);
      __syncthreads();
      share(p_tile, ds, F::p_stride);
      __syncthreads();
      multiply_transposed(dk_sum, p_tile + ty * R, F::p_stride, q_tile + tx * V, F::stride, queries);
    }
  }

  const S scale = static_cast<S>(n.scale);
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const int row = first + ty * R + i;
    if (row >= end) continue;
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const int column = (c * 16 + tx) * V;
#pragma unroll
      for (int e = 0; e < V; ++e) dk_sum[i][c][e] *= scale;
      if (dk) store_vector(dk.at(b, kv_head) + row * dk.time, dk_sum[i][c], column, n.D, dk.beta, dk_vectors);
      if (dv) store_vector(dv.at(b, kv_head) + row * dv.time, dv_sum[i][c], column, n.D, dv.beta, dv_vectors);
    }
  }
}

template <class T, int W, bool limited, class S = stat_t<T>>
__global__ __launch_bounds__(256) void simt_backward_queries(Sizes n, Rows<const T> q, Rows<const T> k, Rows<const T> v, Rows<const T> dy,
                                                             QueryStatistics<S> statistics, Rows<T> dq, bool vectors, bool dq_vectors,
                                                             Limits limits) {
  using F = SimtBackward<S, W>;
  constexpr int V = lanes<S>, tile = F::tile, R = F::R, C = W / 16 / V;
  extern __shared__ __align__(1024) unsigned char shared_memory[];
  S* q_tile = reinterpret_cast<S*>(shared_memory);
  S* dy_tile = q_tile + tile * F::stride;
  S* k_tile = dy_tile + tile * F::stride;
  S* v_tile = k_tile + tile * F::stride;
  S* ds_tile = v_tile + tile * F::stride;
  S* lse = ds_tile + tile * F::p_stride;
  S* delta = lse + tile;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;

  const int tiles = pieces(n.Tq, tile);
  const int head = static_cast<int>(blockIdx.x) / tiles, first = (tiles - 1 - static_cast<int>(blockIdx.x) % tiles) * tile;
  const int b = head / n.H, h = head % n.H, kv_head = h / n.group(), end = min(first + tile, n.Tq);
  load_tile<T, S, W, tile, 256>(q_tile, q.at(b, h) + first * q.time, q.time, end - first, n.D, vectors);
  load_tile<T, S, W, tile, 256>(dy_tile, dy.at(b, h) + first * dy.time, dy.time, end - first, n.D, vectors);
  if (threadIdx.x < tile) {
    const Index at = (Index{b} * n.H + h) * statistics.padded + first + threadIdx.x;
    lse[threadIdx.x] = statistics.lse[at];
    delta[threadIdx.x] = statistics.delta[at];
  }
  S sum[R][C][V] = {};  // of queries ty + 16 i

  const int keys_from = limited ? limits.first_key(b, first) / tile * tile : 0, keys_end = n.keys_seen(end - 1);
#pragma unroll 1
  for (int from = keys_from; from < keys_end; from += tile) {
    const int keys = min(tile, n.Tk - from);
    __syncthreads();
    load_tile<T, S, W, tile, 256>(k_tile, k.at(b, kv_head) + from * k.time, k.time, keys, n.D, vectors);
    load_tile<T, S, W, tile, 256>(v_tile, v.at(b, kv_head) + from * v.time, v.time, keys, n.D, vectors);
    __syncthreads();
    S p[R][R], ds[R][R];
    probabilities<limited>(p, ds, q_tile, k_tile, dy_tile, v_tile, lse, delta, F::stride, n, limits, b, first, from);
    share(ds_tile, ds, F::p_stride);
    __syncthreads();
    multiply_by_tile(sum, ds_tile + ty * F::p_stride, 16, F::p_stride, k_tile + tx * V, F::stride, pieces(keys, V) * V);
  }

  const S scale = static_cast<S>(n.scale);
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const int row = first + ty + 16 * i;
    if (row >= end) continue;
#pragma unroll
    for (int c = 0; c < C; ++c) {
#pragma unroll
      for (int e = 0; e < V; ++e) sum[i][c][e] *= scale;
      store_vector(dq.at(b, h) + row * dq.time, sum[i][c], (c * 16 + tx) * V, n.D, dq.beta, dq_vectors);
    }
  }
}

template <class T, class S = stat_t<T>>
void launch_simt_backward(const Sizes& n, const Limits& limits, const Rows<const T>& q, const Rows<const T>& k, const Rows<const T>& v,
                          const Rows<const T>& dy, const QueryStatistics<S>& statistics, const Rows<T>& dq, const Rows<T>& dk, const Rows<T>& dv) {
  constexpr int V = lanes<S>;
  const auto in_vectors = [&](const auto& x) { return n.D % V == 0 && x.aligned(V); };
  const bool vectors = in_vectors(q) && in_vectors(k) && in_vectors(v) && in_vectors(dy);
  for_width(n.D, [&](auto width) {
    constexpr int W = decltype(width)::value;
    using F = SimtBackward<S, W>;
    if ((dk || dv) && n.Tk > 0)
      launch("attention_backward", limits ? simt_backward_keys<T, W, true> : simt_backward_keys<T, W, false>,
             grid(Index{n.B} * n.K, pieces(n.Tk, F::tile)), F::threads, F::shared, n, q, k, v, dy, statistics, dk, dv, vectors, in_vectors(dk),
             in_vectors(dv), limits);
    if (dq && n.Tq > 0 && n.H > 0)
      launch("attention_backward", limits ? simt_backward_queries<T, W, true> : simt_backward_queries<T, W, false>,
             grid(Index{n.B} * n.H, pieces(n.Tq, F::tile)), F::threads, F::shared, n, q, k, v, dy, statistics, dq, vectors, in_vectors(dq),
             limits);
  });
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu::attention
