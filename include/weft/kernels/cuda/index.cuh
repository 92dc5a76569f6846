// Rows and elements picked by index, and their gradients without atomics: each place is written by one thread, in an order that the
// indices fix.
#pragma once

#include "weft/kernels/cuda/best.cuh"
#include "weft/kernels/cuda/index.hpp"
#include "weft/kernels/cuda/map.cuh"
#include "weft/kernels/cuda/sort.cuh"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

template <class T, int V>
__global__ void __launch_bounds__(256)
    take_kernel(const T* x, Index sx, Index rows, const std::int64_t* index, Index si, Index N, Index packs, T* y, Index sy, int beta) {
  for (Index i = thread_index(); i < N * packs; i += thread_count()) {
    const Index n = divide(i, packs), c = (i - n * packs) * V;
    const std::int64_t at = index[n * si];
    stat_t<T> value[V];
    if (at >= 0 && at < rows) {
      load<V>(x + at * sx + c, value);
    } else {
      for (int v = 0; v < V; ++v) value[v] = absent_element<T>();
    }
    store<V>(y + n * sy + c, value, beta);
  }
}

// The gradient of take. Sorted places p with one index are a segment, cut from its start on into pieces of take_piece.
inline constexpr Index take_piece = 64;

/// Where the segment of each sorted place begins.
template <class Key>
__global__ void __launch_bounds__(256) segment_starts(const Key* keys, Index N, Key* starts) {
  for (Index p = thread_index(); p < N; p += thread_count()) starts[p] = static_cast<Key>(lower_bound(keys, N, keys[p]));
}

/// The slot of the sum over the piece that begins at place p. A whole piece has one multiple of take_piece among its places, and a
/// shorter one follows a whole one.
__device__ inline Index piece_slot(Index p, bool whole) {
  const Index multiple = (p + take_piece - 1) / take_piece;
  return whole ? 2 * multiple : 2 * (multiple - 1) + 1;
}

template <class T, class TG, int V>
__global__ void __launch_bounds__(256)
    take_backward_pieces(const T* dy, Index sdy, const std::int32_t* keys, const std::int32_t* positions, const std::int32_t* starts,
                         Index N, Index bound, Index C, Index tiles, TG* dx, Index sdx, int beta, stat_t<TG>* sums) {
  using A = stat_t<TG>;
  const Index p = divide(blockIdx.x, tiles), c = ((blockIdx.x - p * tiles) * blockDim.x + threadIdx.x) * V;
  const std::int32_t key = keys[p];
  const Index first = starts[p];
  if ((p - first) % take_piece != 0 || key >= bound || c >= C) return;
  A sum[V];
#pragma unroll
  for (int v = 0; v < V; ++v) sum[v] = A(0);
  constexpr int ahead = 4;  // rows that are asked for before the first is added
  bool more = true;
  for (Index q = p; more && q < p + take_piece; q += ahead) {
    bool mine[ahead];
    Index row[ahead];
#pragma unroll
    for (int r = 0; r < ahead; ++r) {
      mine[r] = q + r < N && keys[q + r] == key;
      row[r] = mine[r] ? positions[q + r] : 0;
    }
    stat_t<T> add[ahead][V];
#pragma unroll
    for (int r = 0; r < ahead; ++r)
      if (mine[r]) load<V>(dy + row[r] * sdy + c, add[r]);
#pragma unroll
    for (int r = 0; r < ahead; ++r)
      if (mine[r])
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] += static_cast<A>(add[r][v]);
    more = mine[ahead - 1];
  }
  const bool whole = p + take_piece <= N && keys[p + take_piece - 1] == key;
  const bool alone = p == first && !(p + take_piece < N && keys[p + take_piece] == key);
  if (alone) store<V>(dx + key * sdx + c, sum, beta);
  else store<V>(sums + piece_slot(p, whole) * C + c, sum, 0);
}

