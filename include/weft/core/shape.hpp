// Extents and strides of up to 8 axes, held inline, and the arithmetic on them that never overflows silently.
#pragma once

#include <initializer_list>
#include <span>
#include <string>

#include "weft/core/error.hpp"

namespace weft::inline WEFT_ABI {

inline constexpr Index max_rank = 8;

/// A short list of axis values: extents (then it is a shape) or strides in elements.
class Dims {
 public:
  constexpr Dims() = default;
  constexpr Dims(std::initializer_list<Index> values) : Dims(std::span<const Index>(values.begin(), values.size())) {}
  WEFT_OUTLINE constexpr explicit Dims(std::span<const Index> values) {
    if (values.size() > max_rank) throw ShapeError("[shape] expected at most 8 axes, got " + std::to_string(values.size()));
    for (Index v : values) values_[rank_++] = v;
  }
  static constexpr Dims filled(Index rank, Index value) {
    Dims d;
    for (Index a = 0; a < rank; ++a) d.push_back(value);
    return d;
  }

  constexpr Index rank() const { return rank_; }
  constexpr Index& operator[](Index axis) { return values_[axis]; }
  constexpr Index operator[](Index axis) const { return values_[axis]; }
  constexpr Index back() const { return values_[rank_ - 1]; }
  constexpr const Index* begin() const { return values_; }
  constexpr const Index* end() const { return values_ + rank_; }
  WEFT_OUTLINE constexpr void push_back(Index value) {
    if (rank_ == max_rank) throw ShapeError("[shape] expected at most 8 axes, got 9");
    values_[rank_++] = value;
  }
  WEFT_OUTLINE constexpr void insert(Index axis, Index value) {
    push_back(value);
    for (Index a = rank_ - 1; a > axis; --a) values_[a] = values_[a - 1];
    values_[axis] = value;
  }
  WEFT_OUTLINE constexpr void erase(Index axis) {
    for (Index a = axis; a + 1 < rank_; ++a) values_[a] = values_[a + 1];
    --rank_;
  }
  WEFT_OUTLINE friend constexpr bool operator==(const Dims& a, const Dims& b) {
    if (a.rank_ != b.rank_) return false;
    for (Index i = 0; i < a.rank_; ++i)
      if (a[i] != b[i]) return false;
    return true;
  }

 private:
  Index rank_ = 0;
  Index values_[max_rank] = {};
};

using Shape = Dims;
using Strides = Dims;

/// The product of the extents; 1 for a scalar. Throws ShapeError where an extent is negative or the product overflows.
WEFT_OUTLINE constexpr Index numel(const Shape& shape) {
  Index n = 1;
  bool empty = false;
  for (Index extent : shape) {
    if (extent < 0) throw ShapeError("[shape] expected extents of at least 0, got " + std::to_string(extent));
    if (extent == 0) empty = true;
    else if (__builtin_mul_overflow(n, extent, &n)) throw ShapeError("[shape] the number of elements overflows 63 bits");
  }
  return empty ? 0 : n;
}

/// The product of all extents but the last: the number of rows.
constexpr Index leading(Shape shape) {
  if (shape.rank() > 0) shape.erase(shape.rank() - 1);
  return numel(shape);
}

/// Row-major strides, in elements: the last axis is the fastest.
WEFT_OUTLINE constexpr Strides row_major(const Shape& shape) {
  Strides strides = shape;
  Index step = 1;
  for (Index a = shape.rank() - 1; a >= 0; --a) {
    strides[a] = step;
    step *= shape[a] > 0 ? shape[a] : 1;
  }
  return strides;
}

/// True iff the elements lie one after the other in row-major order.
WEFT_OUTLINE constexpr bool is_contiguous(const Shape& shape, const Strides& strides) {
  Index step = 1;
  for (Index a = shape.rank() - 1; a >= 0; --a) {
    if (shape[a] == 0) return true;
    if (shape[a] != 1 && strides[a] != step) return false;
    step *= shape[a];
  }
  return true;
}

/// "(2, 3)"; "()" for a scalar.
WEFT_OUTLINE inline std::string to_string(const Dims& dims) {
  std::string text = "(";
  for (Index a = 0; a < dims.rank(); ++a) text += (a ? ", " : "") + std::to_string(dims[a]);
  return text + ")";
}

}  // namespace weft::inline WEFT_ABI
