// Reductions: the value is a function of the reduced elements in row-major order alone, whatever the strides, the other axes
// and the number of threads: element m goes to lane m % 16 of piece m / 512, the lanes and then the pieces are combined in a
// fixed tree.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>

#include "weft/core/scratch.hpp"
#include "weft/kernels/cpu/map.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace detail {

inline constexpr Index fold_lanes = 16, fold_piece = 512;

struct SumFold {
  template <class A> static constexpr A identity() { return A(0); }
  template <class A> WEFT_INLINE static A combine(A a, A b) { return static_cast<A>(a + b); }
};
struct MaxFold {
  template <class A> static constexpr A identity() {
    using Limits = std::numeric_limits<A>;
    return Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
  }
  template <class A> WEFT_INLINE static A combine(A a, A b) { return Max2{}(a, b); }
};
struct MinFold {
  template <class A> static constexpr A identity() {
    using Limits = std::numeric_limits<A>;
    return Limits::has_infinity ? Limits::infinity() : Limits::max();
  }
  template <class A> WEFT_INLINE static A combine(A a, A b) { return Min2{}(a, b); }
};

/// One combination of each level of the tree over n values that lie `step` apart: left child first.
template <class Fold, class A>
WEFT_INLINE inline A fold_tree(A* p, Index n, Index step) {
  for (Index k = 1; k < n; k *= 2)
    for (Index i = 0; i + k < n; i += 2 * k) p[i * step] = Fold::template combine<A>(p[i * step], p[(i + k) * step]);
  return p[0];
}

/// The next n elements into the lanes, the first of them into `lane`.
template <class Fold, class A, class F, class... TX>
WEFT_INLINE inline void fold_line(A* acc, Index lane, F f, Index n, const TX*... x) {
  Index i = 0;
  for (; lane % fold_lanes != 0 && i < n; ++i, ++lane)
    acc[lane] = Fold::template combine<A>(acc[lane], static_cast<A>(f(to_stat<TX>(x[i])...)));
  for (; i + fold_lanes <= n; i += fold_lanes) {
#pragma omp simd
    for (Index l = 0; l < fold_lanes; ++l)
      acc[l] = Fold::template combine<A>(acc[l], static_cast<A>(f(to_stat<TX>(x[i + l])...)));
  }
  for (Index l = 0; i < n; ++i, ++l)
    acc[l] = Fold::template combine<A>(acc[l], static_cast<A>(f(to_stat<TX>(x[i])...)));
}

/// One more element into each of n accumulators.
template <class Fold, class A, class F, class... TX>
WEFT_INLINE inline void fold_across(A* acc, F f, Index n, const TX*... x) {
#pragma omp simd
  for (Index i = 0; i < n; ++i) acc[i] = Fold::template combine<A>(acc[i], static_cast<A>(f(to_stat<TX>(x[i])...)));
}

/// All that is compiled for each function and types of a reduction. Accumulators are `size` bytes each.
struct FoldFunctions {
  Index size;
  void (*start)(void* acc, Index n);                                                                 ///< the identity
  void (*along)(const void* f, void* lanes, Index lane, Index n, const std::byte* const* x);  ///< fold_line
  void (*across)(const void* f, void* acc, Index n, const std::byte* const* x);               ///< fold_across
  void (*merge)(void* acc, const void* more, Index n);                                               ///< acc[i] and more[i]
  void (*store)(void* y, Index step, const void* acc, Index n, int beta);                            ///< y[i step] (+)= acc[i]
};

template <class Fold, class A>
void fold_start(void* acc, Index n) {
  for (Index i = 0; i < n; ++i) static_cast<A*>(acc)[i] = Fold::template identity<A>();
}
template <class Fold, class A>
void fold_merge(void* acc, const void* more, Index n) {
  A* const a = static_cast<A*>(acc);
  const A* const b = static_cast<const A*>(more);
#pragma omp simd
  for (Index i = 0; i < n; ++i) a[i] = Fold::template combine<A>(a[i], b[i]);
}
template <class TY>
void fold_store(void* y, Index step, const void* acc, Index n, int beta) {
  for (Index i = 0; i < n; ++i) put(static_cast<TY*>(y)[i * step], static_cast<const stat_t<TY>*>(acc)[i], beta);
}

template <class Fold, class F, class TY, class... TX>
struct FoldOf {
  using A = stat_t<TY>;

  static void along(const void* function, void* lanes, Index lane, Index n, const std::byte* const* from) {
    const F f = *static_cast<const F*>(function);
    A* const acc = static_cast<A*>(lanes);
    with_types<TX...>(from, [&](const TX*... x) { simd([=]() WEFT_INLINE { fold_line<Fold, A, F, TX...>(acc, lane, f, n, x...); }); });
  }
  static void across(const void* function, void* accumulators, Index n, const std::byte* const* from) {
    const F f = *static_cast<const F*>(function);
    A* const acc = static_cast<A*>(accumulators);
    with_types<TX...>(from, [&](const TX*... x) { simd([=]() WEFT_INLINE { fold_across<Fold, A, F, TX...>(acc, f, n, x...); }); });
  }
  static constexpr FoldFunctions functions{sizeof(A), fold_start<Fold, A>, along, across, fold_merge<Fold, A>, fold_store<TY>};
};

