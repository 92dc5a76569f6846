// The kernels of reductions: threads share a result, or, where neighbours of the kept axis lie together, own columns.
#pragma once

#include "weft/kernels/cuda/lines.cuh"
#include "weft/kernels/cuda/map.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

inline constexpr Index fold_piece = 16384;  // elements of a result that threads share
inline constexpr int fold_threads = 256;
inline constexpr int fold_blocks = 2;  // a multiprocessor, where threads own columns

/// Where results go: to y, or, of a piece among several, to `partial`, in which the pieces lie `outputs` apart.
template <class TY>
struct FoldTo {
  TY* y;
  int beta;
  stat_t<TY>* partial;
  Index outputs, pieces, piece, count;

  __device__ void operator()(Index at, Index p, stat_t<TY> value) const {
    if (partial != nullptr) partial[at + p * outputs] = value;
    else put(y[at], value, beta);
  }
};

template <class Fold, class A, class F, std::size_t... I, class... TX>
__device__ inline A fold_element(std::index_sequence<I...>, F f, A acc, const Index (&offset)[sizeof...(TX)], const TX*... x) {
  return Fold::template combine<A>(acc, static_cast<A>(f(static_cast<stat_t<TX>>(x[offset[I]])...)));
}

/// Piece p of result j is the work of `group` threads, a warp or a block. Operand 0 of `kept` is where results go.
template <class Fold, class F, class TY, class... TX>
__global__ void __launch_bounds__(fold_threads)
    fold_along(F f, const __grid_constant__ Loops<1 + sizeof...(TX)> kept, const __grid_constant__ Loops<sizeof...(TX)> reduced, int group,
               FoldTo<TY> to, const TX*... x) {
  using A = stat_t<TY>;
  constexpr int inputs = static_cast<int>(sizeof...(TX));
  constexpr std::index_sequence_for<TX...> each{};
  __shared__ A shared[fold_threads / 32];
  const int units = fold_threads / group, lane = static_cast<int>(threadIdx.x) % group;
  const Index all = to.outputs * to.pieces;
  for (Index u = static_cast<Index>(blockIdx.x) * units + threadIdx.x / group; u < all; u += static_cast<Index>(gridDim.x) * units) {
    const Index p = to.pieces == 1 ? 0 : divide(u, to.outputs), j = u - p * to.outputs;
    const Index begin = p * to.piece, end = std::min(to.count, begin + to.piece);
    Index start[1 + inputs] = {}, offset[inputs];
    kept.seek(j, kept.rank, start);
    A acc = Fold::template identity<A>();
    if (reduced.rank == 1) {
#pragma unroll 4
      for (Index m = begin + lane; m < end; m += group) {
#pragma unroll
        for (int k = 0; k < inputs; ++k) offset[k] = start[k + 1] + m * reduced.stride[k][0];
        acc = fold_element<Fold>(each, f, acc, offset, x...);
      }
    } else {
#pragma unroll 1
      for (Index m = begin + lane; m < end; m += group) {
#pragma unroll
        for (int k = 0; k < inputs; ++k) offset[k] = start[k + 1];
        reduced.seek(m, reduced.rank, offset);
        acc = fold_element<Fold>(each, f, acc, offset, x...);
      }
    }
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) acc = Fold::template combine<A>(acc, shuffle_xor(acc, step));
    if (group > 32) {
      if (lane % 32 == 0) shared[lane / 32] = acc;
      __syncthreads();
      if (lane == 0)
        for (int w = 1; w < fold_threads / 32; ++w) acc = Fold::template combine<A>(acc, shared[w]);
      __syncthreads();
    }
    if (lane == 0) to(start[0], p, acc);
  }
}

