#include "weft/ops/rms_norm.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/sqrt.hpp"
#include "weft/ops/sum.hpp"

using namespace weft;
using namespace weft::test;

namespace {
constexpr double eps = 1e-2;  // so large that short rows near 0 are smooth enough for differences
const auto fn = [](const auto& x, const auto& w) { return rms_norm(x, w, eps); };
const auto composition = [](const auto& x, const auto& w) { return x / sqrt(mean(x * x, {-1}, true) + eps) * w; };
}  // namespace

TEST_CASE("rms_norm: gradients, and values against its formula", "[rms_norm]") {
  for_cases(1, [&](const Case& c) {
    const Index C = c.view(Tensor<double>(c.base)).size(-1);
    const auto x = values(c.base, 1), w = values({C}, 2, 0.5, 2);
    check_gradients([&](const auto& p, const auto& q) { return fn(c.view(p), q); }, x, w);
    if (c.layout != Seen::repeated) check_gradients(fn, c.view(x), w);
    check_against_composition([&](const auto& p, const auto& q) { return fn(c.view(p), q); },
                              [&](const auto& p, const auto& q) { return composition(c.view(p), q); }, 1e-12, x, w);
  });
  check_gradients([](const auto& p, const auto& q) { return fn(p, select(q, 1, 1)); }, values({3, 4}), values({4, 3}));
  check_gradients([](const auto& p) { return fn(p, p); }, values({4}));  // one tensor twice
  check_gradients([](const auto& p) { return fn(p, select(p, 0, 1)); }, values({3, 4}));
}

TEST_CASE("rms_norm: types and threads", "[rms_norm]") {
  const auto x = values({97, 131}, 1), w = values({131}, 2, 0.5, 2);
  check_thread_bits<double>(fn, x, w);
  check_thread_bits<float>(fn, x, w);
  check_thread_bits<bf16>(fn, x, w);
  check_against_double<float>(fn, 5e-6, x, w);   // sums over 131 and 97
  check_against_double<bf16>(fn, 0x1p-8, x, w);  // computed in float, rounded once
}

TEST_CASE("rms_norm's errors", "[rms_norm]") {
  check_error<ShapeError>([&] { rms_norm(values({2, 3}), values({2})); }, {"[rms_norm]", "weight", "(3)", "(2)"});
  check_error<ShapeError>([&] { rms_norm(values({}), values({2})); }, {"[rms_norm]", "scalar"});
}
