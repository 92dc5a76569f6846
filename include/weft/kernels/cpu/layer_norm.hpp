// Layer normalisation over the last axis, and its gradient. Ba, Kiros and Hinton 2016.
#pragma once

#include "weft/kernels/cpu/rows.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace detail {
/// The forward for rows that are there, or that are made when they are asked for.
template <class T, class W, class FromRows>
void layer_norm_rows(FromRows x_rows, const Shape& shape, const In<W, cpu>& weight, const In<W, cpu>& bias, double eps, const Out<T, cpu>& y,
                     stat_t<T>* means, stat_t<T>* rstds) {
  using S = stat_t<T>;
  const Index N = row_count(shape), C = row_width(shape);
  const Scratch<S> affine(2 * C);
  S *const w = affine.data(), *const b = w + C;
  widen(weight, C, S(1), w);
  widen(bias, C, S(0), b);
  const Rows<T> y_rows = rows(y);
  const S count = static_cast<S>(C), small = static_cast<S>(eps);
  const int beta = y.beta;

  parallel_ranges(N, rows_a_piece(N, C), [&](Index begin, Index end) {
    simd([=]() WEFT_INLINE {
      for (Index n = begin; n < end; ++n) {
        const T* const xn = x_rows[n];
        const S mean = sum_row<S>(C, [=](Index c) WEFT_INLINE { return static_cast<S>(xn[c]); }) / count;
        const S squares = sum_row<S>(C, [=](Index c) WEFT_INLINE {
          const S d = static_cast<S>(xn[c]) - mean;
          return d * d;
        });
        const S rstd = 1 / std::sqrt(squares / count + small);
        if (means != nullptr) means[n] = mean;
        if (rstds != nullptr) rstds[n] = rstd;
        if (y_rows)
          put_row(y_rows[n], 0, C, beta,
                  [=](Index c) WEFT_INLINE { return std::fma((static_cast<S>(xn[c]) - mean) * rstd, w[c], b[c]); });
      }
    });
  });
}
}  // namespace detail

/// y = (x - mean) * rstd * weight + bias, rstd = 1 / sqrt(var + eps), over the last axis; the variance is the mean of
/// the squared distances from the mean (two passes). x, y (..., C) with last stride 1; weight, bias (C), each may be
/// absent (then 1 and 0); mean_N, rstd_N (N) contiguous, overwritten.
template <class T, class W>
void layer_norm_forward(cpu, In<T, cpu> x, In<W, cpu> weight, In<W, cpu> bias, double eps, Out<T, cpu> y,
                        Out<stat_t<T>, cpu> mean_N, Out<stat_t<T>, cpu> rstd_N) {
  detail::layer_norm_rows<T, W>(rows(x), x.shape, weight, bias, eps, y, mean_N.data, rstd_N.data);
}

/// The same of s = x + r, which is written too. r, s (..., C) with last stride 1, all of one shape; s is no part of x, r or y.
template <class T, class W>
void add_layer_norm_forward(cpu, In<T, cpu> x, In<T, cpu> r, In<W, cpu> weight, In<W, cpu> bias, double eps, Out<T, cpu> s,
                            Out<T, cpu> y, Out<stat_t<T>, cpu> mean_N, Out<stat_t<T>, cpu> rstd_N) {
  detail::layer_norm_rows<T, W>(SumRows<T>{rows(x), rows(r), rows(s), row_width(x.shape)}, x.shape, weight, bias, eps, y, mean_N.data,
                                rstd_N.data);
}

/// With xhat = (x - mean) * rstd and g = dy * weight:
///   dx = rstd * (g - mean(g) - xhat * mean(g * xhat)), dweight = sum of dy * xhat over rows, dbias = sum of dy.
/// dy, x, dx (..., C) with last stride 1; weight (C) may be absent; dweight, dbias (C).
template <class T, class W>
void layer_norm_backward(cpu, In<T, cpu> dy, In<T, cpu> x, In<W, cpu> weight, In<stat_t<T>, cpu> mean_N,
                         In<stat_t<T>, cpu> rstd_N, Out<T, cpu> dx, Out<param_grad_t<W>, cpu> dweight,
                         Out<param_grad_t<W>, cpu> dbias) {
  using S = stat_t<T>;
  const Index N = row_count(x.shape), C = row_width(x.shape);
  const bool sums = dweight || dbias;
  const Scratch<S> wide(C);
  S* const w = wide.data();
  widen(weight, C, S(1), w);
  const ColumnSums<S> weight_sums(sums ? N : 0, C), bias_sums(sums ? N : 0, C);
  const Rows<const T> dy_rows = rows(dy), x_rows = rows(x);
  const Rows<T> dx_rows = rows(dx);
  const S *const means = mean_N.data, *const rstds = rstd_N.data;
  const S count = static_cast<S>(C);
  const int beta = dx.beta;

  parallel_ranges(N, sums ? weight_sums.height() : rows_a_piece(N, C), [&](Index begin, Index end) {
    S* const dw = sums ? weight_sums.line(begin / weight_sums.height()) : nullptr;
    S* const db = sums ? bias_sums.line(begin / bias_sums.height()) : nullptr;
    simd([=]() WEFT_INLINE {
      for (Index n = begin; n < end; ++n) {
        const T *const dyn = dy_rows[n], *const xn = x_rows[n];
        const S mean = means[n], rstd = rstds[n];
        if (dw != nullptr) {
          if (n == begin) {
#pragma omp simd
            for (Index c = 0; c < C; ++c) dw[c] = db[c] = 0;
          }
#pragma omp simd
          for (Index c = 0; c < C; ++c) {
            const S g = static_cast<S>(dyn[c]);
            dw[c] = std::fma(g, (static_cast<S>(xn[c]) - mean) * rstd, dw[c]);
            db[c] += g;
          }
        }
        if (!dx_rows) continue;
        const S g_mean = sum_row<S>(C, [=](Index c) WEFT_INLINE { return static_cast<S>(dyn[c]) * w[c]; }) / count;
        const S gx_mean = sum_row<S>(C,
                                     [=](Index c) WEFT_INLINE {
                                       return static_cast<S>(dyn[c]) * w[c] * ((static_cast<S>(xn[c]) - mean) * rstd);
                                     }) /
                          count;
        put_row(dx_rows[n], 0, C, beta, [=](Index c) WEFT_INLINE {
          const S xhat = (static_cast<S>(xn[c]) - mean) * rstd;
          return rstd * (std::fma(static_cast<S>(dyn[c]), w[c], -g_mean) - xhat * gx_mean);
        });
      }
    });
  });
  if (dweight) weight_sums.put_into(dweight);
  if (dbias) bias_sums.put_into(dbias);
}

}  // namespace weft::inline WEFT_ABI::kernels
