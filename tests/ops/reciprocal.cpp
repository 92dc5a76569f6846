#include "weft/ops/reciprocal.hpp"

#include "support.hpp"

using namespace weft;
using namespace weft::test;

TEST_CASE("reciprocal: values, gradients, types, threads", "[reciprocal]") {
  check_unary([](const auto& x) { return reciprocal(x); }, [](double x) { return 1 / x; }, 0.5, 4,
              2e-6);  // some roundings of float
}
