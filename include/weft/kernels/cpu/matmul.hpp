// Matrix multiplication on the CPU: plain, batched, and grouped by expert, for real types. The bits of an
// element depend on its row, its column and K alone, of float on tile registers also on which comes first (kernels/cpu/gemm.hpp).
#pragma once

#include <cassert>
#include <utility>

#include "weft/kernels/cpu/gemm_each.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace gemm {

template <class TA, class TB, class TC>
inline constexpr bool types_fit = std::is_same_v<stat_t<TA>, stat_t<TC>> && std::is_same_v<stat_t<TB>, stat_t<TC>>;

/// The offset of the i-th matrix of a batch.
inline Index batch_offset(const Shape& shape, const Strides& strides, Index i) {
  Index offset = 0;
  for (Index axis = shape.rank() - 3; axis >= 0; --axis) {
    offset += i % shape[axis] * strides[axis];
    i /= shape[axis];
  }
  return offset;
}

}  // namespace gemm

/// c (..., M, N) (+)= a (..., M, K) b (..., K, N) [+ bias (N)]. The leading axes of all three are equal, with strides
/// of 0 where one was expanded. a and b may have any strides; c's last axis and bias have stride 1 (or extent <= 1).
/// Types: all double, or any of float, bf16 and f16, summed in float and rounded once. K = 0 gives zeros plus bias. With
/// beta 1 the whole sum is added once.
template <class TA, class TB, class TC>
void matmul(cpu, In<TA, cpu> a, In<TB, cpu> b, Out<TC, cpu> c, In<TB, cpu> bias = {}) {
  static_assert(gemm::types_fit<TA, TB, TC>, "weft: matmul takes all double, or float, bf16 and f16");
  if (!c) return;
  // A batch of rows times one matrix is one larger product.
  while (c.shape.rank() > 2) {
    const Index x = c.shape.rank() - 3, batch = c.shape[x], M = c.shape[x + 1];
    const auto merges = [&](const Strides& s) { return M == 1 || batch == 1 || s[x] == M * s[x + 1]; };
    if (!(batch == 1 || b.strides[x] == 0) || !merges(a.strides) || !merges(c.strides)) break;
    for (auto [shape, strides] : {std::pair{&a.shape, &a.strides}, std::pair{&c.shape, &c.strides}}) {
      (*shape)[x + 1] *= batch;
      if (M == 1) (*strides)[x + 1] = (*strides)[x];
      shape->erase(x);
      strides->erase(x);
    }
    b.shape.erase(x);
    b.strides.erase(x);
  }
  const Index x = c.shape.rank() - 2, M = c.shape[x], N = c.shape[x + 1], K = a.shape[x + 1];
  assert(a.shape.rank() == x + 2 && a.shape[x] == M);
  assert(b.shape.rank() == x + 2 && b.shape[x] == K && b.shape[x + 1] == N);
  assert(N <= 1 || c.strides[x + 1] == 1);
  Index batch = 1;
  for (Index axis = 0; axis < x; ++axis) batch *= c.shape[axis];
  gemm::multiply(batch, M, N, K, [&](Index i) {
    return gemm::Problem<TA, TB, TC>{M, N, K,
                                     a.data + gemm::batch_offset(a.shape, a.strides, i), a.strides[x], a.strides[x + 1],
                                     b.data + gemm::batch_offset(b.shape, b.strides, i), b.strides[x], b.strides[x + 1],
                                     bias.data,
                                     c.data + gemm::batch_offset(c.shape, c.strides, i), c.strides[x], c.beta};
  });
}

/// Mixture of experts: the rows offsets[e] .. offsets[e + 1] of x (N, K) belong to expert e, and y (N, M) (+)= x w[e]
/// for these. w (E, K, M), x and w of any strides; offsets (E + 1) rising, contiguous; y's last axis has stride 1. Rows
/// outside all ranges are left alone.
template <class TA, class TB, class TC>
void grouped_matmul(cpu, In<TA, cpu> x, In<TB, cpu> w, In<std::int64_t, cpu> offsets, Out<TC, cpu> y) {
  static_assert(gemm::types_fit<TA, TB, TC>, "weft: grouped_matmul takes all double, or float, bf16 and f16");
  if (!y) return;
  const Index E = w.shape[0], K = w.shape[1], M = w.shape[2];
  assert(x.shape[1] == K && y.shape[1] == M && y.shape[0] == x.shape[0] && offsets.numel() == E + 1);
  assert(M <= 1 || y.strides[1] == 1);
  gemm::multiply_each(E, [&](Index e) {
    const Index row = offsets.data[e];
    return gemm::Problem<TA, TB, TC>{offsets.data[e + 1] - row, M, K, x.data + row * x.strides[0], x.strides[0], x.strides[1],
                                     w.data + e * w.strides[0], w.strides[1], w.strides[2], nullptr, y.data + row * y.strides[0], y.strides[0], y.beta};
  });
}

/// dw[e] (K, M) (+)= x[rows]^T dy[rows] over the rows of expert e. x (N, K) and dy (N, M) of any strides; dw (E, K, M)
/// with stride 1 on one of its last two axes. An expert without rows gets zeros (beta 0) or keeps what it has (beta 1).
template <class TA, class TB, class TC>
void grouped_matmul_weight_gradient(cpu, In<TA, cpu> x, In<TB, cpu> dy, In<std::int64_t, cpu> offsets,
                                    Out<TC, cpu> dw) {
  static_assert(gemm::types_fit<TA, TB, TC>, "weft: the grouped gradient takes all double, or float, bf16 and f16");
  if (!dw) return;
  if (dw.shape[2] > 1 && dw.strides[2] != 1) {  // then dw^T = dy^T x
    std::swap(dw.shape[1], dw.shape[2]);
    std::swap(dw.strides[1], dw.strides[2]);
    return grouped_matmul_weight_gradient<TB, TA, TC>(cpu{}, dy, x, offsets, dw);
  }
  const Index E = dw.shape[0], K = dw.shape[1], M = dw.shape[2];
  assert(x.shape[1] == K && dy.shape[1] == M && dy.shape[0] == x.shape[0] && offsets.numel() == E + 1);
  gemm::multiply_each(E, [&](Index e) {
    const Index row = offsets.data[e];
    return gemm::Problem<TA, TB, TC>{K, M, offsets.data[e + 1] - row, x.data + row * x.strides[0], x.strides[1], x.strides[0],
                                     dy.data + row * dy.strides[0], dy.strides[0], dy.strides[1], nullptr, dw.data + e * dw.strides[0], dw.strides[1], dw.beta};
  });
}

}  // namespace weft::inline WEFT_ABI::kernels
