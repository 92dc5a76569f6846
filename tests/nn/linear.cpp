// Linear: its formula, with and without bias, and its parameters.
#include "weft/nn/linear.hpp"

#include "../support.hpp"
#include "weft/tape/gradcheck.hpp"

using namespace weft;

TEST_CASE("y = x weight^T + bias, over leading axes") {
  nn::Linear<double> l(3, 2);
  nn::materialise(l, 1);
  l.weight.assign(std::vector<double>{1, 2, 3, 4, 5, 6});
  l.bias.assign(std::vector<double>{10, 20});
  CHECK(l(from_vector<double>({1, 0, 0, 0, 1, 1}, {2, 1, 3})).to_vector() == std::vector<double>{11, 24, 15, 31});
  CHECK(l(empty<double>({0, 3})).shape() == Shape{0, 2});
  CHECK_THROWS_WITH(l(empty<double>({2, 2})), Catch::Contains("[linear]") && Catch::Contains("linear.cpp:") && Catch::Contains("in model"));
}

TEST_CASE("without a bias there is no parameter") {
  nn::Linear<double> l(3, 2, false);
  CHECK_FALSE(l.bias.defined());
  CHECK(nn::count_parameters(l) == 6);
}

TEST_CASE("the gradient through the module") {
  nn::Linear<double> l(3, 2);
  nn::materialise(l, 1);
  const auto x = from_vector<double>(test::uniform<double>(12), {4, 3});
  CHECK(gradcheck([&](const auto& a) { return l(a); }, x).ok());
}
