#include "weft/ops/log.hpp"

#include "support.hpp"

using namespace weft;
using namespace weft::test;

TEST_CASE("log: values, gradients, types, threads", "[log]") {
  check_unary([](const auto& x) { return log(x); }, [](double x) { return std::log(x); }, 0.5, 4,
              2e-6);  // some roundings of float
}
