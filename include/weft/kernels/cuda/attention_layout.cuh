// What every attention kernel takes: the extents, where the rows of a tensor lie, and which piece of work a block does. Query i sees
// keys j < keys_seen(i). Without limits (attention_limits.cuh) key 0 is seen by all, so that sums which start at key 0 never meet an empty
// maximum; with them a tile's first keys may be hidden from some of its queries, whose maximum is then still -infinity.
#pragma once

#include <cmath>
#include <string>

#include "weft/kernels/arguments.hpp"
#include "weft/kernels/cuda/elements.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu::attention {

/// The extents of one call.
struct Sizes {
  int B, Tq, Tk, H, K, D;
  bool causal;
  double scale;

  template <class T>
  Sizes(const In<T, cuda>& q, const In<T, cuda>& k, const AttentionOptions& options)
      : B(static_cast<int>(q.shape[0])),
        Tq(static_cast<int>(q.shape[1])),
        Tk(static_cast<int>(k.shape[1])),
        H(static_cast<int>(q.shape[2])),
        K(static_cast<int>(k.shape[2])),
        D(static_cast<int>(q.shape[3])),
        causal(options.causal),
        scale(options.scale != 0 ? options.scale
              : D > 0            ? 1 / std::sqrt(static_cast<double>(D))
                                 : 1) {}

  __host__ __device__ int group() const { return H / K; }    ///< query heads per key/value head
  __host__ __device__ int shift() const { return Tk - Tq; }  ///< causal: query i sees keys up to i + shift
  __host__ __device__ int keys_seen(int query) const {
    const int seen = query + 1 + shift();
    return causal && seen < Tk ? seen : Tk;
  }
};

/// The rows of a (B, T, heads, D) tensor whose last stride is 1, or the elements of a (B, heads, T) one.
template <class T>
struct Rows {
  T* data;
  Index batch, time, head;
  int beta;

  __device__ T* at(int b, int h) const { return data + b * batch + h * head; }
  __host__ __device__ explicit operator bool() const { return data != nullptr; }
  /// True iff rows can be read `n` elements at a time.
  bool aligned(int n) const {
    return reinterpret_cast<std::uintptr_t>(data) % (n * sizeof(T)) == 0 && batch % n == 0 && time % n == 0 && head % n == 0;
  }
};

/// Strides of axes of extent 1 are never used, so that they may be anything.
inline Index stride_of(const Shape& shape, const Strides& strides, int axis) { return shape[axis] > 1 ? strides[axis] : 0; }

template <class T>
Rows<const T> rows(const In<T, cuda>& x) {
  return {x.data, stride_of(x.shape, x.strides, 0), stride_of(x.shape, x.strides, 1), stride_of(x.shape, x.strides, 2), 0};
}
template <class T>
Rows<T> rows(const Out<T, cuda>& x) {
  if (!x) return {nullptr, 0, 0, 0, 0};
  return {x.data, stride_of(x.shape, x.strides, 0), stride_of(x.shape, x.strides, 1), stride_of(x.shape, x.strides, 2), x.beta};
}
template <class S>
Rows<S> statistics(const Out<S, cuda>& x) {
  if (!x) return {nullptr, 0, 0, 0, 0};
  return {x.data, stride_of(x.shape, x.strides, 0), stride_of(x.shape, x.strides, 2), stride_of(x.shape, x.strides, 1), x.beta};
}
template <class S>
Rows<const S> statistics(const In<S, cuda>& x) {
  return {x.data, stride_of(x.shape, x.strides, 0), stride_of(x.shape, x.strides, 2), stride_of(x.shape, x.strides, 1), 0};
}

__host__ __device__ inline int pieces(int n, int size) { return (n + size - 1) / size; }

/// A block's head, counted over the batch, and its tile; rank 0 of a head is the tile to start first.
struct Place {
  int head, rank;
};
/// Heads are taken `together` at a time, so that what they share stays in the L2 cache; among these, all tiles of one rank go before
/// those of the next, so that what takes longest starts first.
__device__ inline Place place(int heads, int tiles, int together) {
  const int block = static_cast<int>(blockIdx.x), first = block / (together * tiles) * together, i = block % (together * tiles);
  const int here = min(together, heads - first);
  return {first + i % here, i / here};
}
/// How many heads together stream at most 24 MiB, at least `least`.
inline int heads_together(int heads, int least, Index bytes_a_head) {
  const Index fit = (Index{24} << 20) / std::max<Index>(bytes_a_head, 1);
  return static_cast<int>(std::clamp<Index>(fit / least * least, least, heads));
}

/// n, rounded up to a multiple of every tile.
inline constexpr int padded_to = 384;
inline int padded(int n) { return pieces(n, padded_to) * padded_to; }
inline int padded_queries(const Sizes& n) { return padded(n.Tq); }

