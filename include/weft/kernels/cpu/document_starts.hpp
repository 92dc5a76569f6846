// Where the documents of packed rows begin.
#pragma once

#include "weft/core/parallel.hpp"
#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// y[b,t] = the position after the last separator before t, or 0. tokens and y (B, T), contiguous.
inline void document_starts(cpu, In<std::int64_t, cpu> tokens, std::int64_t separator, Out<std::int32_t, cpu> y) {
  const Index T = tokens.shape[1];
  parallel(tokens.shape[0], [&](Index b) {
    const std::int64_t* const row = tokens.data + b * T;
    std::int32_t* const to = y.data + b * T;
    Index start = 0;
    for (Index t = 0; t < T; ++t) {
      to[t] = static_cast<std::int32_t>(start);
      if (row[t] == separator) start = t + 1;
    }
  });
}

}  // namespace weft::inline WEFT_ABI::kernels
