// What the tests of the row kernels share: arrays with or without gaps, closeness, and central differences.
#pragma once

#include <algorithm>
#include <cmath>

#include "support.hpp"
#include "weft/core/view.hpp"

namespace weft::test {

/// An array with its own memory. `gaps`: the outer axes lie in reverse order and rows are 3 elements apart, so that no
/// two axes follow one another.
template <class T>
struct Array {
  Shape shape;
  Strides strides;
  std::vector<T> store;

  explicit Array(const Shape& s, bool gaps = false, double low = -1, double high = 1, std::uint64_t seed = 1)
      : shape(s), strides(row_major(s)) {
    if (gaps && s.rank() > 0) {
      Index step = s.back() + 3;
      for (Index a = 0; a + 1 < s.rank(); ++a) {
        strides[a] = step;
        step *= std::max<Index>(1, s[a]);
      }
      store.assign(static_cast<std::size_t>(step), static_cast<T>(99.0f));
    } else {
      store.assign(static_cast<std::size_t>(numel(s)), static_cast<T>(99.0f));
    }
    set(uniform<T>(numel(s), low, high, seed));
  }
  Index size() const { return numel(shape); }
  std::size_t offset(Index i) const {
    Index at = 0;
    for (Index a = shape.rank() - 1; a >= 0; --a) {
      at += i % shape[a] * strides[a];
      i /= shape[a];
    }
    return static_cast<std::size_t>(at);
  }
  double get(Index i) const { return static_cast<double>(static_cast<stat_t<T>>(store[offset(i)])); }
  template <class V>
  void set(const std::vector<V>& values) {
    for (Index i = 0; i < size(); ++i)
      store[offset(i)] =
          static_cast<T>(static_cast<stat_t<T>>(static_cast<stat_t<V>>(values[static_cast<std::size_t>(i)])));
  }
  std::vector<double> values() const {
    std::vector<double> v;
    for (Index i = 0; i < size(); ++i) v.push_back(get(i));
    return v;
  }
  operator In<T, cpu>() const { return {store.data(), shape, strides}; }
  Out<T, cpu> out(int beta = 0) { return {store.data(), shape, strides, beta}; }
  /// True iff nothing was written between the rows.
  bool gaps_untouched() const {
    std::vector<bool> used(store.size());
    for (Index i = 0; i < size(); ++i) used[offset(i)] = true;
    for (std::size_t i = 0; i < store.size(); ++i)
      if (!used[i] && static_cast<stat_t<T>>(store[i]) != 99) return false;
    return true;
  }
};

using Values = std::vector<double>;

/// The largest distance of two lists, relative to max(1, the largest magnitude of b); infinite where they differ in
/// length or a NaN stands in one alone.
inline double distance(const Values& a, const Values& b) {
  if (a.size() != b.size()) return INFINITY;
  double far = 0, scale = 1;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    if (a[i] == b[i]) continue;
    const double d = std::abs(a[i] - b[i]);
    far = std::isnan(d) ? INFINITY : std::max(far, d);
    if (std::isfinite(b[i])) scale = std::max(scale, std::abs(b[i]));
  }
  return far / scale;
}

/// Compares a gradient with central differences of loss(x), at up to 24 places; the largest error relative to
/// max(|gradient|).
template <class Loss>
double gradient_error(Values x, const Values& gradient, Loss&& loss) {
  if (x.size() != gradient.size()) return INFINITY;
  double scale = 1e-3, error = 0;
  for (double g : gradient) scale = std::max(scale, std::abs(g));
  const std::size_t stride = std::max<std::size_t>(1, x.size() / 24);
  for (std::size_t i = 0; i < x.size(); i += stride) {
    constexpr double h = 1e-4;  // its square and 1e-16 / h are both far below 1e-6
    const double at = x[i];
    x[i] = at + h;
    const double up = loss(x);
    x[i] = at - h;
    const double down = loss(x);
    x[i] = at;
    const double d = std::abs((up - down) / (2 * h) - gradient[i]);
    error = std::isnan(d) ? INFINITY : std::max(error, d / scale);
  }
  return error;
}

inline double dot(const Values& a, const Values& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// Sizes 0 and 1, odd ones, and ones around the widths of vectors and pieces.
inline const std::vector<Shape>& row_shapes() {
  static const std::vector<Shape> shapes = {
      {1},      {0},      {7},       {0, 5},     {3, 0},        {1, 1},          {2, 3},
      {5, 15},  {4, 16},  {3, 17},   {2, 31},    {2, 32},       {6, 33},         {1, 64},
      {129, 3}, {70, 40}, {2, 3, 9}, {3, 1, 18}, {2, 3, 2, 21}, {2, 2, 2, 2, 5}, {2, 4099}};
  return shapes;
}

/// What rounding to T may cost, relative to the largest value: for float `steps` roundings in between; for double the
/// reference, which adds thousands of values one after the other, is no better than 1e-12 itself.
template <class T>
double tolerance(double steps) {
  return std::is_same_v<T, bf16> ? 0x1p-8 : std::is_same_v<T, float> ? steps * 0x1p-23 : 1e-12;
}

/// The bytes of several results as one list.
template <class... V>
std::vector<unsigned char> bytes_of(const V&... lists) {
  std::vector<unsigned char> bytes;
  const auto add = [&](const auto& list) {
    const auto* p = reinterpret_cast<const unsigned char*>(list.data());
    bytes.insert(bytes.end(), p, p + list.size() * sizeof(list[0]));
  };
  (add(lists), ...);
  return bytes;
}

}  // namespace weft::test