/// Blocks of one launch; the x axis of a grid takes 2^31 - 1.
inline unsigned grid(Index heads, Index tiles) {
  if (heads * tiles > 0x7fffffff)
    throw Error("[attention] CUDA: expected at most 2^31 - 1 pieces of work, got " + std::to_string(heads * tiles));
  return static_cast<unsigned>(heads * tiles);
}

/// Launches with dynamic shared memory beyond the default of 48 KiB.
template <class Kernel, class... Args>
void launch(const char* what, Kernel kernel, unsigned blocks, int threads, std::size_t shared, const Args&... args) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)), what);
  kernel<<<blocks, threads, shared, stream()>>>(args...);
  check_launch(what);
}

/// What backward knows of each query: factor * lse and delta = the sum over D of dy y, both (B, H, padded) with padded a multiple of
/// every tile. Beyond Tq lse is infinite and delta 0, so that a query that is not there has p = 0.
template <class S>
struct QueryStatistics {
  const S *lse, *delta;
  int padded;
};

/// A block has 128 queries of a head, neighbours those of the next head. 8 lanes a query, each of which takes 8 elements at a time, and four
/// queries, so that many reads are under way.
inline constexpr int statistics_queries = 128;
static_assert(padded_to % statistics_queries == 0);
template <class T, class S = stat_t<T>>
__global__ __launch_bounds__(256) void query_statistics(Sizes n, Rows<const T> dy, Rows<const T> y, Rows<const S> lse, S factor, int padded,
                                                        bool vectors, S* lse_out, S* delta_out) {
  constexpr int each = statistics_queries / 32;
  const unsigned tile_of_batch = blockIdx.x / static_cast<unsigned>(n.H), tiles = static_cast<unsigned>(padded / statistics_queries);
  const int h = static_cast<int>(blockIdx.x % static_cast<unsigned>(n.H)), b = static_cast<int>(tile_of_batch / tiles), lane = threadIdx.x % 8;
  const int first = static_cast<int>(tile_of_batch % tiles) * statistics_queries + threadIdx.x / 8;
  const T *const a = dy.at(b, h), *const c = y.at(b, h);
  const auto at = [&](int k) { return min(first + 32 * k, n.Tq - 1); };  // of a query that is not there, the last one is read
  S sum[each] = {};
  for (int d = lane * 8; d < n.D; d += 64) {
    if (vectors) {
      struct alignas(16) Vector {
        T x[16 / sizeof(T)];
      };
      constexpr int V = 16 / sizeof(T);
#pragma unroll
      for (int w = 0; w < 8; w += V) {
        Vector s[each], t[each];
#pragma unroll
        for (int k = 0; k < each; ++k) {
          s[k] = *reinterpret_cast<const Vector*>(a + at(k) * dy.time + d + w);
          t[k] = *reinterpret_cast<const Vector*>(c + at(k) * y.time + d + w);
        }
#pragma unroll
        for (int k = 0; k < each; ++k)
#pragma unroll
          for (int e = 0; e < V; ++e) sum[k] += static_cast<S>(s[k].x[e]) * static_cast<S>(t[k].x[e]);
      }
    } else {
#pragma unroll
      for (int k = 0; k < each; ++k)
        for (int e = d; e < min(d + 8, n.D); ++e) sum[k] += static_cast<S>(a[at(k) * dy.time + e]) * static_cast<S>(c[at(k) * y.time + e]);
    }
  }
  const Index head = (Index{b} * n.H + h) * padded;
#pragma unroll
  for (int k = 0; k < each; ++k) {
#pragma unroll
    for (int step = 4; step > 0; step >>= 1) sum[k] += __shfl_xor_sync(0xffffffffu, sum[k], step);
    const int i = first + 32 * k;
    if (lane != 0) continue;
    delta_out[head + i] = i < n.Tq ? sum[k] : S(0);
    lse_out[head + i] = i < n.Tq ? factor * lse.at(b, h)[i * lse.time] : static_cast<S>(INFINITY);
  }
}

template <class T, class S = stat_t<T>>
void launch_query_statistics(const Sizes& n, const Rows<const T>& dy, const Rows<const T>& y, const Rows<const S>& lse, double factor,
                             S* lse_out, S* delta_out) {
  const int padded = padded_queries(n);
  const Index blocks = Index{n.B} * n.H * (padded / statistics_queries);
  if (blocks == 0) return;
  const bool vectors = n.D % 8 == 0 && dy.aligned(16 / sizeof(T)) && y.aligned(16 / sizeof(T));
  query_statistics<T><<<grid(blocks, 1), 256, 0, stream()>>>(n, dy, y, lse, static_cast<S>(factor), padded, vectors, lse_out, delta_out);
  check_launch("attention_backward");
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu::attention
