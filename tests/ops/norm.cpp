#include "weft/ops/norm.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/sqrt.hpp"
#include "weft/ops/sum.hpp"

using namespace weft;
using namespace weft::test;

TEST_CASE("norm: against sqrt(sum(x x)), values and gradients", "[norm]") {
  for_cases(0, [&](const Case& c) {
    for (const Dims& axes : {Dims{}, Dims{0}, Dims{-1}}) {
      const Tensor<double> x = c.view(values(c.base, 1, 0.25, 1));  // away from 0, where it has a kink
      if (x.rank() == 0 && axes.rank() > 0) continue;
      check_near(norm(x, axes), doubles(sqrt(sum(x * x, axes))), 1e-14);
      CHECK(norm(x, axes, true).shape() == sum(x, axes, true).shape());
      check_gradients([&](const auto& p) { return norm(c.view(p), axes); }, values(c.base, 2, 0.25, 1));
      if (c.layout != Seen::repeated) check_gradients([&](const auto& p) { return norm(p, axes, true); }, x);
    }
  });
}

TEST_CASE("the norm of nothing and of zeros is 0, with gradient 0", "[norm]") {
  CHECK(norm(values({0})).item() == 0);
  auto x = from_vector<double>({0, 0, 3, 4}, {2, 2}).require_grad();
  Tape tape;
  const auto y = norm(x, {1});
  CHECK(y.to_vector() == std::vector<double>{0, 5});
  tape.backward(y, from_vector<double>({1, 10}));
  CHECK(gradient(x).to_vector() == std::vector<double>{0, 0, 6, 8});
}

TEST_CASE("norm: types and threads", "[norm]") {
  for (const Dims& axes : {Dims{}, Dims{0}, Dims{1}}) {
    const auto fn = [&](const auto& p) { return norm(p, axes); };
    check_thread_bits<double>(fn, values({97, 131}));
    check_thread_bits<float>(fn, values({97, 131}));
    check_against_double<float>(fn, 2e-6, values({97, 131}));
    check_against_double<bf16>(fn, 0x1p-6,
                               values({97, 131}));  // the sum of squares, the norm and the gradient round to bf16
  }
}

TEST_CASE("norm's errors", "[norm]") {
  check_error<ShapeError>([&] { norm(values({2, 3}), {2}); }, {"[norm]", "got 2"});
  check_error<ShapeError>([&] { norm(values({2, 3}), {0, -2}); }, {"[norm]", "once"});
}