/// A segment of several pieces is the work of the blocks of the first multiple of take_piece among its places.
template <class TG, int V>
__global__ void __launch_bounds__(256) take_backward_segments(const std::int32_t* keys, const std::int32_t* starts, Index N, Index bound,
                                                              Index C, Index tiles, TG* dx, Index sdx, int beta, const stat_t<TG>* sums) {
  using A = stat_t<TG>;
  const Index m = blockIdx.x / tiles, place = m * take_piece, c = ((blockIdx.x - m * tiles) * blockDim.x + threadIdx.x) * V;
  if (place >= N || c >= C) return;
  const std::int32_t key = keys[place];
  const Index first = starts[place];
  if (key >= bound || place - first >= take_piece) return;
  if (!(first + take_piece < N && keys[first + take_piece] == key)) return;
  A sum[V];
#pragma unroll
  for (int v = 0; v < V; ++v) sum[v] = A(0);
  for (Index p = first; p < N && keys[p] == key; p += take_piece) {
    const bool whole = p + take_piece <= N && keys[p + take_piece - 1] == key;
    A add[V];
    load<V>(sums + piece_slot(p, whole) * C + c, add);
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v] += add[v];
  }
  store<V>(dx + key * sdx + c, sum, beta);
}

template <int V, class T, class TG>
void take_backward_launch(const In<T, cuda>& dy, const SortedIndices& sorted, const std::int32_t* starts, const Out<TG, cuda>& dx,
                          stat_t<TG>* sums) {
  const Index N = dy.shape[0], bound = dx.shape[0], C = dx.shape[1], packs = (C + V - 1) / V;
  const unsigned threads = static_cast<unsigned>(std::min<Index>(256, (packs + 31) / 32 * 32));
  const Index tiles = (packs + threads - 1) / threads, segments = N / take_piece + 1;
  const auto blocks = [&](Index count) {
    if (count * tiles > std::numeric_limits<std::int32_t>::max()) throw Error("[take_backward] expected fewer than 2^31 blocks of columns");
    return static_cast<unsigned>(count * tiles);
  };
  take_backward_pieces<T, TG, V><<<blocks(N), threads, 0, stream()>>>(dy.data, dy.strides[0], sorted.keys(), sorted.positions(), starts, N,
                                                                      bound, C, tiles, dx.data, dx.strides[0], dx.beta, sums);
  check_launch("take_backward");
  if (N <= take_piece) return;
  take_backward_segments<TG, V>
      <<<blocks(segments), threads, 0, stream()>>>(sorted.keys(), starts, N, bound, C, tiles, dx.data, dx.strides[0], dx.beta, sums);
  check_launch("take_backward");
}

template <class T>
__global__ void __launch_bounds__(256) gather_kernel(const __grid_constant__ Loops<3> loops, Index count, const T* x, Index sx,
                                                     Index extent, const std::int64_t* index, T* y, int beta) {
  for (Index i = thread_index(); i < count; i += thread_count()) {
    Index offset[3] = {};
    loops.seek(i, loops.rank, offset);
    const std::int64_t at = index[offset[2]];
    const stat_t<T> value = at >= 0 && at < extent ? static_cast<stat_t<T>>(x[offset[1] + at * sx]) : absent_element<T>();
    put(y[offset[0]], value, beta);
  }
}

/// `owners` threads a line; each adds, in order, what belongs to the places that are its own.
template <class T>
__global__ void __launch_bounds__(256)
    gather_backward_kernel(const __grid_constant__ Loops<3> beside, Index lines, Index owners, const T* dy, Index sdy, Index n,
                           const std::int64_t* index, Index si, T* dx, Index sdx, Index extent) {
  for (Index i = thread_index(); i < lines * owners; i += thread_count()) {
    const Index line = divide(i, owners), own = i - line * owners;
    Index offset[3] = {};
    beside.seek(line, beside.rank, offset);
    for (Index j = 0; j < n; ++j) {
      const std::int64_t at = index[offset[2] + j * si];
      if (at < 0 || at >= extent || (owners > 1 && at % owners != own)) continue;
      put(dx[offset[1] + at * sdx], static_cast<stat_t<T>>(dy[offset[0] + j * sdy]), 1);
    }
  }
}

}  // namespace gpu

template <class T>
void take(cuda, In<T, cuda> x, In<std::int64_t, cuda> index, Out<T, cuda> y) {
  if (!y || y.numel() == 0) return;
  const Index N = y.shape[0], C = y.shape[1], sx = x.strides[0], sy = y.strides[0], si = index.strides[0];
  assert(C == 1 || (x.strides[1] == 1 && y.strides[1] == 1));
  constexpr int V = gpu::pack_of<T>;
  if (C % V == 0 && sx % V == 0 && sy % V == 0 && gpu::is_aligned<V>(x.data) && gpu::is_aligned<V>(y.data))
    gpu::take_kernel<T, V>
        <<<gpu::blocks_for(N * (C / V)), 256, 0, gpu::stream()>>>(x.data, sx, x.shape[0], index.data, si, N, C / V, y.data, sy, y.beta);
  else
    gpu::take_kernel<T, 1>
        <<<gpu::blocks_for(N * C), 256, 0, gpu::stream()>>>(x.data, sx, x.shape[0], index.data, si, N, C, y.data, sy, y.beta);
  gpu::check_launch("take");
}

