// Matrix products, batched, with transposed views as operands.
#pragma once

#include "weft/kernels/cpu/matmul.hpp"
#include "weft/kernels/cuda/matmul.hpp"
#include "weft/ops/broadcast.hpp"
#include "weft/ops/view.hpp"

namespace weft::inline WEFT_ABI {

namespace detail {
/// x's last two axes under leading axes that x's own broadcast to.
template <class T, class D>
In<T, D> batched(const Tensor<T, D>& x, const Shape& batch) {
  Shape shape = batch;
  shape.push_back(x.shape()[x.rank() - 2]);
  shape.push_back(x.shape()[x.rank() - 1]);
  return expanded(x, shape);
}

template <class T, class D>
In<T, D> transposed(In<T, D> x) {
  const Index r = x.shape.rank();
  std::swap(x.shape[r - 2], x.shape[r - 1]);
  std::swap(x.strides[r - 2], x.strides[r - 1]);
  return x;
}

/// c (+)= a b, where c is the gradient of any view: the kernel writes rows, so columns come from the transposed product.
template <class TA, class TB, class TC, class D>
void multiply_into(const Out<TC, D>& c, const In<TA, D>& a, const In<TB, D>& b) {
  const Index r = c.shape.rank();
  if (c.shape[r - 1] <= 1 || c.strides[r - 1] == 1) return kernels::matmul<TA, TB, TC>(D{}, a, b, c);
  if (c.shape[r - 2] <= 1 || c.strides[r - 2] == 1) {
    const In<TC, D> columns = transposed<TC, D>(c);
    return kernels::matmul<TB, TA, TC>(D{}, transposed(b), transposed(a), Out<TC, D>{c.data, columns.shape, columns.strides, c.beta});
  }
  const Tensor<TC, D> product(c.shape);
  kernels::matmul<TA, TB, TC>(D{}, a, b, product);
  kernels::map<kernels::Copy, TC, TC>(D{}, {}, c, product);
}

/// dx (+)= a b, summed over the batch axes along which x was repeated.
template <class T, class D>
void matmul_gradient(const Grad<T, D>& dx, const In<T, D>& a, const In<T, D>& b) {
  if (!dx) return;
  Shape full = a.shape;
  full[full.rank() - 1] = b.shape[b.shape.rank() - 1];
  if (dx.shape() == full) return multiply_into<T, T, T, D>(dx, a, b);
  const Tensor<T, D> product(full);
  kernels::matmul<T, T, T>(D{}, a, b, product);
  sum_to<kernels::Copy, T, D, T>(dx, {}, product);
}
}  // namespace detail

/// y = a b over the last two axes: a (..., M, K), b (..., K, N) -> (..., M, N); leading axes broadcast. Throws ShapeError.
/// Each element is summed along a fixed tree over K, in float for bf16 and f16.
template <class T, class D>
Tensor<T, D> matmul(const Tensor<T, D>& a, const Tensor<T, D>& b, Where where = here()) {
  static_assert(Real<T>, "weft: matmul takes float, double, bf16 or f16; cast integers first");
  Op op("matmul", where);
  op.one_gradient_at_a_time();
  if (a.rank() < 2 || b.rank() < 2)
    op.fail("expected matrices, got a " + to_string(a.shape()) + " and b " + to_string(b.shape()),
            "unsqueeze(x, axis) makes a matrix of a vector");
  const Index M = a.size(-2), K = a.size(-1), N = b.size(-1);
  if (b.size(-2) != K) {
    const bool fits = b.size(-1) == K;
    op.fail("expected the last axis of a to equal the last but one of b, got a " + to_string(a.shape()) + " and b " +
                to_string(b.shape()),
            fits ? "matmul(a, transpose(b)) would fit" : "");
  }
  Shape batch_a = a.shape(), batch_b = b.shape();
  for (int i = 0; i < 2; ++i) {
    batch_a.erase(batch_a.rank() - 1);
    batch_b.erase(batch_b.rank() - 1);
  }
  const Shape batch = detail::broadcast_shape(op, batch_a, batch_b);
  Shape shape = batch;
  shape.push_back(M);
  shape.push_back(N);
  Tensor<T, D> y(shape);
  kernels::matmul<T, T, T>(D{}, detail::batched(a, batch), detail::batched(b, batch), y);
  return op.record(y, [batch, a = op.save(a), b = op.save(b), da = op.grad_of(a), db = op.grad_of(b)](const Tensor<T, D>& dy) {
    detail::matmul_gradient<T, D>(da, dy, detail::transposed(detail::batched(b.get(), batch)));
    detail::matmul_gradient<T, D>(db, detail::transposed(detail::batched(a.get(), batch)), dy);
  });
}

}  // namespace weft::inline WEFT_ABI
