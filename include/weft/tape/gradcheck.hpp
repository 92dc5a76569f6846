// Gradients against central differences, for weft's ops and a user's own alike.
#pragma once

#include <algorithm>
#include <cmath>
#include <tuple>

#include "weft/core/philox.hpp"
#include "weft/tape/op.hpp"

namespace weft::inline WEFT_ABI {

struct GradcheckResult {
  double error = 0;     ///< the largest |analytic - numeric| / max(|numeric|, the largest |numeric| of that input)
  std::string worst;    ///< where: input, element, both values
  bool ok(double tolerance = 1e-6) const { return error <= tolerance; }
};

/// Checks fn's gradient for every element of the inputs, in double: fn takes the tensors and returns one of any shape, which is
/// contracted with fixed pseudo-random weights. Differences of fourth order with step h * max(1, |x|) have an error near h^4 and
/// 1e-16 / h, so a gradient's scale counts as at least 1e-6 of the result's. Dropout keeps its mask. fn must be smooth within
/// 2 h of the inputs.
template <class F, class... X>
GradcheckResult gradcheck(F&& fn, const X&... inputs) {
  static_assert((std::is_same_v<X, Tensor<double, cpu>> && ...), "weft: gradcheck takes tensors of double on the cpu");
  constexpr double h = 1e-3;
  const Key key{17, 1};
  std::tuple<X...> leaves{inputs...};
  std::apply([](auto&... x) { ((x.set_slot({}), x.require_grad()), ...); }, leaves);
  std::vector<double> weights;
  double magnitude = 0;  // of the terms that are summed: their rounding over h, some 1e-13 of it, is no gradient

  const auto value = [&] {  // sum of weights * fn(x), with the mask that the recorded run had
    const Tape tape(key);
    const std::vector<double> y = std::apply(fn, leaves).to_vector();
    double total = 0;
    for (std::size_t i = 0; i < y.size(); ++i) total += y[i] * weights[i];
    return total;
  };
  {
    Tape tape(key);
    const Tensor<double, cpu> y = std::apply(fn, leaves);
    for (Index i = 0; i < y.numel(); ++i)
      weights.push_back(static_cast<double>(mix(7, static_cast<std::uint64_t>(i)) >> 11) * 0x1p-52 - 1);
    const std::vector<double> terms = y.to_vector();
    for (std::size_t i = 0; i < terms.size(); ++i) magnitude += std::abs(terms[i] * weights[i]);
    if (y.slot()) tape.backward(y, from_vector<double, cpu>(weights, y.shape()));
  }

  GradcheckResult result;
  int input = 0;
  const auto check = [&](const Tensor<double, cpu>& x) {
    std::vector<double> numeric, analytic(static_cast<std::size_t>(x.numel()), 0.0);
    if (const auto dx = gradient(x); dx.defined()) analytic = dx.to_vector();
    x.for_each_offset([&](Index at) {
      double& element = x.data()[at];
      const double before = element, step = h * std::max(1.0, std::abs(before));
      const auto at_distance = [&](double d) {
        element = before + d;
        return value();
      };
      const double near = at_distance(step) - at_distance(-step), far = at_distance(2 * step) - at_distance(-2 * step);
      element = before;
      numeric.push_back((8 * near - far) / (12 * step));
    });
    double scale = 1e-6 * magnitude;
    for (double g : numeric) scale = std::max(scale, std::abs(g));
    for (std::size_t i = 0; i < numeric.size(); ++i) {
      const double difference = std::abs(analytic[i] - numeric[i]);
      const double error = std::isfinite(difference) ? difference / (scale > 0 ? scale : 1) : 1e300;
      if (error > result.error) {
        result.error = error;
        result.worst = "input " + std::to_string(input) + " " + to_string(x.shape()) + ", element " + std::to_string(i) + ": analytic " +
                       std::to_string(analytic[i]) + ", numeric " + std::to_string(numeric[i]);
      }
    }
    ++input;
  };
  std::apply([&](const auto&... x) { (check(x), ...); }, leaves);
  return result;
}

}  // namespace weft::inline WEFT_ABI