/// V neighbours of a column, of which `left` are there.
template <int V, class T>
__device__ inline Values<T, V> load_columns(const T* from, Index stride, Index left) {
  Values<T, V> values;
#pragma unroll
  for (int i = 0; i < V; ++i) values.at[i] = static_cast<stat_t<T>>(from[i < left ? i * stride : 0]);
  return values;
}
/// U packs of neighbours, `step` apart, of which `left` are there; all are under way before any is used.
template <class T, int V, int U>
struct Batch {
  Words<T, V> at[U];

  __device__ Batch(const T* from, Index step, int left) {
#pragma unroll
    for (int j = 0; j < U; ++j, from += step)
      if (j < left) at[j] = Words<T, V>::read(from);
  }
  __device__ Values<T, V> operator[](int j) const {
    Values<T, V> values;
    at[j].widen(values.at);
    return values;
  }
};

/// One more element into each of V accumulators.
template <int V, class Fold, class A, class F, class... TX>
__device__ inline void fold_values(F f, A (&acc)[V], const Values<TX, V>&... x) {
#pragma unroll
  for (int i = 0; i < V; ++i) acc[i] = Fold::template combine<A>(acc[i], static_cast<A>(f(x.at[i]...)));
}
template <int V, class Fold, class A, class F, std::size_t... I, class... TX>
__device__ inline void fold_columns(std::index_sequence<I...>, F f, A (&acc)[V], const Index (&column)[sizeof...(TX)], Index left,
                                    const Index (&offset)[sizeof...(TX)], const TX*... x) {
  fold_values<V, Fold, A, F, TX...>(f, acc, load_columns<V>(x + offset[I], column[I], left)...);
}
/// As many as are there of U more elements.
template <int V, int U, class Fold, class A, class F, class... TX>
__device__ inline void fold_batch(F f, A (&acc)[V], int left, const Batch<TX, V, U>&... x) {
#pragma unroll
  for (int j = 0; j < U; ++j)
    if (j < left) fold_values<V, Fold, A, F, TX...>(f, acc, x[j]...);
}
template <int V, int U, class Fold, class A, class F, std::size_t... I, class... TX>
__device__ inline void fold_packs(std::index_sequence<I...>, F f, A (&acc)[V], int left, const Index (&offset)[sizeof...(TX)],
                                  const Index (&step)[sizeof...(TX)], const TX*... x) {
  fold_batch<V, U, Fold, A, F, TX...>(f, acc, left, Batch<TX, V, U>(x + offset[I], step[I], left)...);
}

/// Columns that go in packs, of inputs with one reduced loop: a thread has V columns, the 8 warps of a block share the rows of a
/// piece. Blocks: 32 V columns each, pieces, positions in the outer loops.
template <int V, class Fold, class F, class TY, class... TX>
__global__ void __launch_bounds__(256, fold_blocks)
    fold_dense(F f, const __grid_constant__ Loops<1 + sizeof...(TX)> kept, const __grid_constant__ Loops<sizeof...(TX)> reduced,
               Index outers, FoldTo<TY> to, const TX*... x) {
  using A = stat_t<TY>;
  constexpr int inputs = static_cast<int>(sizeof...(TX)), under_way = inputs == 1 ? 8 : 4;
  constexpr std::index_sequence_for<TX...> each{};
  __shared__ A shared[8][V][32];
  const int lane = static_cast<int>(threadIdx.x) % 32, row = static_cast<int>(threadIdx.x) / 32, inner = kept.rank - 1;
  const Index first = static_cast<Index>(blockIdx.x) * (32 * V), c = first + lane * V, begin = blockIdx.y * to.piece;
  const int rows = static_cast<int>((to.piece < to.count - begin ? to.piece : to.count - begin) - row + 7) / 8;
  for (Index outer = blockIdx.z; outer < outers; outer += gridDim.z) {
    Index start[1 + inputs] = {}, offset[inputs], step[inputs];
    kept.seek(outer, inner, start);
    A acc[V];
#pragma unroll
    for (int i = 0; i < V; ++i) acc[i] = Fold::template identity<A>();
    if (c < kept.extent[inner]) {
#pragma unroll
      for (int k = 0; k < inputs; ++k) {
        step[k] = 8 * reduced.stride[k][0];
        offset[k] = start[k + 1] + c + (begin + row) * reduced.stride[k][0];
      }
#pragma unroll 1
      for (int left = rows; left > 0; left -= under_way) {
        fold_packs<V, under_way, Fold>(each, f, acc, left, offset, step, x...);
#pragma unroll
        for (int k = 0; k < inputs; ++k) offset[k] += under_way * step[k];
      }
    }
#pragma unroll
    for (int i = 0; i < V; ++i) shared[row][i][lane] = acc[i];
    __syncthreads();
    for (int e = static_cast<int>(threadIdx.x); e < 32 * V; e += 256) {
      A all = shared[0][e % V][e / V];
#pragma unroll
      for (int w = 1; w < 8; ++w) all = Fold::template combine<A>(all, shared[w][e % V][e / V]);
      if (first + e < kept.extent[inner]) to(start[0] + (first + e) * kept.stride[0][inner], blockIdx.y, all);
    }
    __syncthreads();
  }
}

