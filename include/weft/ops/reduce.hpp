// What reductions over axes share: which axes, the shape that is left, and a result seen under the input's shape.
#pragma once

#include "weft/ops/broadcast.hpp"
#include "weft/ops/view.hpp"

namespace weft::inline WEFT_ABI::detail {

/// The axes of a reduction; none given means all.
struct Reduction {
  bool reduced[max_rank] = {};
  Shape kept;   ///< with extent 1 where reduced
  Shape left;   ///< without the reduced axes
  Index count;  ///< elements that each result comes from

  Reduction(const Op& op, const Shape& shape, const Dims& axes) : kept(shape), count(1) {
    for (Index a : axes) {
      const Index n = op.axis(a, shape.rank());
      if (std::exchange(reduced[n], true)) op.fail("expected each axis once, got " + to_string(axes));
    }
    for (Index a = 0; a < shape.rank(); ++a) {
      if (axes.rank() == 0) reduced[a] = true;
      if (reduced[a]) {
        count *= shape[a];
        kept[a] = 1;
      } else {
        left.push_back(shape[a]);
      }
    }
  }
  const Shape& shape(bool keep) const { return keep ? kept : left; }
};

/// y, which came from a reduction of `shape`, seen under that shape.
template <class T, class D>
In<T, D> spread(const Tensor<T, D>& y, const Reduction& r, const Shape& shape) {
  return expanded(Tensor<T, D>(y.storage(), y.offset(), r.kept, row_major(r.kept)), shape);
}

}  // namespace weft::inline WEFT_ABI::detail
