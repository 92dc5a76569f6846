// One function on both devices: outputs and gradients must agree within roundings, and the GPU's be the same bits each time.
#pragma once

#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "weft/ops.hpp"

namespace weft::test {

/// Kernels sum in stat_t on both devices but in other orders, and the GPU's compiler fuses multiplications and additions.
template <class T>
inline constexpr double device_tolerance = std::is_same_v<T, double> ? 1e-12 : std::is_same_v<T, float> ? 2e-5 : std::is_same_v<T, f16> ? 2e-3 : 1.6e-2;

using Values = std::vector<std::vector<double>>;

template <class T, class D>
void note(Values& all, const Tensor<T, D>& x) {
  std::vector<double> values;
  if (x.defined())
    for (const T v : x.to_vector()) values.push_back(static_cast<double>(v));
  all.push_back(values);
}

/// f's output, and the gradients of its inputs, normal numbers of these shapes.
template <class T, class D, class F>
Values run(F&& f, const std::vector<Shape>& shapes) {
  std::vector<Tensor<T, D>> x;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    x.push_back(to<D>(randn<T, cpu>(shapes[i], 11 + i)));
    x.back().require_grad();
  }
  Values all;
  Tape tape(Key{3, 5, 0, 1});
  const auto y = f(x);
  using Y = typename std::remove_cvref_t<decltype(y)>::value_type;
  note(all, y);
  if constexpr (Real<Y>) {
    if (y.requires_grad()) tape.backward(y, to<D>(randn<Y, cpu>(y.shape(), 7)));
    for (const auto& input : x) note(all, gradient(input));
  }
  return all;
}

inline void expect_close(const Values& got, const Values& expected, double tolerance) {
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    REQUIRE(got[i].size() == expected[i].size());
    double scale = 0, worst = 0;
    for (std::size_t j = 0; j < got[i].size(); ++j)
      if (std::isfinite(expected[i][j])) scale = std::max(scale, std::abs(expected[i][j]));
    std::size_t at = 0;
    for (std::size_t j = 0; j < got[i].size(); ++j) {
      const bool same = got[i][j] == expected[i][j] || (std::isnan(got[i][j]) && std::isnan(expected[i][j]));
      const double off = same ? 0 : std::isfinite(got[i][j]) ? std::abs(got[i][j] - expected[i][j]) : INFINITY;
      if (!(off <= worst)) worst = off, at = j;
    }
    INFO((i == 0 ? std::string("output") : "gradient " + std::to_string(i - 1)) << ", element " << at << " of " << got[i].size());
    if (worst > 0) INFO("got " << got[i][at] << ", expected " << expected[i][at]);
    CHECK(worst <= tolerance * std::max(scale, 0.1));  // what cancels is a difference of numbers of about 1
  }
}

/// Both devices agree on f over these shapes, to `loose` times the type's tolerance.
template <class T, class F>
void same(const std::string& name, F f, const std::vector<Shape>& shapes, double loose = 1) {
  std::string text = name + " of " + dtype_name<T>;
  for (const Shape& s : shapes) text += " " + to_string(s);
  INFO(text);
  try {
    const Values got = run<T, cuda>(f, shapes);
    expect_close(got, run<T, cpu>(f, shapes), loose * device_tolerance<T>);
    const Values again = run<T, cuda>(f, shapes);
    CHECK(std::equal(got.begin(), got.end(), again.begin(), [](const auto& a, const auto& b) {
      return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](double p, double q) { return p == q || (p != p && q != q); });
    }));
  } catch (const Error& error) {
    FAIL_CHECK(error.what());
  }
}

}  // namespace weft::test
