// Broadcasting: axes aligned at the last one, extents of 1 repeated; and its gradient, a sum over what was repeated.
#pragma once

#include "weft/kernels/cpu/reduce.hpp"
#include "weft/kernels/cuda/reduce.hpp"
#include "weft/tape/op.hpp"

namespace weft::inline WEFT_ABI::detail {

/// The common shape of two that broadcast. Throws ShapeError, naming the first axis that does not fit.
inline Shape broadcast_shape(const Op& op, const Shape& a, const Shape& b) {
  const Index rank = std::max(a.rank(), b.rank());
  Shape shape = Shape::filled(rank, 1);
  for (Index i = 1; i <= rank; ++i) {
    const Index m = i <= a.rank() ? a[a.rank() - i] : 1, n = i <= b.rank() ? b[b.rank() - i] : 1;
    if (m != n && m != 1 && n != 1)
      op.fail("expected shapes that broadcast, got a " + to_string(a) + " and b " + to_string(b) + ", which differ on axis -" +
                  std::to_string(i) + " (" + std::to_string(m) + " and " + std::to_string(n) + ")",
              "extents must be equal or 1, counted from the last axis; unsqueeze(x, axis) adds an axis of 1");
    shape[rank - i] = m == 1 ? n : m;
  }
  return shape;
}

/// x seen under a shape that it broadcasts to.
template <class T, class D>
In<T, D> expanded(const Tensor<T, D>& x, const Shape& shape) {
  In<T, D> in = x;
  Strides strides = Strides::filled(shape.rank(), 0);
  const Index lead = shape.rank() - x.rank();
  for (Index a = 0; a < x.rank(); ++a)
    if (x.shape()[a] == shape[a + lead]) strides[a + lead] = x.strides()[a];
  in.shape = shape;
  in.strides = strides;
  return in;
}

/// dx (+)= f(input, more...) summed over the axes along which x was repeated; the inputs have the op's full shape.
template <class F, class T, class D, class X, class... More>
void sum_to(const Grad<T, D>& dx, F f, const In<X, D>& input, const In<More, D>&... more) {
  if (!dx) return;
  Out<T, D> out = dx;
  if (out.shape == input.shape) return kernels::map<F, T, X, More...>(D{}, f, out, input, more...);
  while (out.shape.rank() < input.shape.rank()) {
    out.shape.insert(0, 1);
    out.strides.insert(0, 0);
  }
  kernels::map_sum<F, T, X, More...>(D{}, f, out, input, more...);
}

}  // namespace weft::inline WEFT_ABI::detail
