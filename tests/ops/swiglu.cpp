#include "weft/ops/swiglu.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/silu.hpp"

using namespace weft;
using namespace weft::test;

namespace {
const auto fn = [](const auto& gate, const auto& up) { return swiglu(gate, up); };
}  // namespace

TEST_CASE("swiglu: gradients, and values against silu(gate) * up", "[swiglu]") {
  for_cases(1, [&](const Case& c) {
    const Shape shape = c.view(Tensor<double>(c.base)).shape();
    const auto gate = values(c.base, 1, -3, 3), up = values(shape, 2);
    check_gradients([&](const auto& p, const auto& q) { return fn(c.view(p), q); }, gate, up);
    check_gradients([&](const auto& p, const auto& q) { return fn(q, c.view(p)); }, gate, up);
    check_gradients([&](const auto& p) { return fn(c.view(p), c.view(p)); }, gate);
    if (c.layout != Seen::repeated) check_gradients(fn, c.view(gate), up);
    check_against_composition([&](const auto& p, const auto& q) { return fn(c.view(p), q); },
                              [&](const auto& p, const auto& q) { return silu(c.view(p)) * q; }, 1e-14, gate, up);
  });
  check_gradients([](const auto& p) { return fn(slice(p, 1, 0, 19), slice(p, 1, 1, 20)); },
                  values({4, 20}));  // they overlap
  check_gradients([](const auto& p) { return fn(slice(p, 1, 1, 20), slice(p, 1, 0, 19)); }, values({4, 20}));
  check_gradients(
      [](const auto& p) {  // both from one fused product
        const auto [gate, up] = split(p, {3, 3});
        return fn(gate, up);
      },
      values({4, 6}));
}

TEST_CASE("swiglu: types and threads", "[swiglu]") {
  const auto gate = values({97, 131}, 1, -3, 3), up = values({97, 131}, 2);
  check_thread_bits<double>(fn, gate, up);
  check_thread_bits<float>(fn, gate, up);
  check_against_double<float>(fn, 1e-6, gate, up);
  check_against_double<bf16>(fn, 0x1p-8, gate, up);  // one rounding
}

TEST_CASE("swiglu's errors", "[swiglu]") {
  check_error<ShapeError>([&] { swiglu(values({2, 3}), values({3, 2})); }, {"[swiglu]", "up", "(2, 3)", "(3, 2)"});
  check_error<ShapeError>([&] { swiglu(values({}), values({})); }, {"[swiglu]", "scalar"});
}
