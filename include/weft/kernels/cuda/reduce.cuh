// Reductions in two stages over pieces that the shapes fix: each piece in the order of its threads, then the pieces of each result in
// an order that their number fixes. Where neighbours of the kept axis lie together, threads own columns; else they share a result.
#pragma once

#include "weft/kernels/cuda/best.cuh"
#include "weft/kernels/cuda/fold.cuh"
#include "weft/kernels/cuda/reduce.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

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
