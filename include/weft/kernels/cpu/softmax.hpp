// Softmax and log-softmax over the last axis, and their gradients from the output.
#pragma once

#include "weft/kernels/cpu/rows.hpp"
#include "weft/kernels/math.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// y = exp(x - max x) / sum exp(x - max x) over the last axis. x, y (..., C) with last stride 1. A row of nothing but
/// -inf gives NaN.
template <class T>
void softmax_forward(cpu, In<T, cpu> x, Out<T, cpu> y) {
  using S = stat_t<T>;
  if (!y) return;
  const Index N = row_count(x.shape), C = row_width(x.shape);
  const Rows<const T> x_rows = rows(x);
  const Rows<T> y_rows = rows(y);
  const int beta = y.beta;
  parallel_ranges(N, rows_a_piece(N, C), [&](Index begin, Index end) {
    const Scratch<S> exponentials(C);  // not y itself: bf16 would round twice, and beta 1 still needs what is there
    S* const e = exponentials.data();
    simd([=]() WEFT_INLINE {
      for (Index n = begin; n < end; ++n) {
        const T* const xn = x_rows[n];
        const S top = max_row<S>(C, [=](Index c) WEFT_INLINE { return static_cast<S>(xn[c]); });
        const S sum = sum_row<S>(C, [=](Index c) WEFT_INLINE { return e[c] = math::exp(static_cast<S>(xn[c]) - top); });
        const S scale = 1 / sum;
        put_row(y_rows[n], 0, C, beta, [=](Index c) WEFT_INLINE { return e[c] * scale; });
      }
    });
  });
}

/// dx = y * (dy - sum(dy * y)). dy, y, dx (..., C) with last stride 1.
template <class T>
void softmax_backward(cpu, In<T, cpu> dy, In<T, cpu> y, Out<T, cpu> dx) {
  using S = stat_t<T>;
  if (!dx) return;
  const Index N = row_count(y.shape), C = row_width(y.shape);
  const Rows<const T> dy_rows = rows(dy), y_rows = rows(y);
  const Rows<T> dx_rows = rows(dx);
  const int beta = dx.beta;
  parallel_ranges(N, rows_a_piece(N, C), [&](Index begin, Index end) {
    simd([=]() WEFT_INLINE {
      for (Index n = begin; n < end; ++n) {
        const T *const dyn = dy_rows[n], *const yn = y_rows[n];
        const S dot =
            sum_row<S>(C, [=](Index c) WEFT_INLINE { return static_cast<S>(dyn[c]) * static_cast<S>(yn[c]); });
        put_row(dx_rows[n], 0, C, beta,
                [=](Index c) WEFT_INLINE { return static_cast<S>(yn[c]) * (static_cast<S>(dyn[c]) - dot); });
      }
    });
  });
}

/// y = (x - max x) - log sum exp(x - max x) over the last axis. x, y (..., C) with last stride 1.
template <class T>
void log_softmax_forward(cpu, In<T, cpu> x, Out<T, cpu> y) {
  using S = stat_t<T>;
  if (!y) return;
  const Index N = row_count(x.shape), C = row_width(x.shape);
  const Rows<const T> x_rows = rows(x);
  const Rows<T> y_rows = rows(y);
  const int beta = y.beta;
  parallel_ranges(N, rows_a_piece(N, C), [&](Index begin, Index end) {
    simd([=]() WEFT_INLINE {
      for (Index n = begin; n < end; ++n) {
        const T* const xn = x_rows[n];
        const S top = max_row<S>(C, [=](Index c) WEFT_INLINE { return static_cast<S>(xn[c]); });
        const S log_sum =
            math::log(sum_row<S>(C, [=](Index c) WEFT_INLINE { return math::exp(static_cast<S>(xn[c]) - top); }));
        put_row(y_rows[n], 0, C, beta, [=](Index c) WEFT_INLINE { return (static_cast<S>(xn[c]) - top) - log_sum; });
      }
    });
  });
}

/// dx = dy - exp(y) * sum(dy), with y the output. dy, y, dx (..., C) with last stride 1.
template <class T>
void log_softmax_backward(cpu, In<T, cpu> dy, In<T, cpu> y, Out<T, cpu> dx) {
  using S = stat_t<T>;
  if (!dx) return;
  const Index N = row_count(y.shape), C = row_width(y.shape);
  const Rows<const T> dy_rows = rows(dy), y_rows = rows(y);
  const Rows<T> dx_rows = rows(dx);
  const int beta = dx.beta;
  parallel_ranges(N, rows_a_piece(N, C), [&](Index begin, Index end) {
    simd([=]() WEFT_INLINE {
      for (Index n = begin; n < end; ++n) {
        const T *const dyn = dy_rows[n], *const yn = y_rows[n];
        const S sum = sum_row<S>(C, [=](Index c) WEFT_INLINE { return static_cast<S>(dyn[c]); });
        put_row(dx_rows[n], 0, C, beta,
                [=](Index c) WEFT_INLINE { return static_cast<S>(dyn[c]) - math::exp(static_cast<S>(yn[c])) * sum; });
      }
    });
  });
}

}  // namespace weft::inline WEFT_ABI::kernels
