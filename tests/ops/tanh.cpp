#include "weft/ops/tanh.hpp"

#include "support.hpp"

using namespace weft;
using namespace weft::test;

TEST_CASE("tanh: values, gradients, types, threads", "[tanh]") {
  check_unary([](const auto& x) { return tanh(x); }, [](double x) { return std::tanh(x); }, -3, 3,
              2e-6);  // some roundings of float
}
