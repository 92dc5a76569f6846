// A whole model's gradient against central differences.
#pragma once

#include "weft/nn/module.hpp"
#include "weft/tape/gradcheck.hpp"

namespace weft::inline WEFT_ABI {

/// Checks the gradient of `loss`, a function that returns a Loss or a scalar tensor of double, for the parameters of a model: of each
/// parameter `elements` elements, spread over it (0: all). The error is relative to the largest |numeric| of the parameter, or a
/// thousandth of the whole model's where that is more. Differences, smoothness and dropout as in gradcheck; the weights are put back,
/// gradients are empty afterwards.
template <class M, class F>
GradcheckResult gradcheck_model(const M& model, F&& loss, Index elements = 0, Key key = {17, 1}) {
  constexpr double h = 1e-3;
  const auto value = [&]() -> double {
    const Tape tape(key);
    const auto l = loss();
    if constexpr (requires { l.value(); }) return l.value();
    else return l.item();
  };
  nn::zero_grad(model);
  {
    Tape tape(key);
    tape.backward(loss());
  }

  struct Checked {
    std::string path;
    Index element;
    double analytic, numeric, scale;
  };
  std::vector<Checked> all;
  double model_scale = 0;
  nn::for_each_parameter(model, [&](const std::string& path, const auto& p) {
    static_assert(std::is_same_v<typename std::remove_cvref_t<decltype(p)>::value_type, double>,
                  "weft: gradcheck_model takes a model of double weights");
    if (!p.slot()) return;
    const auto dp = gradient(p);
    const std::vector<double> analytic = dp.defined() ? dp.to_vector() : std::vector<double>(static_cast<std::size_t>(p.numel()), 0.0);
    const Index n = p.numel(), count = elements > 0 ? std::min(elements, n) : n;
    const std::size_t first = all.size();
    double scale = 0;
    for (Index c = 0; c < count; ++c) {
      const Index i = c * n / count + static_cast<Index>(mix(3, static_cast<std::uint64_t>(c)) % static_cast<std::uint64_t>(n / count));
      double& element = p.data()[i];  // parameters are row-major
      const double before = element, step = h * std::max(1.0, std::abs(before));
      const auto at_distance = [&](double d) {
        element = before + d;
        return value();
      };
      const double near = at_distance(step) - at_distance(-step), far = at_distance(2 * step) - at_distance(-2 * step);
      element = before;
      all.push_back({path, i, analytic[static_cast<std::size_t>(i)], (8 * near - far) / (12 * step), 0});
      scale = std::max(scale, std::abs(all.back().numeric));
    }
    for (std::size_t i = first; i < all.size(); ++i) all[i].scale = scale;
    model_scale = std::max(model_scale, scale);
  });
  nn::zero_grad(model);

  GradcheckResult result;
  for (const Checked& c : all) {
    const double difference = std::abs(c.analytic - c.numeric), scale = std::max(c.scale, 1e-3 * model_scale);
    const double error = std::isfinite(difference) ? difference / (scale > 0 ? scale : 1) : 1e300;
    if (error > result.error) {
      result.error = error;
      result.worst = c.path + ", element " + std::to_string(c.element) + ": analytic " + std::to_string(c.analytic) + ", numeric " +
                     std::to_string(c.numeric);
    }
  }
  return result;
}

}  // namespace weft::inline WEFT_ABI
