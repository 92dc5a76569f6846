// Arrays in several memory layouts, and loops over their coordinates, for the tests of elementwise kernels.
#pragma once

#include "support.hpp"
#include "weft/core/view.hpp"

namespace weft::test {

/// Row-major; the first axis fastest; row-major with a gap after each element.
enum class Layout { rows, reversed, gaps };

template <class T>
struct Array {
  Shape shape;
  Strides strides;
  std::vector<T> data;
  Index n = 0;  // size of data; std::vector<bool> has no data()

  Array(Shape s, Layout layout = Layout::rows) : shape(s), strides(s) {
    Index step = layout == Layout::gaps ? 2 : 1;
    for (Index i = 0; i < s.rank(); ++i) {
      const Index a = layout == Layout::reversed ? i : s.rank() - 1 - i;
      strides[a] = step;
      step *= std::max<Index>(1, s[a]);
    }
    n = std::max<Index>(1, step);
    data.resize(static_cast<std::size_t>(n));
  }
  static Array random(Shape s, Layout layout = Layout::rows, std::uint64_t seed = 1, double low = -2, double high = 2) {
    Array array(s, layout);
    const auto values = uniform<float>(array.n, low, high, seed);
    for (std::size_t i = 0; i < array.data.size(); ++i) array.data[i] = static_cast<T>(values[i]);
    return array;
  }

  In<T, cpu> in() const { return {data.data(), shape, strides}; }
  Out<T, cpu> out(int beta = 0) { return {data.data(), shape, strides, beta}; }
  /// The same values read with `full`'s extents, stride 0 where this array's extent is 1.
  In<T, cpu> broadcast(const Shape& full) const {
    Strides s = strides;
    for (Index a = 0; a < full.rank(); ++a)
      if (shape[a] == 1) s[a] = 0;
    return {data.data(), full, s};
  }
};

/// The element of a view at these coordinates.
template <class T>
const T& at(const In<T, cpu>& x, const Dims& where) {
  Index offset = 0;
  for (Index a = 0; a < where.rank(); ++a) offset += where[a] * x.strides[a];
  return x.data[offset];
}

/// Calls f(coordinates) for every element of the shape, in row-major order.
template <class F>
void each(const Shape& shape, F&& f) {
  const Index n = numel(shape);
  for (Index i = 0; i < n; ++i) {
    Dims where = shape;
    for (Index a = shape.rank() - 1, rest = i; a >= 0; --a) {
      where[a] = rest % shape[a];
      rest /= shape[a];
    }
    f(where);
  }
}

inline const std::vector<Shape>& shapes() {
  static const std::vector<Shape> all = {{},        {0},          {1},       {7},          {16},        {5000},
                                         {3, 0},    {1, 1},       {5, 1},    {1, 9},       {17, 33},    {300, 5},
                                         {4, 1200}, {2, 3, 4},    {7, 1, 5}, {1, 40, 1},   {3, 70, 66}, {2, 0, 3},
                                         {9, 8, 7}, {2, 1, 3, 5}, {600, 20}, {5, 3, 2, 4}, {33, 257},
                                         {2, 2, 2, 2, 3}};
  return all;
}

}  // namespace weft::test
