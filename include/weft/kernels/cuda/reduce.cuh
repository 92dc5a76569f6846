// Reductions in two stages over pieces that the shapes fix: each piece in the order of its threads, then the pieces of each result in
// an order that their number fixes. Where neighbours of the kept axis lie together, threads own columns; else they share a result.
#pragma once

#include "weft/kernels/cuda/best.cuh"
#include "weft/kernels/cuda/lines.cuh"
#include "weft/kernels/cuda/map.cuh"
#include "weft/kernels/cuda/reduce.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

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

/// A reduction's loops: y and the inputs over the kept axes, the inputs over the reduced ones.
template <int K>
struct FoldPlan {
  Loops<1 + K> kept;
  Loops<K> reduced;
  bool columns = false;  // the innermost kept axis is the one on which the inputs lie together

  FoldPlan() = default;
  FoldPlan(const Shape& y_shape, const Strides& y_strides, const Shape& shape, const Strides* const* strides) {
    for (Index a = 0; a < shape.rank(); ++a) {
      if (shape[a] == 1) continue;
      if (y_shape[a] == 1 || y_strides[a] == 0) {
        for (int k = 0; k < K; ++k) reduced.stride[k][reduced.rank] = (*strides[k])[a];
        reduced.push(shape[a]);
      } else {
        kept.stride[0][kept.rank] = y_strides[a];
        for (int k = 0; k < K; ++k) kept.stride[k + 1][kept.rank] = (*strides[k])[a];
        kept.push(shape[a]);
      }
    }
    kept.merge();
    reduced.merge();
    reduced.finish();
    int best = 0, best_axis = -1;  // inputs that lie together on the axis, less those that do on the reduced one
    for (int a = 0; a < kept.rank; ++a) {
      int score = 0;
      for (int k = 0; k < K; ++k) {
        const Index along = kept.stride[k + 1][a], across = reduced.stride[k][reduced.rank - 1];
        score += (along == 1 && across != 0) - (across == 1 && along != 0);
      }
      if (score > best) best = score, best_axis = a;
    }
    columns = best_axis >= 0;
    if (columns) kept.move_inside(best_axis);
    kept.finish();
  }
};

/// `rows` as fold_across has it: many where few elements are left.
template <int V, int rows, class Fold, class F, class TY, class... TX>
void fold_pieces(F f, const FoldPlan<sizeof...(TX)>& plan, const FoldTo<TY>& to, const TX*... x) {
  constexpr int inputs = static_cast<int>(sizeof...(TX));
  if (plan.columns) {
    const int inner = plan.kept.rank - 1;
    const Index width = plan.kept.extent[inner];
    const Index tiles = (width + 32 * V - 1) / (32 * V), outers = to.outputs / width;
    if constexpr (V > 1) {
      const bool aligned[] = {is_aligned<V>(x)...};
      bool dense = width % V == 0 && plan.reduced.rank == 1;
      for (int k = 0; k < inputs; ++k) {
        dense = dense && plan.kept.stride[k + 1][inner] == 1 && plan.reduced.stride[k][0] % V == 0 && aligned[k];
        for (int a = 0; a < inner; ++a) dense = dense && plan.kept.stride[k + 1][a] % V == 0;
      }
      if (dense) {
        const dim3 blocks(static_cast<unsigned>(tiles), static_cast<unsigned>(to.pieces),
                          static_cast<unsigned>(std::min<Index>(outers, 65535)));
        fold_dense<V, Fold, F, TY, TX...><<<blocks, 256, 0, stream()>>>(f, plan.kept, plan.reduced, outers, to, x...);
        return check_launch("reduce");
      }
    }
    fold_across<V, rows, Fold, F, TY, TX...>
        <<<blocks_for(outers * tiles * to.pieces, 1), 32 * rows, 0, stream()>>>(f, plan.kept, plan.reduced, to, x...);
  } else {
    const int group = std::min(to.piece, to.count) <= 1024 ? 32 : fold_threads;
    const Index units = to.outputs * to.pieces;
    fold_along<Fold, F, TY, TX...>
        <<<blocks_for(units, fold_threads / group), fold_threads, 0, stream()>>>(f, plan.kept, plan.reduced, group, to, x...);
  }
  check_launch("reduce");
}