/// One call of a reduction over K inputs; y's axes of extent 1 or stride 0 are the reduced ones.
class FoldCall {
 public:
  FoldCall(const FoldFunctions& functions, const void* f, int inputs) : fn_(functions), f_(f), inputs_(inputs), kept_(inputs + 1), reduced_(inputs) {}

  /// Inputs come in order; their data and the bytes of an element.
  void input(const void* data, Index size) {
    data_[count_] = static_cast<const std::byte*>(data);
    size_[count_++] = size;
  }

  void run(std::byte* y, Index y_size, int beta, const Shape& y_shape, const Strides& y_strides, const Shape& shape,
           const Strides* const* strides) {
    plan(y_shape, y_strides, shape, strides);
    const Index count = reduced_.count(reduced_.rank);  // elements of a sum
    const Index pieces = (count + fold_piece - 1) / fold_piece;
    const Index outputs = kept_.count(kept_.rank);
    // Partial results: [row of outputs][piece][output within the row], rows of one where there are no columns.
    const Index width = columns_ ? kept_.extent[kept_.rank - 1] : 1, rows = outputs / width;
    const Index row_axes = columns_ ? kept_.rank - 1 : kept_.rank;
    const Scratch<std::byte> partial(outputs * pieces * fn_.size);

    if (columns_) {
      const Index blocks = (width + line_size - 1) / line_size;
      parallel(rows * pieces * blocks, [&](Index task) {
        const Index block = task % blocks, unit = task / blocks, piece = unit % pieces;
        const Index c0 = block * line_size, n = std::min(line_size, width - c0);
        Cursor at;
        at.seek(kept_, row_axes, unit / pieces);
        run_across(piece * fold_piece, std::min(count, (piece + 1) * fold_piece), c0, n, at.offset + 1,
                   partial.data() + (unit * width + c0) * fn_.size);
      });
    } else {
      const Index at_once = std::max<Index>(1, piece_size / std::clamp<Index>(count, 1, fold_piece));
      parallel_ranges(outputs * pieces, at_once, [&](Index begin, Index end) {
        Cursor at;
        at.seek(kept_, row_axes, begin / pieces);
        for (Index unit = begin; unit < end; ++unit) {
          const Index piece = unit % pieces;
          run_along(piece * fold_piece, std::min(count, (piece + 1) * fold_piece), at.offset + 1, partial.data() + unit * fn_.size);
          if (piece == pieces - 1) at.next(kept_, row_axes);
        }
      });
    }

    // The tree over the pieces of each output, left child first, and its result to y.
    const Index step = columns_ ? kept_.stride[0][kept_.rank - 1] : 0;
    parallel_ranges(outputs, std::max<Index>(1, piece_size / std::max<Index>(1, pieces)), [&](Index begin, Index end) {
      alignas(64) Line nothing;
      Cursor at;
      at.seek(kept_, row_axes, begin / width);
      for (Index j = begin, n; j < end; j += n) {
        const Index row = j / width, c = j % width;
        n = std::min({width - c, end - j, line_size});
        std::byte* sum = partial.data() + (row * pieces * width + c) * fn_.size;
        const Index piece_bytes = width * fn_.size;
        for (Index k = 1; k < pieces; k *= 2)
          for (Index i = 0; i + k < pieces; i += 2 * k) fn_.merge(sum + i * piece_bytes, sum + (i + k) * piece_bytes, n);
        if (pieces == 0) fn_.start(sum = nothing, n);
        fn_.store(y + (at.offset[0] + c * step) * y_size, step, sum, n, beta);
        if (c + n == width) at.next(kept_, row_axes);
      }
    });
  }

 private:
  void plan(const Shape& y_shape, const Strides& y_strides, const Shape& shape, const Strides* const* strides) {
    for (Index a = 0; a < shape.rank(); ++a) {
      if (shape[a] == 1) continue;
      if (y_shape[a] == 1 || y_strides[a] == 0) {
        for (int k = 0; k < inputs_; ++k) reduced_.stride[k][reduced_.rank] = (*strides[k])[a];
        reduced_.push(shape[a]);
      } else {
        kept_.stride[0][kept_.rank] = y_strides[a];
        for (int k = 0; k < inputs_; ++k) kept_.stride[k + 1][kept_.rank] = (*strides[k])[a];
        kept_.push(shape[a]);
      }
    }
    kept_.merge();
    reduced_.merge();
    if (reduced_.rank == 0) reduced_.push(1);
    const Index inner = reduced_.rank - 1;
    Index best = 0, best_axis = -1;  // inputs that lie together on the axis, less those that do on the reduced one
    for (Index a = 0; a < kept_.rank; ++a) {
      Index score = 0;
      for (int k = 0; k < inputs_; ++k) {
        const Index along = kept_.stride[k + 1][a], across = reduced_.stride[k][inner];
        score += (along == 1 && across != 0) - (across == 1 && along != 0);
      }
      if (score > best) best = score, best_axis = a;
    }
    columns_ = best_axis >= 0;
    for (Index a = best_axis; columns_ && a + 1 < kept_.rank; ++a) kept_.swap(a, a + 1);
  }

