#include "weft/ops/sigmoid.hpp"

#include "support.hpp"

using namespace weft;
using namespace weft::test;

TEST_CASE("sigmoid: values, gradients, types, threads", "[sigmoid]") {
  check_unary([](const auto& x) { return sigmoid(x); }, [](double x) { return 1 / (1 + std::exp(-x)); }, -5, 5,
              2e-6);  // some roundings of float
}
