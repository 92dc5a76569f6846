#include "weft/ops/layer_norm.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/sqrt.hpp"
#include "weft/ops/sum.hpp"

using namespace weft;
using namespace weft::test;

namespace {
constexpr double eps =
    1e-2;  // so large that rows of one element, whose variance is 0, are smooth enough for differences
const auto fn = [](const auto& x, const auto& w, const auto& b) { return layer_norm(x, w, b, eps); };
const auto no_bias = [](const auto& x, const auto& w) { return layer_norm(x, w, {}, eps); };
const auto composition = [](const auto& x, const auto& w, const auto& b) {
  const auto centred = x - mean(x, {-1}, true);
  return centred / sqrt(mean(centred * centred, {-1}, true) + eps) * w + b;
};
}  // namespace

TEST_CASE("layer_norm: gradients, and values against its formula", "[layer_norm]") {
  for_cases(1, [&](const Case& c) {
    const Index C = c.view(Tensor<double>(c.base)).size(-1);
    const auto x = values(c.base, 1), w = values({C}, 2, 0.5, 2), b = values({C}, 3);
    check_gradients([&](const auto& p, const auto& q, const auto& r) { return fn(c.view(p), q, r); }, x, w, b);
    if (c.layout != Seen::repeated) check_gradients(no_bias, c.view(x), w);
    check_against_composition([&](const auto& p, const auto& q, const auto& r) { return fn(c.view(p), q, r); },
                              [&](const auto& p, const auto& q, const auto& r) { return composition(c.view(p), q, r); },
                              1e-12, x, w, b);
  });
  check_gradients([](const auto& p, const auto& q) { return fn(p, select(q, 1, 0), select(q, 1, 2)); }, values({3, 4}),
                  values({4, 3}));
  check_gradients([](const auto& p, const auto& q) { return fn(p, q, q); }, values({3, 4}),
                  values({4}));  // one tensor twice
  check_gradients([](const auto& p) { return fn(p, p, p); }, values({4}));
}

TEST_CASE("layer_norm: types and threads", "[layer_norm]") {
  const auto x = values({97, 131}, 1), w = values({131}, 2, 0.5, 2), b = values({131}, 3);
  check_thread_bits<double>(fn, x, w, b);
  check_thread_bits<float>(fn, x, w, b);
  check_thread_bits<bf16>(fn, x, w, b);
  check_against_double<float>(fn, 5e-6, x, w, b);   // sums over 131 and 97
  check_against_double<bf16>(fn, 0x1p-8, x, w, b);  // computed in float, rounded once
}

TEST_CASE("layer_norm's errors", "[layer_norm]") {
  const auto x = values({2, 3}), w = values({3});
  check_error<ShapeError>([&] { layer_norm(x, values({2})); }, {"[layer_norm]", "weight", "(3)", "(2)"});
  check_error<ShapeError>([&] { layer_norm(x, w, values({4})); }, {"[layer_norm]", "bias", "(3)", "(4)"});
  check_error<ShapeError>([&] { layer_norm(values({}), w); }, {"[layer_norm]", "scalar"});
}
