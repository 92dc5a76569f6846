// Where the documents of packed rows begin.
#pragma once

#include "weft/kernels/cpu/document_starts.hpp"
#include "weft/kernels/cuda/document_starts.hpp"
#include "weft/ops/contiguous.hpp"

namespace weft::inline WEFT_ABI {

/// For each position the one at which its document begins, as attention takes it: y[b,t] = the position after the last separator before t,
/// or 0. A separator is its document's last token. tokens (B, T) -> (B, T). Throws ShapeError. No gradient passes.
template <class D>
Tensor<std::int32_t, D> document_starts(const Tensor<std::int64_t, D>& tokens_BT, std::int64_t separator, Where where = here()) {
  Op op("document_starts", where);
  op.expect_rank("tokens (B, T)", tokens_BT.shape(), 2);
  const Tensor<std::int32_t, D> y_BT(tokens_BT.shape());
  if (y_BT.numel() > 0) kernels::document_starts(D{}, contiguous(tokens_BT, false, where), separator, y_BT);
  return y_BT;
}

}  // namespace weft::inline WEFT_ABI
