// The checker of gradients checks: it passes what is right, at kinks of no op, and finds what is wrong.
#include "weft/tape/gradcheck.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/dropout.hpp"
#include "weft/ops/exp.hpp"
#include "weft/ops/matmul.hpp"
#include "weft/ops/tanh.hpp"

using namespace weft;

namespace {
Tensor<double> values(const Shape& shape, std::uint64_t seed = 1) {
  return from_vector<double>(test::uniform<double>(numel(shape), -1, 1, seed), shape);
}

/// y = x^2, whose gradient is `factor` x dy: right for 2.
Tensor<double> square(const Tensor<double>& x, double factor, Where where = here()) {
  Op op("square", where);
  return op.record(contiguous((x * x).detach(), true), [factor, x = op.save(x), dx = op.grad_of(x)](const Tensor<double>& dy) {
    dx.take(x.get() * dy * factor);
  });
}
}  // namespace

TEST_CASE("right gradients pass") {
  const auto x = values({2, 3}), w = values({3, 2}, 2);
  CHECK(gradcheck([](const auto& a, const auto& b) { return tanh(matmul(a, b)) * 3.0; }, x, w).error < 1e-9);
  CHECK(gradcheck([](const auto& a) { return exp(a); }, values({4})).ok());
  CHECK(gradcheck([](const auto& a) { return exp(a); }, values({0, 4})).ok());
  CHECK(gradcheck([](const auto& a) { return exp(a); }, values({})).ok());
}

TEST_CASE("wrong gradients are found, with the place and both values") {
  const auto x = values({2, 3});
  CHECK(gradcheck([](const auto& a) { return square(a, 2); }, x).ok());
  const auto wrong = gradcheck([](const auto& a) { return square(a, 2.0001); }, x);
  CHECK_FALSE(wrong.ok());
  CHECK(wrong.error > 1e-5);
  CHECK(wrong.error < 1e-3);
  CHECK_THAT(wrong.worst, Catch::Contains("input 0 (2, 3), element") && Catch::Contains("analytic") && Catch::Contains("numeric"));
}

TEST_CASE("a wrong gradient of the second input alone") {
  const auto x = values({3}), y = values({3}, 2);
  const auto wrong = gradcheck([](const auto& a, const auto& b) { return a + square(b, 1); }, x, y);
  CHECK_FALSE(wrong.ok());
  CHECK_THAT(wrong.worst, Catch::Contains("input 1"));
}

TEST_CASE("a gradient that is missing or not a number") {
  const auto x = values({3});
  CHECK_FALSE(gradcheck([](const auto& a) { return a.detach() * a; }, x).ok());
  CHECK_FALSE(gradcheck([](const auto& a) { return exp(a).detach(); }, x).ok());
  CHECK_FALSE(gradcheck([](const auto& a) { return square(a, std::nan("")); }, x).ok());
  CHECK(gradcheck([](const auto& a) { return (a * 0.0).detach(); }, x).ok());  // constant: no gradient is right
}

TEST_CASE("dropout keeps its mask while it is checked") {
  CHECK(gradcheck([](const auto& a) { return dropout(a, 0.5) * dropout(a, 0.5); }, values({40})).ok());
}

TEST_CASE("the inputs are as they were") {
  const auto x = values({5});
  const auto before = x.to_vector();
  (void)gradcheck([](const auto& a) { return a * a; }, x);
  CHECK(test::same_bits(before, x.to_vector()));
  CHECK_FALSE(x.requires_grad());
}