  /// n elements of input k from `offset` on: where they lie, or copies in the buffer.
  const std::byte* line(int k, Index offset, Index stride, Index n, std::byte* buffer) const {
    const std::byte* const from = data_[k] + offset * size_[k];
    if (stride == 1) return from;
    copy_line(size_[k], buffer, 1, from, stride, n);
    return buffer;
  }

  /// Elements [m0, m1) of the reduced loops, which begin a piece, for the output whose inputs start at `start`.
  void run_along(Index m0, Index m1, const Index* start, std::byte* result) const {
    alignas(64) Line buffer[max_operands];
    alignas(64) std::byte lanes[fold_lanes * element_bytes];
    const std::byte* x[max_operands];
    const Index inner = reduced_.rank - 1, length = reduced_.extent[inner];
    const Index most = reduced_.dense(inner) ? length : line_size;
    fn_.start(lanes, fold_lanes);
    Cursor row;
    row.seek(reduced_, inner, m0 / length);
    Index c = m0 % length;
    for (Index m = m0, n; m < m1; m += n) {
      n = std::min({length - c, m1 - m, most});
      for (int k = 0; k < inputs_; ++k) {
        const Index stride = reduced_.stride[k][inner];
        x[k] = line(k, start[k] + row.offset[k] + c * stride, stride, n, buffer[k]);
      }
      fn_.along(f_, lanes, (m - m0) % fold_lanes, n, x);
      c += n;
      if (c == length) {
        c = 0;
        row.next(reduced_, inner);
      }
    }
    // lane l with lane l + 8, then 4, 2, 1
    for (Index half = fold_lanes / 2; half > 0; half /= 2) fn_.merge(lanes, lanes + half * fn_.size, half);
    std::memcpy(result, lanes, static_cast<std::size_t>(fn_.size));
  }

  /// The same for n <= line_size outputs from c0 on, side by side along the innermost kept axis.
  void run_across(Index m0, Index m1, Index c0, Index n, const Index* start, std::byte* result) const {
    alignas(64) Line buffer[max_operands];
    alignas(64) std::byte lanes[fold_lanes * line_size * element_bytes];
    const std::byte* x[max_operands];
    const Index used = std::min(fold_lanes, m1 - m0), lane_bytes = line_size * fn_.size;
    for (Index l = 0; l < used; ++l) fn_.start(lanes + l * lane_bytes, n);
    Cursor at;
    at.seek(reduced_, reduced_.rank, m0);
    for (Index m = m0; m < m1; ++m, at.next(reduced_, reduced_.rank)) {
      for (int k = 0; k < inputs_; ++k) {
        const Index stride = kept_.stride[k + 1][kept_.rank - 1];
        x[k] = line(k, start[k] + c0 * stride + at.offset[k], stride, n, buffer[k]);
      }
      fn_.across(f_, lanes + (m - m0) % fold_lanes * lane_bytes, n, x);
    }
    for (Index half = fold_lanes / 2; half > 0; half /= 2)
      for (Index l = 0; l < half && l + half < used; ++l) fn_.merge(lanes + l * lane_bytes, lanes + (l + half) * lane_bytes, n);
    std::memcpy(result, lanes, static_cast<std::size_t>(n * fn_.size));
  }

  const FoldFunctions& fn_;
  const void* f_;
  int inputs_, count_ = 0;
  const std::byte* data_[max_operands] = {};
  Index size_[max_operands] = {};
  Loops kept_;  // operand 0 is y
  Loops reduced_;
  bool columns_ = false;  // the innermost kept axis is the one on which the inputs lie together
};

template <class Fold, class F, class TY, class... TX>
void fold(F f, const Out<TY, cpu>& y, const In<TX, cpu>&... x) {
  static_assert(sizeof...(TX) < max_operands);
  if (!y || y.numel() == 0) return;
  const Shape* const shapes[] = {&x.shape...};
  const Strides* const strides[] = {&x.strides...};
  FoldCall call(FoldOf<Fold, F, TY, TX...>::functions, &f, static_cast<int>(sizeof...(TX)));
  (call.input(x.data, sizeof(TX)), ...);
  call.run(reinterpret_cast<std::byte*>(y.data), sizeof(TY), y.beta, y.shape, y.strides, *shapes[0], strides);
}

}  // namespace detail

}  // namespace weft::inline WEFT_ABI::kernels