template <class T, class TG>
void take_backward(cuda, In<T, cuda> dy, In<std::int64_t, cuda> index, Out<TG, cuda> dx) {
  if (!dx || dx.numel() == 0) return;
  if (dx.beta == 0) fill<TG>(cuda{}, static_cast<TG>(stat_t<TG>(0)), dx);
  const Index N = dy.shape[0], V = dx.shape[0], C = dx.shape[1];
  if (N == 0) return;
  assert(C == 1 || (dy.strides[1] == 1 && dx.strides[1] == 1));
  const gpu::SortedIndices sorted(index.data, index.strides[0], N, V);
  const gpu::Scratch<std::int32_t> starts(N);
  gpu::segment_starts<<<gpu::blocks_for(N), 256, 0, gpu::stream()>>>(sorted.keys(), N, starts.data());
  gpu::check_launch("take_backward");
  const gpu::Scratch<stat_t<TG>> sums(N > gpu::take_piece ? 2 * (N / gpu::take_piece + 2) * C : 1);
  constexpr int pack = gpu::pack_of<T>;
  if (C % pack == 0 && dy.strides[0] % pack == 0 && dx.strides[0] % pack == 0 && gpu::is_aligned<pack>(dy.data) &&
      gpu::is_aligned<pack>(dx.data))
    gpu::take_backward_launch<pack>(dy, sorted, starts.data(), dx, sums.data());
  else gpu::take_backward_launch<1>(dy, sorted, starts.data(), dx, sums.data());
}

template <class T>
void gather(cuda, In<T, cuda> x, In<std::int64_t, cuda> index, Index axis, Out<T, cuda> y) {
  if (!y || y.numel() == 0) return;
  Strides x_strides = x.strides;
  x_strides[axis] = 0;
  auto loops = gpu::loops_beside(-1, y.shape, y.strides, x_strides, index.strides);
  loops.merge();
  const Index count = loops.count();
  gpu::gather_kernel<T>
      <<<gpu::blocks_for(count), 256, 0, gpu::stream()>>>(loops, count, x.data, x.strides[axis], x.shape[axis], index.data, y.data, y.beta);
  gpu::check_launch("gather");
}

template <class T>
void gather_backward(cuda, In<T, cuda> dy, In<std::int64_t, cuda> index, Index axis, Out<T, cuda> dx) {
  if (!dx || dx.numel() == 0) return;
  if (dx.beta == 0) fill<T>(cuda{}, static_cast<T>(stat_t<T>(0)), dx);
  if (dy.numel() == 0) return;
  const auto beside = gpu::loops_beside(axis, dy.shape, dy.strides, dx.strides, index.strides);
  const Index n = dy.shape[axis], lines = beside.count(), owners = n <= 32 ? 1 : std::min<Index>(dx.shape[axis], 256);
  gpu::gather_backward_kernel<T><<<gpu::blocks_for(lines * owners), 256, 0, gpu::stream()>>>(
      beside, lines, owners, dy.data, dy.strides[axis], n, index.data, index.strides[axis], dx.data, dx.strides[axis], dx.shape[axis]);
  gpu::check_launch("gather_backward");
}

template <class T>
void topk(cuda, In<T, cuda> x, Index k, Out<T, cuda> values, Out<std::int64_t, cuda> indices) {
  const Index axis = x.shape.rank() - 1, V = x.shape[axis];
  assert(k <= V);
  if (k == 0 || x.numel() == 0 || (!values && !indices)) return;
  const Strides none = Strides::filled(axis + 1, 0);
  const Strides& sv = values ? values.strides : none;
  const Strides& si = indices ? indices.strides : none;
  const auto beside = gpu::loops_beside(axis, x.shape, x.strides, sv, si);
  gpu::best_of_lines<T>(beside, V, x.strides[axis], k, x.data, values.data, sv[axis], indices.data, si[axis]);
}

}  // namespace weft::inline WEFT_ABI::kernels