template <class Fold, class F, class TY, class... TX>
void fold(F f, const Out<TY, cuda>& y, const In<TX, cuda>&... x) {
  using A = stat_t<TY>;
  constexpr int inputs = static_cast<int>(sizeof...(TX));
  if (!y || y.numel() == 0) return;
  const Shape* const shapes[] = {&x.shape...};
  const Strides* const strides[] = {&x.strides...};
  FoldPlan<inputs> plan(y.shape, y.strides, *shapes[0], strides);
  const Index outputs = plan.kept.count(), count = plan.reduced.count();

  // Pieces follow from extents alone: as many as a large GPU has in work at once where there are few results.
  constexpr int V = common_pack<TX...>;
  Index pieces = 1;
  if (plan.columns) {
    const Index width = plan.kept.extent[plan.kept.rank - 1], blocks = outputs / width * ((width + 32 * V - 1) / (32 * V));
    pieces = std::clamp<Index>(fold_blocks * multiprocessors / blocks, 1, std::max<Index>(1, count / 64));
  } else if (outputs < 1024) {
    pieces = std::max<Index>(1, (count + fold_piece - 1) / fold_piece);
  }
  const Index piece = std::max<Index>(1, (count + pieces - 1) / pieces);
  pieces = std::max<Index>(1, (count + piece - 1) / piece);
  if (pieces == 1) return fold_pieces<V, 8, Fold, F, TY, TX...>(f, plan, {y.data, y.beta, nullptr, outputs, 1, piece, count}, x.data...);

  const Scratch<A> partial(outputs * pieces);
  FoldPlan<1> last;  // of the pieces of each result
  last.kept.rank = plan.kept.rank;
  Index step = 1;
  for (int a = plan.kept.rank - 1; a >= 0; --a) {
    last.kept.extent[a] = plan.kept.extent[a];
    last.kept.stride[0][a] = plan.kept.stride[0][a];
    last.kept.stride[1][a] = plan.kept.stride[0][a] = step;
    step *= plan.kept.extent[a];
  }
  last.reduced.push(pieces);
  last.reduced.stride[0][0] = outputs;
  last.kept.merge();
  last.columns = last.kept.extent[last.kept.rank - 1] >= 32;
  fold_pieces<V, 8, Fold, F, TY, TX...>(f, plan, {nullptr, 0, partial.data(), outputs, pieces, piece, count}, x.data...);
  if (last.kept.rank == 1 && outputs >= 32)
    return fold_lines<Fold, A, TY>(partial.data(), pieces, outputs, outputs, {y.data, last.kept.stride[0][0], y.beta});
  fold_pieces<1, 32, Fold, Copy, TY, A>(Copy{}, last, {y.data, y.beta, nullptr, outputs, 1, pieces, pieces},
                                        static_cast<const A*>(partial.data()));
}

}  // namespace gpu

template <class F, class TY, class... TX>
void map_sum(cuda, F f, Out<TY, cuda> y, std::type_identity_t<In<TX, cuda>>... x) {
  gpu::fold<gpu::SumFold, F, TY, TX...>(f, y, x...);
}

template <class T>
void reduce_max(cuda, Out<T, cuda> y, In<T, cuda> x) {
  gpu::fold<gpu::MaxFold, Copy, T, T>(Copy{}, y, x);
}

template <class T>
void reduce_min(cuda, Out<T, cuda> y, In<T, cuda> x) {
  gpu::fold<gpu::MinFold, Copy, T, T>(Copy{}, y, x);
}

template <class T>
void argmax(cuda, Out<std::int64_t, cuda> y, In<T, cuda> x, Index axis) {
  if (!y || y.numel() == 0) return;
  assert(x.shape[axis] > 0);
  const auto loops = gpu::loops_beside(axis, x.shape, x.strides, y.strides, y.strides);
  gpu::best_of_lines<T>(loops, x.shape[axis], x.strides[axis], 1, x.data, nullptr, 0, y.data, 0);
}

}  // namespace weft::inline WEFT_ABI::kernels
