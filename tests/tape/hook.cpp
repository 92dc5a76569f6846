// Hooks on gradients: after the last write, before the op that made the tensor uses it, and with the right to change it.
#include "weft/tape/hook.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/sum.hpp"
#include "weft/ops/view.hpp"

using namespace weft;

namespace {
using Floats = std::vector<float>;
Tensor<float> leaf(Floats values) { return from_vector<float>(values).require_grad(); }
}  // namespace

TEST_CASE("a hook sees the whole gradient, once") {
  const auto x = leaf({1, 2});
  std::vector<Floats> seen;
  Tape tape;
  const auto y = x * 3.0;
  on_gradient(y, [&](const Tensor<float>& dy) { seen.push_back(dy.to_vector()); });
  tape.backward(sum(y) + sum(y * 10.0));
  CHECK(seen == std::vector<Floats>{{11, 11}});
  CHECK(gradient(x).to_vector() == Floats{33, 33});
}

TEST_CASE("a hook may change the gradient, of its tensor alone") {
  const auto x = leaf({1, 2}), other = leaf({1, 2});
  Tape tape;
  const auto a = x * 1.0, b = other * 1.0;
  on_gradient(a, [](const Tensor<float>& da) { da.assign(Floats{100, 200}); });
  tape.backward(sum(a + b));  // a and b take one and the same gradient
  CHECK(gradient(x).to_vector() == Floats{100, 200});
  CHECK(gradient(other).to_vector() == Floats{1, 1});
}

TEST_CASE("the same with the other operand, and with a gradient that the user still holds") {
  const auto x = leaf({1, 2}), other = leaf({1, 2});
  Tape tape;
  const auto a = x * 1.0, b = other * 1.0, y = a + b;
  on_gradient(b, [](const Tensor<float>& db) { db.assign(Floats{100, 200}); });
  const auto dy = from_vector<float>({5, 6});
  tape.backward(y, dy);
  CHECK(gradient(x).to_vector() == Floats{5, 6});
  CHECK(gradient(other).to_vector() == Floats{100, 200});
  CHECK(dy.to_vector() == Floats{5, 6});
}

TEST_CASE("a part without a gradient is zeros when a hook looks") {
  const auto x = leaf({1, 2, 3});
  Floats seen;
  Tape tape;
  const auto y = x * 1.0;
  on_gradient(y, [&](const Tensor<float>& dy) { seen = dy.to_vector(); });
  const auto parts = split(y, {1, 2}, 0);
  tape.backward(sum(parts[1]));
  CHECK(seen == Floats{0, 1, 1});
}

TEST_CASE("several hooks, and one that is never reached") {
  const auto x = leaf({1});
  int calls = 0;
  Tape tape;
  const auto y = x * 1.0, unused = x * 2.0;
  on_gradient(y, [&](const Tensor<float>&) { ++calls; });
  on_gradient(y, [&](const Tensor<float>&) { ++calls; });
  on_gradient(unused, [&](const Tensor<float>&) { calls += 100; });
  tape.backward(y);
  CHECK(calls == 2);
}

TEST_CASE("what has no gradient to look at") {
  const auto x = leaf({1, 2}), constant = from_vector<float>({1, 2});
  Tape tape;
  const auto nothing = [](const Tensor<float>&) {};
  CHECK_THROWS_WITH(on_gradient(constant, nothing), Catch::Contains("[on_gradient]") && Catch::Contains("without a gradient"));
  CHECK_THROWS_WITH(on_gradient(x, nothing), Catch::Contains("leaf") && Catch::Contains("hook.cpp:"));
  CHECK_THROWS_WITH(on_gradient(slice(x * 1.0, 0, 0, 1), nothing), Catch::Contains("view"));
}
