#include "weft/ops/log_softmax.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/exp.hpp"
#include "weft/ops/log.hpp"
#include "weft/ops/sum.hpp"

using namespace weft;
using namespace weft::test;

namespace {
const auto fn = [](const auto& x) { return log_softmax(x); };
/// Without the maximum taken away: good enough for small x.
const auto composition = [](const auto& x) {
  const auto total = sum(exp(x), {-1}, true);
  return x - log(total);
};
}  // namespace

TEST_CASE("log_softmax: gradients, and values against its formula", "[log_softmax]") {
  check_gradients_of_cases(fn, 1, -2, 2);
  for_cases(1, [&](const Case& c) {
    const auto x = values(c.base, 3, -2, 2);
    check_against_composition([&](const auto& p) { return fn(c.view(p)); },
                              [&](const auto& p) { return composition(c.view(p)); }, 1e-13, x);
  });
}

TEST_CASE("log_softmax: rows far from 0 neither overflow nor vanish", "[log_softmax]") {
  const auto x = values({4, 33}, 1, -2, 2);
  check_near(fn(x + 1000), doubles(fn(x)), 1e-11);  // x itself rounds at 1000
  check_near(fn(x - 1000), doubles(fn(x)), 1e-11);
  CHECK(fn(values({0, 3})).shape() == Shape{0, 3});
  CHECK(fn(values({3, 0})).shape() == Shape{3, 0});
}

TEST_CASE("log_softmax: types and threads", "[log_softmax]") {
  const auto x = values({97, 131}, 1, -5, 5);
  check_thread_bits<double>(fn, x);
  check_thread_bits<float>(fn, x);
  check_against_double<float>(fn, 2e-6, x);  // some roundings of float, a sum over 131
  check_against_double<bf16>(fn, 0x1p-6,
                             x);  // the result, of which backward makes the gradient, rounds to bf16, and that too
}

TEST_CASE("log_softmax's errors", "[log_softmax]") {
  check_error<ShapeError>([&] { log_softmax(values({})); }, {"[log_softmax]", "scalar"});
}
