// Cross entropy of logits against labels, summed over the labels that count, and its gradient.
#pragma once

#include "weft/kernels/cpu/rows.hpp"
#include "weft/kernels/math.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// sum = the sum over rows whose label is not `ignore` of lse - logit[label], lse = log sum exp(logits). logits (N, V)
/// with last stride 1; labels (N) contiguous, in [0, V) or `ignore`; lse_N (N) contiguous, overwritten, 0 in ignored
/// rows; sum a scalar, kept in double until it is stored.
template <class T>
void cross_entropy_forward(cpu, In<T, cpu> logits, In<std::int64_t, cpu> labels, Index ignore,
                           Out<stat_t<T>, cpu> lse_N, Out<stat_t<T>, cpu> sum) {
  using S = stat_t<T>;
  const Index N = row_count(logits.shape), V = row_width(logits.shape);
  const Rows<const T> logit_rows = rows(logits);
  const std::int64_t* const label = labels.data;
  S* const lses = lse_N.data;
  const Scratch<double> losses(N);
  double* const loss = losses.data();
  parallel_ranges(N, rows_a_piece(N, V), [&](Index begin, Index end) {
    simd([=]() WEFT_INLINE {
      for (Index n = begin; n < end; ++n) {
        S lse = 0;
        loss[n] = 0;
        if (label[n] != ignore) {
          assert(label[n] >= 0 && label[n] < V);
          const T* const z = logit_rows[n];
          const S top = max_row<S>(V, [=](Index v) WEFT_INLINE { return static_cast<S>(z[v]); });
          lse = top +
                math::log(sum_row<S>(V, [=](Index v) WEFT_INLINE { return math::exp(static_cast<S>(z[v]) - top); }));
          loss[n] = static_cast<double>(lse - static_cast<S>(z[label[n]]));
        }
        if (lses != nullptr) lses[n] = lse;
      }
    });
  });
  if (sum) put(*sum.data, static_cast<S>(tree_sum(loss, N)), sum.beta);
}

/// dlogits = (softmax(logits) - onehot(label)) * dsum; zero in ignored rows. dsum is a scalar on the device.
template <class T>
void cross_entropy_backward(cpu, In<stat_t<T>, cpu> dsum, In<T, cpu> logits, In<std::int64_t, cpu> labels, Index ignore,
                            In<stat_t<T>, cpu> lse_N, Out<T, cpu> dlogits) {
  using S = stat_t<T>;
  if (!dlogits) return;
  const Index N = row_count(logits.shape), V = row_width(logits.shape);
  const Rows<const T> logit_rows = rows(logits);
  const Rows<T> dlogit_rows = rows(dlogits);
  const std::int64_t* const label = labels.data;
  const S *const lses = lse_N.data, *const scale = dsum.data;
  const int beta = dlogits.beta;
  parallel_ranges(N, rows_a_piece(N, V), [&](Index begin, Index end) {
    simd([=]() WEFT_INLINE {
      const S d = *scale;
      for (Index n = begin; n < end; ++n) {
        T* const dz = dlogit_rows[n];
        if (label[n] == ignore) {
          put_row(dz, 0, V, beta, [](Index) WEFT_INLINE { return S(0); });
          continue;
        }
        const T* const z = logit_rows[n];
        const S lse = lses[n];
        const Index at = label[n];
        put_row(dz, 0, V, beta, [=](Index v) WEFT_INLINE {
          return (math::exp(static_cast<S>(z[v]) - lse) - (v == at ? S(1) : S(0))) * d;
        });
      }
    });
  });
}

}  // namespace weft::inline WEFT_ABI::kernels
