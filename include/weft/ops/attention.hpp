// Scaled dot-product attention with grouped queries, which never stores T x T.
#pragma once

#include "weft/kernels/cpu/attention.hpp"
#include "weft/kernels/cuda/attention.hpp"
#include "weft/ops/contiguous.hpp"

namespace weft::inline WEFT_ABI {

using kernels::AttentionOptions;

/// y[b,i,h] = sum over j of softmax_j(scale q[b,i,h] . k[b,j,g]) v[b,j,g], g = h / (H / K). q (B, Tq, H, D), k and v (B, Tk, K, D),
/// H a multiple of K -> (B, Tq, H, D). causal: query i sees keys j <= i + Tk - Tq, so that with a cache the last query sees all.
/// Keeps q, k, v, y and one number a query. Throws ShapeError. Vaswani et al. 2017; Ainslie et al. 2023; Dao 2023.
template <class T, class D>
Tensor<T, D> attention(const Tensor<T, D>& q, const Tensor<T, D>& k, const Tensor<T, D>& v, AttentionOptions options = {},
                       Where where = here()) {
  Op op("attention", where);
  op.expect_rank("q (B, Tq, H, D)", q.shape(), 4);
  op.expect_rank("k (B, Tk, K, D)", k.shape(), 4);
  op.expect_shape("v", v.shape(), k.shape());
  const auto mismatch = [&](const char* expected) { op.fail(expected + (", got q " + to_string(q.shape()) + " and k " + to_string(k.shape()))); };
  if (q.size(0) != k.size(0)) mismatch("expected one batch extent");
  if (q.size(3) != k.size(3)) mismatch("expected one head width");
  if (k.size(2) < 1 || q.size(2) % k.size(2) != 0)
    mismatch("expected the number of query heads to be a multiple of the number of key heads");
  if (options.causal && q.size(1) > k.size(1)) mismatch("expected at most as many queries as keys under a causal mask");
  if (k.size(1) == 0 && q.numel() > 0) mismatch("expected at least one key");
  const auto rows = [&](const Tensor<T, D>& x) { return x.strides().back() == 1 ? x : contiguous(x, false, where); };
  const Tensor<T, D> qr = rows(q), kr = rows(k), vr = rows(v);
  Tensor<T, D> y_BTHD = like(q);
  const Tensor<stat_t<T>, D> lse_BHT({q.size(0), q.size(2), q.size(1)});
  kernels::attention_forward<T>(D{}, qr, kr, vr, y_BTHD, lse_BHT, options);
  return op.record(y_BTHD, [options, q = op.save(qr), k = op.save(kr), v = op.save(vr), y = op.save(y_BTHD), lse = op.save(lse_BHT),
                            dq = op.grad_of(qr), dk = op.grad_of(kr), dv = op.grad_of(vr)](const Tensor<T, D>& dy) {
    kernels::attention_backward<T>(D{}, dy, q, k, v, y, lse, dq, dk, dv, options);
  });
}

}  // namespace weft::inline WEFT_ABI
