#include "weft/ops/silu.hpp"

#include "support.hpp"

using namespace weft;
using namespace weft::test;

TEST_CASE("silu: values, gradients, types, threads", "[silu]") {
  check_unary([](const auto& x) { return silu(x); }, [](double x) { return x / (1 + std::exp(-x)); }, -5, 5,
              2e-6);  // some roundings of float
}
