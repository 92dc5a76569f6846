// Reductions: the value is a function of the reduced elements in row-major order alone, whatever the strides, the other axes
// and the number of threads (fold_functions.hpp says in which order).
#pragma once

#include <cstring>

#include "weft/core/scratch.hpp"
#include "weft/kernels/cpu/fold_functions.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace detail {

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
    const Index outputs = kept_.count(kept_.rank), row_axes = std::max<Index>(0, kept_.rank - 1);
    const Index width = kept_.rank > 0 ? kept_.extent[row_axes] : 1, rows = outputs / width;
    const Scratch<std::byte> partial(outputs * pieces * fn_.size);
    const auto place = [&](Index row, Index piece, Index c) { return partial.data() + ((row * pieces + piece) * width + c) * fn_.size; };

    if (columns_) {
      const Index blocks = (width + line_size - 1) / line_size;
      parallel(rows * pieces * blocks, [&](Index task) {
        const Index block = task % blocks, row = task / blocks / pieces, piece = task / blocks % pieces;
        const Index c0 = block * line_size, n = std::min(line_size, width - c0);
        Cursor at;
        at.seek(kept_, row_axes, row);
        run_across(piece * fold_piece, std::min(count, (piece + 1) * fold_piece), c0, n, at.offset + 1, place(row, piece, c0));
      });
    } else if (together() && width >= runs_at_once && pieces < 2 * runs_at_once && width * count >= piece_size / 4) {  // the same piece of neighbours
      const Index at_once = std::max<Index>(1, piece_of(outputs * count) / runs_at_once / std::max<Index>(1, count)) * runs_at_once;
      const Index blocks = (width + at_once - 1) / at_once;
      parallel(rows * blocks, [&](Index task) {
        const Index row = task / blocks, c0 = task % blocks * at_once, n = std::min(at_once, width - c0);
        Cursor at;
        at.seek(kept_, row_axes, row);
        Index steps[max_operands];
        for (int k = 0; k < inputs_; ++k) {
          steps[k] = kept_.stride[k + 1][row_axes];
          at.offset[k + 1] += c0 * steps[k];
        }
        for (Index piece = 0; piece < pieces; ++piece)
          run_together(piece * fold_piece, std::min(count, (piece + 1) * fold_piece), at.offset + 1, n, steps, place(row, piece, c0), 1);
      });
    } else {
      const Index at_once = std::max<Index>(1, piece_of(outputs * count) / std::clamp<Index>(count, 1, fold_piece)), full = together() ? count / fold_piece : 0;
      parallel_ranges(outputs * pieces, at_once, [&](Index begin, Index end) {
        Cursor at;
        at.seek(kept_, kept_.rank, begin / pieces);
        for (Index unit = begin, n; unit < end; unit += n) {
          const Index piece = unit % pieces, output = unit / pieces, m0 = piece * fold_piece;
          std::byte* const result = place(output / width, piece, output % width);
          n = 1;
          if (piece < full) {  // several pieces of an output
            Index steps[max_operands];
            std::fill_n(steps, max_operands, fold_piece);
            n = std::min(end - unit, full - piece);
            run_together(m0, m0 + fold_piece, at.offset + 1, n, steps, result, width);
          } else {
            run_along(m0, std::min(count, m0 + fold_piece), at.offset + 1, result);
          }
          if (piece + n == pieces) at.next(kept_, kept_.rank);
        }
      });
    }

    // The tree over the pieces of each output, left child first, and its result to y.
    const Index step = kept_.rank > 0 ? kept_.stride[0][row_axes] : 0;
    parallel_ranges(outputs, std::max<Index>(1, piece_size / std::max<Index>(1, pieces)), [&](Index begin, Index end) {
      alignas(64) Line nothing;
      Cursor at;
      at.seek(kept_, row_axes, begin / width);
      for (Index j = begin, n; j < end; j += n) {
        const Index row = j / width, c = j % width;
        n = std::min({width - c, end - j, line_size});
        std::byte* sum = place(row, 0, c);
        const Index piece_bytes = width * fn_.size;
        if (n == 1 && pieces > 0) fn_.tree(sum, pieces, width);
        for (Index k = 1; n > 1 && k < pieces; k *= 2)
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

  /// True iff all elements of an output lie together.
  bool together() const { return reduced_.rank == 1 && reduced_.dense(0); }

  /// Elements [m0, m1) of so many outputs or pieces, whose inputs and results lie `steps` and `result_step` apart; together() holds.
  void run_together(Index m0, Index m1, const Index* start, Index runs, const Index* steps, std::byte* result, Index result_step) const {
    const std::byte* x[max_operands];
    for (int k = 0; k < inputs_; ++k) x[k] = data_[k] + (start[k] + m0) * size_[k];
    fn_.whole(f_, result, result_step, runs, m1 - m0, x, steps);
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
    const Index used = std::min(fold_lanes, m1 - m0), lane_bytes = line_size * fn_.size, inner = reduced_.rank - 1;
    for (Index l = 0; l < used; ++l) fn_.start(lanes + l * lane_bytes, n);
    Index steps[max_operands], most = m1 - m0;
    for (int k = 0; k < inputs_; ++k) {
      steps[k] = reduced_.stride[k][inner];
      if (kept_.stride[k + 1][kept_.rank - 1] != 1) most = 1;  // copied, a row at a time
    }
    Cursor at;
    for (Index m = m0, rows; m < m1; m += rows) {
      at.seek(reduced_, reduced_.rank, m);
      rows = std::min({most, m1 - m, reduced_.extent[inner] - at.at[inner]});
      for (int k = 0; k < inputs_; ++k) {
        const Index stride = kept_.stride[k + 1][kept_.rank - 1];
        x[k] = line(k, start[k] + c0 * stride + at.offset[k], stride, n, buffer[k]);
      }
      fn_.across(f_, lanes, (m - m0) % fold_lanes, rows, n, x, steps);
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
