#include "weft/ops/gelu.hpp"

#include "support.hpp"

using namespace weft;
using namespace weft::test;

TEST_CASE("gelu: values, gradients, types, threads", "[gelu]") {
  check_unary([](const auto& x) { return gelu(x); },
              [](double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }, -4, 4,
              2e-6);  // some roundings of float
}

TEST_CASE("gelu_tanh: values, gradients, types, threads", "[gelu]") {
  const auto reference = [](double x) {
    return 0.5 * x * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
  };
  check_unary([](const auto& x) { return gelu_tanh(x); }, reference, -4, 4, 2e-6);  // some roundings of float
}
