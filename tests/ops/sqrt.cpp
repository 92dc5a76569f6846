#include "weft/ops/sqrt.hpp"

#include "support.hpp"

using namespace weft;
using namespace weft::test;

TEST_CASE("sqrt: values, gradients, types, threads", "[sqrt]") {
  check_unary([](const auto& x) { return sqrt(x); }, [](double x) { return std::sqrt(x); }, 0.5, 4,
              2e-6);  // some roundings of float
}
