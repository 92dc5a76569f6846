#include "weft/ops/exp.hpp"

#include "support.hpp"

using namespace weft;
using namespace weft::test;

TEST_CASE("exp: values, gradients, types, threads", "[exp]") {
  check_unary([](const auto& x) { return exp(x); }, [](double x) { return std::exp(x); }, -3, 3,
              2e-6);  // some roundings of float
}
