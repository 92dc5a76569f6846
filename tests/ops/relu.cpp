#include "weft/ops/relu.hpp"

#include "support.hpp"

using namespace weft;
using namespace weft::test;

TEST_CASE("relu: values, gradients, types, threads", "[relu]") {
  check_unary([](const auto& x) { return relu(x); }, [](double x) { return x > 0 ? x : 0; }, 0.1, 3,
              0);  // no rounding at all
  check_unary([](const auto& x) { return relu(x); }, [](double x) { return x > 0 ? x : 0; }, -3, -0.1, 0);
}

TEST_CASE("relu's gradient at 0 is 0, and NaN stays", "[relu]") {
  auto x = from_vector<double>({-1, 0, -0.0, 2, NAN}).require_grad();
  Tape tape;
  const auto y = relu(x);
  CHECK(std::isnan(y(4)));
  tape.backward(y, from_vector<double>({1, 1, 1, 1, 1}));
  CHECK(gradient(x)(0) == 0);
  CHECK(gradient(x)(1) == 0);
  CHECK(gradient(x)(2) == 0);
  CHECK(gradient(x)(3) == 1);
}
