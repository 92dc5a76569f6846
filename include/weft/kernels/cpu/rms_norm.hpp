// Root mean square normalisation over the last axis, and its gradient. Zhang and Sennrich 2019.
#pragma once

#include "weft/kernels/cpu/rows.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace detail {
/// The forward for rows that are there, or that are made when they are asked for.
template <class T, class W, class FromRows>
void rms_norm_rows(FromRows x_rows, const Shape& shape, const In<W, cpu>& weight, double eps, const Out<T, cpu>& y, stat_t<T>* rstds) {
  using S = stat_t<T>;
  const Index N = row_count(shape), C = row_width(shape);
  const Scratch<S> wide(C);
  S* const w = wide.data();
  widen(weight, C, S(1), w);
  const Rows<T> y_rows = rows(y);
  const S count = static_cast<S>(C), small = static_cast<S>(eps);
  const int beta = y.beta;

  parallel_ranges(N, rows_a_piece(N, C), [&](Index begin, Index end) {
    simd([=]() WEFT_INLINE {
      for (Index n = begin; n < end; ++n) {
        const T* const xn = x_rows[n];
        const S squares = sum_row<S>(C, [=](Index c) WEFT_INLINE {
          const S v = static_cast<S>(xn[c]);
          return v * v;
        });
        const S rstd = 1 / std::sqrt(squares / count + small);
        if (rstds != nullptr) rstds[n] = rstd;
        if (y_rows)
          put_row(y_rows[n], 0, C, beta, [=](Index c) WEFT_INLINE { return static_cast<S>(xn[c]) * rstd * w[c]; });
      }
    });
  });
}
}  // namespace detail

/// y = x * rstd * weight, rstd = 1 / sqrt(mean(x^2) + eps), over the last axis. x, y (..., C) with last stride 1;
/// weight (C) may be absent (then 1); rstd_N (N) contiguous, overwritten.
template <class T, class W>
void rms_norm_forward(cpu, In<T, cpu> x, In<W, cpu> weight, double eps, Out<T, cpu> y, Out<stat_t<T>, cpu> rstd_N) {
  detail::rms_norm_rows<T, W>(rows(x), x.shape, weight, eps, y, rstd_N.data);
}

/// The same of s = x + r, which is written too. r, s (..., C) with last stride 1, all of one shape; s is no part of x, r or y.
template <class T, class W>
void add_rms_norm_forward(cpu, In<T, cpu> x, In<T, cpu> r, In<W, cpu> weight, double eps, Out<T, cpu> s, Out<T, cpu> y,
                          Out<stat_t<T>, cpu> rstd_N) {
  detail::rms_norm_rows<T, W>(SumRows<T>{rows(x), rows(r), rows(s), row_width(x.shape)}, x.shape, weight, eps, y, rstd_N.data);
}

/// With xhat = x * rstd and g = dy * weight:
///   dx = rstd * (g - xhat * mean(g * xhat)), dweight = sum over rows of dy * xhat.
/// dy, x, dx (..., C) with last stride 1; weight (C) may be absent; dweight (C).
template <class T, class W>
void rms_norm_backward(cpu, In<T, cpu> dy, In<T, cpu> x, In<W, cpu> weight, In<stat_t<T>, cpu> rstd_N, Out<T, cpu> dx,
                       Out<param_grad_t<W>, cpu> dweight) {
  using S = stat_t<T>;
  const Index N = row_count(x.shape), C = row_width(x.shape);
  const bool sums = static_cast<bool>(dweight);
  const Scratch<S> wide(C);
  S* const w = wide.data();
  widen(weight, C, S(1), w);
  const ColumnSums<S> weight_sums(sums ? N : 0, C);
  const Rows<const T> dy_rows = rows(dy), x_rows = rows(x);
  const Rows<T> dx_rows = rows(dx);
  const S* const rstds = rstd_N.data;
  const S count = static_cast<S>(C);
  const int beta = dx.beta;

  parallel_ranges(N, sums ? weight_sums.height() : rows_a_piece(N, C), [&](Index begin, Index end) {
    S* const dw = sums ? weight_sums.line(begin / weight_sums.height()) : nullptr;
    simd([=]() WEFT_INLINE {
      for (Index n = begin; n < end; ++n) {
        const T *const dyn = dy_rows[n], *const xn = x_rows[n];
        const S rstd = rstds[n];
        if (dw != nullptr) {
          if (n == begin) {
#pragma omp simd
            for (Index c = 0; c < C; ++c) dw[c] = 0;
          }
#pragma omp simd
          for (Index c = 0; c < C; ++c) dw[c] = std::fma(static_cast<S>(dyn[c]), static_cast<S>(xn[c]) * rstd, dw[c]);
        }
        if (!dx_rows) continue;
        const S gx_mean =
            sum_row<S>(C, [=](Index c)
                              WEFT_INLINE { return static_cast<S>(dyn[c]) * w[c] * (static_cast<S>(xn[c]) * rstd); }) /
            count;
        put_row(dx_rows[n], 0, C, beta, [=](Index c) WEFT_INLINE {
          return rstd * (static_cast<S>(dyn[c]) * w[c] - static_cast<S>(xn[c]) * rstd * gx_mean);
        });
      }
    });
  });
  if (dweight) weight_sums.put_into(dweight);
}

}  // namespace weft::inline WEFT_ABI::kernels
