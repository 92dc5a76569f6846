// Views: other extents and strides of the same elements, without a copy. Gradients go straight into the viewed tensor's.
#pragma once

#include <array>

#include "weft/ops/contiguous.hpp"

namespace weft::inline WEFT_ABI {

namespace detail {
/// Strides of `to` over the elements of (from, strides) in row-major order; false where only a copy can have them.
inline bool reshape_strides(const Shape& from, const Strides& strides, const Shape& to, Strides& result) {
  result = row_major(to);
  if (is_contiguous(from, strides)) return true;
  Shape extents;  // without axes of extent 1, which have no step
  Strides steps;
  for (Index a = 0; a < from.rank(); ++a)
    if (from[a] != 1) {
      extents.push_back(from[a]);
      steps.push_back(strides[a]);
    }
  for (Index a = 0, b = 0; a < extents.rank();) {  // groups of axes with equal products
    Index last_a = a, last_b = b, product_a = extents[a], product_b = to[b];
    while (product_a != product_b)
      if (product_a < product_b) product_a *= extents[++last_a];
      else product_b *= to[++last_b];
    for (Index i = a; i < last_a; ++i)
      if (steps[i] != steps[i + 1] * extents[i + 1]) return false;
    Index step = steps[last_a];
    for (Index i = last_b; i >= b; step *= to[i--]) result[i] = step;
    a = last_a + 1;
    b = last_b + 1;
  }
  return true;
}
}  // namespace detail

/// The same elements in row-major order under other extents; one extent may be -1 (what is left). A view where the strides
/// allow it, else a copy. Throws ShapeError where the numbers of elements differ.
template <class T, class D>
Tensor<T, D> reshape(const Tensor<T, D>& x, Shape shape, Where where = here()) {
  Op op("reshape", where);
  Index known = 1, open = -1;
  for (Index a = 0; a < shape.rank(); ++a) {
    if (shape[a] >= 0) known *= shape[a];
    else if (shape[a] == -1 && open < 0) open = a;
    else op.fail("expected extents of at least 0 and at most one -1, got " + to_string(shape));
  }
  if (open >= 0) shape[open] = known > 0 ? x.numel() / known : 0;
  if (numel(shape) != x.numel())
    op.fail("expected a shape of " + std::to_string(x.numel()) + " elements for x " + to_string(x.shape()) + ", got " + to_string(shape));
  Strides strides;
  if (!detail::reshape_strides(x.shape(), x.strides(), shape, strides)) return reshape(contiguous(x, false, where), shape, where);
  return make_view(x, true, [&](const Shape& from, const Strides& layout) {
    Layout view{0, shape, {}};
    detail::reshape_strides(from, layout, shape, view.strides);
    return view;
  });
}

/// Axes in another order: y[i_axes[0], ...] . Throws ShapeError where `axes` is no permutation.
template <class T, class D>
Tensor<T, D> permute(const Tensor<T, D>& x, const Dims& axes, Where where = here()) {
  Op op("permute", where);
  bool seen[max_rank] = {};
  bool valid = axes.rank() == x.rank();
  for (Index a : axes) valid = valid && a >= 0 && a < x.rank() && !std::exchange(seen[a], true);
  if (!valid) op.fail("expected each axis of x " + to_string(x.shape()) + " once, got " + to_string(axes));
  return make_view(x, true, [&](const Shape& from, const Strides& layout) {
    Layout view;
    for (Index a : axes) {
      view.shape.push_back(from[a]);
      view.strides.push_back(layout[a]);
    }
    return view;
  });
}

/// Two axes exchanged; negative axes count from the end.
template <class T, class D>
Tensor<T, D> transpose(const Tensor<T, D>& x, Index first = -2, Index second = -1, Where where = here()) {
  first = normal_axis(first, x.rank(), "transpose", where);
  second = normal_axis(second, x.rank(), "transpose", where);
  return make_view(x, true, [&](const Shape& from, const Strides& layout) {
    Layout view{0, from, layout};
    std::swap(view.shape[first], view.shape[second]);
    std::swap(view.strides[first], view.strides[second]);
    return view;
  });
}

/// x[.., begin:end, ..] along one axis. Throws ShapeError where begin and end do not lie in order inside it.
template <class T, class D>
Tensor<T, D> slice(const Tensor<T, D>& x, Index axis, Index begin, Index end, Where where = here()) {
  Op op("slice", where);
  axis = op.axis(axis, x.rank());
  const Index extent = x.shape()[axis];
  if (begin < 0 || begin > end || end > extent)
    op.fail("expected 0 <= begin <= end <= " + std::to_string(extent) + " on axis " + std::to_string(axis) + " of x " +
            to_string(x.shape()) + ", got [" + std::to_string(begin) + ", " + std::to_string(end) + ")");
  return make_view(x, begin == 0 && end == extent, [&](const Shape& from, const Strides& layout) {
    Layout view{begin * layout[axis], from, layout};
    view.shape[axis] = end - begin;
    return view;
  });
}

/// Without an axis of extent 1. Throws ShapeError where its extent is another.
template <class T, class D>
Tensor<T, D> squeeze(const Tensor<T, D>& x, Index axis, Where where = here()) {
  Op op("squeeze", where);
  axis = op.axis(axis, x.rank());
  if (x.shape()[axis] != 1) op.fail("expected extent 1 on axis " + std::to_string(axis) + ", got x " + to_string(x.shape()));
  return make_view(x, true, [&](const Shape& from, const Strides& layout) {
    Layout view{0, from, layout};
    view.shape.erase(axis);
    view.strides.erase(axis);
    return view;
  });
}

/// x[.., index, ..]: one position along an axis, which disappears.
template <class T, class D>
Tensor<T, D> select(const Tensor<T, D>& x, Index axis, Index index, Where where = here()) {
  axis = normal_axis(axis, x.rank(), "select", where);
  return squeeze(slice(x, axis, index, index + 1, where), axis, where);
}

/// With a new axis of extent 1 before `axis`.
template <class T, class D>
Tensor<T, D> unsqueeze(const Tensor<T, D>& x, Index axis, Where where = here()) {
  axis = normal_axis(axis, x.rank() + 1, "unsqueeze", where);
  return make_view(x, true, [&](const Shape& from, const Strides& layout) {
    Layout view{0, from, layout};
    view.shape.insert(axis, 1);
    view.strides.insert(axis, 1);
    return view;
  });
}

/// Cut along an axis into parts of these extents, whose gradients share one buffer: `auto [q, k] = split(x, {H, K}, 2)`. Throws
/// ShapeError where they do not sum to the axis' extent.
template <class T, class D, std::size_t N>
std::array<Tensor<T, D>, N> split(const Tensor<T, D>& x, const Index (&extents)[N], Index axis = -1, Where where = here()) {
  static_assert(N <= Parts::max, "weft: split makes at most 16 parts");
  Op op("split", where);
  axis = op.axis(axis, x.rank());
  Index total = 0;
  for (Index extent : extents) total += extent;
  if (total != x.shape()[axis])
    op.fail("expected extents that sum to " + std::to_string(x.shape()[axis]) + ", the extent of axis " + std::to_string(axis) +
            " of x " + to_string(x.shape()) + ", got a sum of " + std::to_string(total));
  const bool share = x.slot() && x.slot()->covers && !x.slot()->parts;  // every element of the gradient is in one part
  const Ref<Parts> parts = share ? Ref<Parts>::make() : Ref<Parts>();
  std::array<Tensor<T, D>, N> result;
  Index begin = 0;
  for (std::size_t i = 0; i < N; begin += extents[i++]) {
    result[i] = slice(x, axis, begin, begin + extents[i], where);
    if (!share) continue;
    Slot& slot = *result[i].slot();
    parts->part[parts->count++] = {slot.shape, slot.strides, slot.offset, false};
    slot.covers = false;
    slot.parts = parts;
    slot.part = static_cast<int>(i);
  }
  return result;
}

/// With axes of extent 1 repeated to `shape` by stride 0, aligned at the last axis. The gradient is summed back.
template <class T, class D>
Tensor<T, D> expand(const Tensor<T, D>& x, const Shape& shape, Where where = here()) {
  Op op("expand", where);
  const Index lead = shape.rank() - x.rank();
  Strides strides = Strides::filled(shape.rank(), 0);
  Shape aligned = Shape::filled(shape.rank(), 1);
  bool valid = lead >= 0;
  for (Index a = 0; valid && a < x.rank(); ++a) {
    aligned[a + lead] = x.shape()[a];
    valid = x.shape()[a] == shape[a + lead] || x.shape()[a] == 1;
    if (x.shape()[a] == shape[a + lead]) strides[a + lead] = x.strides()[a];
  }
  if (!valid) op.fail("expected a shape that x " + to_string(x.shape()) + " broadcasts to, got " + to_string(shape));
  Tensor<T, D> y(x.storage(), x.offset(), shape, strides);
  if constexpr (Real<T>) {
    const Tensor<T, D> source = reshape(x, aligned, where);
    return op.record(y, [dx = op.grad_of(source)](const Tensor<T, D>& dy) { kernels::map_sum<kernels::Copy, T, T>(D{}, {}, dx, dy); });
  }
  return y;
}

}  // namespace weft::inline WEFT_ABI