/// Threads own V columns of the innermost kept loop, `rows` rows of 32 of them share the reduced elements of a piece.
template <int V, int rows, class Fold, class F, class TY, class... TX>
__global__ void __launch_bounds__(32 * rows, rows > 8 ? 1 : fold_blocks)
    fold_across(F f, const __grid_constant__ Loops<1 + sizeof...(TX)> kept, const __grid_constant__ Loops<sizeof...(TX)> reduced,
                FoldTo<TY> to, const TX*... x) {
  using A = stat_t<TY>;
  constexpr int inputs = static_cast<int>(sizeof...(TX));
  constexpr std::index_sequence_for<TX...> each{};
  __shared__ A shared[rows][32 * V];
  const int lane = static_cast<int>(threadIdx.x) % 32, row = static_cast<int>(threadIdx.x) / 32, inner = kept.rank - 1;
  const Index width = kept.extent[inner], blocks = (width + 32 * V - 1) / (32 * V), all = to.outputs / width * blocks * to.pieces;
  Index column[inputs];
#pragma unroll
  for (int k = 0; k < inputs; ++k) column[k] = kept.stride[k + 1][inner];
  for (Index u = blockIdx.x; u < all; u += gridDim.x) {
    const Index rest = divide(u, blocks), outer = divide(rest, to.pieces), p = rest - outer * to.pieces;
    const Index c = ((u - rest * blocks) * 32 + lane) * V, begin = p * to.piece, end = std::min(to.count, begin + to.piece);
    Index start[1 + inputs] = {}, offset[inputs];
    kept.seek(outer, inner, start);
    A acc[V];
#pragma unroll
    for (int i = 0; i < V; ++i) acc[i] = Fold::template identity<A>();
    if (c < width) {
#pragma unroll 1
      for (Index m = begin + row; m < end; m += rows) {
#pragma unroll
        for (int k = 0; k < inputs; ++k) offset[k] = start[k + 1] + c * column[k];
        reduced.seek(m, reduced.rank, offset);
        fold_columns<V, Fold>(each, f, acc, column, width - c, offset, x...);
      }
    }
#pragma unroll
    for (int i = 0; i < V; ++i) shared[row][i * 32 + lane] = acc[i];
    __syncthreads();
    for (int half = rows / 2; half > 0; half /= 2) {
      if (row < half)
#pragma unroll
        for (int i = 0; i < V; ++i)
          shared[row][i * 32 + lane] = Fold::template combine<A>(shared[row][i * 32 + lane], shared[row + half][i * 32 + lane]);
      __syncthreads();
    }
    if (row == 0)
#pragma unroll
      for (int i = 0; i < V; ++i)
        if (c + i < width) to(start[0] + (c + i) * kept.stride[0][inner], p, shared[0][i * 32 + lane]);
    __syncthreads();
  }
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu
