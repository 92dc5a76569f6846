// Scaled dot-product attention with grouped queries, which never stores T x T.
#pragma once

#include "weft/kernels/cpu/attention.hpp"
#include "weft/kernels/cuda/attention.hpp"
#include "weft/kernels/cuda/expect.hpp"
#include "weft/ops/contiguous.hpp"

namespace weft::inline WEFT_ABI {

using kernels::AttentionOptions;

namespace detail {
/// Contiguous starts (B, Tk). Throws ShapeError where one is neither its own position nor the one before it; on the GPU, for which the host
/// does not wait, when it next does (gpu::Fault).
template <class D>
Tensor<std::int32_t, D> expect_starts(const Op& op, const Tensor<std::int32_t, D>& starts, Index B, Index Tk) {
  op.expect_shape("document starts", starts.shape(), {B, Tk});
  gpu::Fault wrong{.op = op.name(), .line = users_line(op.where(), current_scope()), .path = current_scope().path, .extent = Tk};
  wrong.raise = [](const gpu::Fault& f) {
    throw ShapeError(error_text(f.op, "expected each document start to be its own position, where a document begins, or the one before it, got " +
                                          std::to_string(f.value) + " at position " + std::to_string(f.position % f.extent) + " of row " +
                                          std::to_string(f.position / f.extent),
                                f.line, "document_starts(tokens, separator) makes them", {{}, f.path}));
  };
  const Tensor<std::int32_t, D> rows = contiguous(starts, false, op.where());
  if constexpr (std::is_same_v<D, cpu>) {
    const std::int32_t* const at = rows.numel() > 0 ? rows.data() : nullptr;
    for (Index i = 0; i < rows.numel(); ++i) {
      const Index t = i % Tk;
      wrong.position = i, wrong.value = at[i];
      if (at[i] != t && (t == 0 || at[i] != at[i - 1])) wrong.raise(wrong);
    }
  } else {
    kernels::expect_starts(D{}, rows, wrong);
  }
  return rows;
}
}  // namespace detail

/// y[b,i,h] = sum over j of softmax_j(scale q[b,i,h] . k[b,j,g]) v[b,j,g], g = h / (H / K). q (B, Tq, H, D), k and v (B, Tk, K, D),
/// H a multiple of K -> (B, Tq, H, D). causal: query i sees keys j <= i + Tk - Tq, so that with a cache the last query sees all.
/// window w: it sees only the last w of these, itself among them (Mistral's sliding window: Jiang et al. 2023). starts (B, Tk), where rows
/// hold several documents: for each position the one at which its document begins (document_starts makes them), and a query sees only keys
/// of its own. Both need causal; blocks that nobody sees cost nothing. Keeps q, k, v, y and one number a query. Throws ShapeError,
/// ValueError. Vaswani et al. 2017; Ainslie et al. 2023; Dao 2023.
template <class T, class D>
Tensor<T, D> attention(const Tensor<T, D>& q, const Tensor<T, D>& k, const Tensor<T, D>& v, AttentionOptions options = {},
                       const std::type_identity_t<Tensor<std::int32_t, D>>& starts = {}, Where where = here()) {
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
  if (options.window < 0) op.fail<ValueError>("expected a window of at least 0, got " + std::to_string(options.window));
  if (!options.causal && (options.window > 0 || starts.defined()))
    op.fail<ValueError>("expected causal attention where there is a window or where rows hold documents, got causal false");
  if (options.window >= k.size(1)) options.window = 0;  // it hides nothing
  const Tensor<std::int32_t, D> from = starts.defined() ? detail::expect_starts(op, starts, k.size(0), k.size(1)) : starts;
  const auto rows = [&](const Tensor<T, D>& x) { return x.strides().back() == 1 ? x : contiguous(x, false, where); };
  const Tensor<T, D> qr = rows(q), kr = rows(k), vr = rows(v);
  Tensor<T, D> y_BTHD = like(q);
  const Tensor<stat_t<T>, D> lse_BHT({q.size(0), q.size(2), q.size(1)});
  kernels::attention_forward<T>(D{}, qr, kr, vr, y_BTHD, lse_BHT, options, from);
  return op.record(y_BTHD, [options, from = op.save(from), q = op.save(qr), k = op.save(kr), v = op.save(vr), y = op.save(y_BTHD),
                            lse = op.save(lse_BHT), dq = op.grad_of(qr), dk = op.grad_of(kr), dv = op.grad_of(vr)](const Tensor<T, D>& dy) {
    kernels::attention_backward<T>(D{}, dy, q, k, v, y, lse, dq, dk, dv, options, from);
  });
}

}  // namespace weft::inline WEFT_ABI
