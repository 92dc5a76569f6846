// Recompute: the same gradients bit for bit, with random numbers and captured parameters inside, for less memory.
#include "weft/tape/checkpoint.hpp"

#include "support.hpp"
#include "weft/core/print.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/dropout.hpp"
#include "weft/ops/exp.hpp"
#include "weft/ops/gelu_mlp.hpp"
#include "weft/ops/reciprocal.hpp"
#include "weft/ops/rms_norm.hpp"
#include "weft/ops/sum.hpp"
#include "weft/ops/tanh.hpp"

using namespace weft;

namespace {
using Floats = std::vector<float>;
Tensor<float> leaf(Floats values, const Shape& shape) { return from_vector<float>(values, shape).require_grad(); }

/// The loss and all gradients of a loss that `part` is in the middle of, with and without recompute.
template <class F>
std::vector<Floats> outcome(bool recompute, F&& part, const std::vector<Tensor<float>>& leaves) {
  Tape tape(Key{3, 5, 1, 2});
  const auto h = leaves[0] * 2.0;
  const auto before = dropout(h, 0.3);  // so that ordinals do not begin at 0
  const auto y = recompute ? checkpoint(part, before) : part(before);
  const auto loss = sum(dropout(y, 0.3) * y);
  tape.backward(loss);
  std::vector<Floats> result{loss.to_vector()};
  for (const auto& x : leaves) {
    result.push_back(gradient(x).to_vector());
    x.slot()->clear();
  }
  return result;
}

template <class F>
void check_same(F&& part, const std::vector<Tensor<float>>& leaves) {
  const auto plain = outcome(false, part, leaves), again = outcome(true, part, leaves);
  REQUIRE(plain.size() == again.size());
  for (std::size_t i = 0; i < plain.size(); ++i) CHECK(test::same_bits(plain[i], again[i]));
}
}  // namespace

TEST_CASE("recompute changes no bit of loss and gradients") {
  const auto x = leaf(test::uniform(60), {6, 10}), w = leaf(test::uniform(10, -1, 1, 2), {10});
  SECTION("plain ops") {
    check_same([](const Tensor<float>& a) { return tanh(exp(a) * 0.1) * a; }, {x});
  }
  SECTION("dropout inside draws the same mask again") {
    check_same([](const Tensor<float>& a) { return dropout(tanh(dropout(a, 0.5)), 0.2) * a; }, {x});
  }
  SECTION("captured parameters, one of them twice") {
    check_same([w](const Tensor<float>& a) { return tanh(a * w) * w; }, {x, w});
  }
  SECTION("checkpoints in a checkpoint") {
    check_same([w](const Tensor<float>& a) {
      const auto inner = checkpoint([w](const Tensor<float>& b) { return dropout(tanh(b * w), 0.5); }, a);
      return inner * a;
    }, {x, w});
  }
  SECTION("the input itself, and a view of it") {
    check_same([](const Tensor<float>& a) { return a; }, {x});
    check_same([](const Tensor<float>& a) { return reshape(a, {60}); }, {x});
  }
}

TEST_CASE("several inputs, of which some want no gradient") {
  const auto x = leaf({1, 2, 3}, {3}), w = leaf({4, 5, 6}, {3});
  const auto c = from_vector<float>({10, 10, 10});
  Tape tape;
  const auto y = checkpoint([](const Tensor<float>& a, const Tensor<float>& b, const Tensor<float>& d) { return a * b + d; }, x, w, c);
  tape.backward(sum(y * y));
  CHECK(gradient(x).to_vector() == Floats{2 * 14 * 4, 2 * 20 * 5, 2 * 28 * 6});
  CHECK(gradient(w).to_vector() == Floats{2 * 14 * 1, 2 * 20 * 2, 2 * 28 * 3});
}

TEST_CASE("a gradient that only a captured value wants") {
  const auto x = from_vector<float>({1, 2, 3});  // a constant
  SECTION("a parameter") {
    const auto w = leaf({4, 5, 6}, {3});
    Tape tape;
    tape.backward(sum(checkpoint([w](const Tensor<float>& a) { return a * w; }, x)));
    CHECK(gradient(w).to_vector() == Floats{1, 2, 3});
  }
  SECTION("an activation") {
    const auto w = leaf({4, 5, 6}, {3});
    Tape tape;
    const auto h = w * 2.0;
    tape.backward(sum(checkpoint([h](const Tensor<float>& a) { return a * h; }, x)));
    CHECK(gradient(w).to_vector() == Floats{2, 4, 6});
  }
}

TEST_CASE("a part that passes no gradient on") {
  const auto x = leaf({1, 2}, {2}), w = leaf({3, 4}, {2});
  Tape tape;
  const auto cut = checkpoint([w](const Tensor<float>& a) { return (a * w).detach(); }, x);
  CHECK_FALSE(cut.requires_grad());
  tape.backward(sum(cut * x));
  CHECK(gradient(x).to_vector() == Floats{3, 8});
  CHECK_FALSE(gradient(w).defined());
}

TEST_CASE("without a tape it is the function alone") {
  const auto x = leaf({1, 2}, {2});
  CHECK(checkpoint([](const Tensor<float>& a) { return a * 2.0; }, x).to_vector() == Floats{2, 4});
}

TEST_CASE("it keeps its inputs and nothing of what it makes") {
  constexpr Index n = 1 << 18;  // 1 MiB
  const auto x = Tensor<float>({n}).require_grad();
  for (Index i = 0; i < n; ++i) x.data()[i] = 0.01f;
  const auto part = [](const Tensor<float>& a) { return exp(exp(exp(exp(a)) * 0.1)); };
  const auto forward_bytes = [&](bool recompute) {
    const std::size_t before = memory_stats().live;
    Tape tape;
    Tensor<float> y = x;
    for (int i = 0; i < 4; ++i) y = recompute ? checkpoint(part, y) : part(y);
    const std::size_t bytes = memory_stats().live - before;
    tape.backward(sum(y));
    x.slot()->clear();
    return bytes;
  };
  const std::size_t plain = forward_bytes(false), recomputed = forward_bytes(true);
  CHECK(plain >= 16 * n * sizeof(float));
  CHECK(recomputed < 6 * n * sizeof(float));
}

TEST_CASE("an input that was written in place since") {
  const auto x = leaf({1, 2}, {2});
  Tape tape;
  const auto h = x * 2.0;
  const auto y = checkpoint([](const Tensor<float>& a) { return a * a; }, h);
  h.set({0}, 9); const unsigned written = here().line;
  CHECK_THROWS_WITH(tape.backward(sum(y)), Catch::Contains("written in place") && Catch::Contains("[checkpoint]") &&
                                               Catch::Contains("checkpoint.cpp:" + std::to_string(written)));
}

TEST_CASE("an error in the recomputed part names the op inside, and leaves the thread in order") {
  const auto x = leaf({1, 2}, {2});
  {
    Tape tape;
    const auto y = checkpoint([](const Tensor<float>& a) {
      const auto b = exp(a);
      if (tape_state().in_backward) b.set({0}, 1);
      return b;
    }, x);
    CHECK_THROWS_WITH(tape.backward(sum(y)), Catch::Contains("[exp]") && Catch::Contains("[checkpoint]"));
  }
  CHECK_FALSE(tape_state().in_backward);
  CHECK(tape_state().tape == nullptr);
  CHECK(x.slot()->pending == 0);
}

namespace {
int runs = 0;
/// 2 x, by an op that counts how often it is computed.
Tensor<float> doubled(const Tensor<float>& x, Where where = here()) {
  Op op("doubled", where);
  const auto fill = [](const Tensor<float>& y, const Tensor<float>& from) {
    ++runs;
    kernels::map<kernels::MulScalar, float, float>(cpu{}, {2}, y, from);
  };
  return op.record(op.compute<float, cpu>(x.shape(), fill, x), [dx = op.grad_of(x)](const Tensor<float>& dy) {
    kernels::map<kernels::MulScalar, float, float>(cpu{}, {2}, dx, dy);
  });
}
/// How often `part` computes doubled(), forward and backward together, and d sum(part(x)^2) / dx.
template <class F>
std::pair<int, Floats> count_runs(F&& part) {
  const auto x = leaf({1, 2, 3}, {3});
  runs = 0;
  Tape tape;
  const auto y = checkpoint(part, x * 1.0);
  tape.backward(sum(y * y));
  return {runs, gradient(x).to_vector()};
}
}  // namespace

TEST_CASE("what ends a checkpoint is not computed again, unless somebody reads it") {
  CHECK(count_runs([](const Tensor<float>& a) { return doubled(a); }) == std::pair{1, Floats{8, 16, 24}});
  CHECK(count_runs([](const Tensor<float>& a) { return a + doubled(a); }) == std::pair{1, Floats{18, 36, 54}});
  CHECK(count_runs([](const Tensor<float>& a) { return reshape(doubled(a), {3, 1}); }) == std::pair{1, Floats{8, 16, 24}});
  CHECK(count_runs([](const Tensor<float>& a) { return doubled(doubled(a)); }) == std::pair{2, Floats{32, 64, 96}});
  const auto product = count_runs([](const Tensor<float>& a) { return doubled(a) * a; });  // its gradient reads both
  CHECK(product == std::pair{2, Floats{16, 128, 432}});
}

TEST_CASE("a value that is read on the host in a recompute is there") {
  Floats seen;
  std::string printed;
  const auto got = count_runs([&](const Tensor<float>& a) {
    const auto y = doubled(a);
    printed = to_string(y);
    seen.push_back(y(1));
    return y;
  });
  CHECK(got == std::pair{2, Floats{8, 16, 24}});
  CHECK(seen == Floats{4, 4});
  CHECK(printed == "float (3)\n[2.0, 4.0, 6.0]");
  Tensor<float> kept;  // and what leaves it
  CHECK(count_runs([&](const Tensor<float>& a) { return kept = doubled(a); }) == std::pair{1, Floats{8, 16, 24}});
  CHECK(kept.to_vector() == Floats{2, 4, 6});
}

TEST_CASE("what leaves a recompute can be read when its backward is over, also behind ops whose outputs are made again") {
  const auto x = leaf(test::uniform(40), {5, 8}), g = leaf(test::uniform(8, 0.5, 1.5, 2), {8}), w = leaf(test::uniform(48, -1, 1, 3), {6, 8}),
             v = leaf(test::uniform(48, -1, 1, 4), {8, 6});
  const Tensor<float> none;
  const auto check = [&](auto f) {
    const Floats expected = f(x * 1.0).to_vector();
    for (const bool read_inside : {false, true}) {
      Tensor<float> kept;
      Floats seen;
      Tape tape;
      const auto y = checkpoint([&](const Tensor<float>& a) {
        kept = f(a);
        if (read_inside) seen = kept.to_vector();
        return kept;
      }, x * 1.0);
      tape.backward(sum(y));
      CHECK(test::same_bits(kept.to_vector(), expected));
      if (read_inside) CHECK(test::same_bits(seen, expected));
    }
  };
  check([&](const Tensor<float>& a) { return linear(rms_norm(a, g), w); });
  check([&](const Tensor<float>& a) { return rms_norm(a, g) + a; });
  check([&](const Tensor<float>& a) { return gelu_mlp(a, w, none, v, none); });
  check([&](const Tensor<float>& a) { return a + gelu_mlp(rms_norm(a, g), w, none, v, none); });
  check([&](const Tensor<float>& a) { return slice(linear(a, w), 1, 1, 4); });
  check([&](const Tensor<float>& a) { return checkpoint([&](const Tensor<float>& b) { return linear(b, w); }, a); });
}

TEST_CASE("a long sum in a recompute is not computed by recursion") {
  const auto x = leaf({1, 2, 3}, {3});
  Tensor<float> kept;
  const auto part = [&](const Tensor<float>& a) {
    kept = a;
    for (int i = 0; i < 20'000; ++i) kept = kept + a;
    return kept;
  };
  Tape tape;
  tape.backward(sum(checkpoint(part, x * 1.0)));
  CHECK(kept.to_vector() == Floats{20'001, 40'002, 60'003});
  CHECK(gradient(x).to_vector() == Floats{20'001, 20'001, 20'001});
}

TEST_CASE("a value that is not finite is found where nobody would read it") {
  const auto x = leaf({1, 0, 3}, {3});
  Tape tape(Key{}, {.check = true});
  bool again = false;
  const auto y = checkpoint([&](const Tensor<float>& a) { return a + (std::exchange(again, true) ? reciprocal(a * 0.0) : a); }, x * 1.0);
  CHECK_THROWS_AS(tape.backward(sum(y)), NumericError);
}

TEST_CASE("writing over what a later reading needs is refused in a recompute") {
  const auto x = leaf({1, 2, 3}, {3});
  Tape tape;
  const auto y = checkpoint([](const Tensor<float>& a) {
    const auto h = a * 1.0;
    const auto sum = h + 1.0, both = h + h;  // `both` is not computed yet
    if (tape_state().in_backward) h.set({0}, 9);
    return both * sum;
  }, x);
  CHECK_THROWS_AS(tape.backward(sum(y)), TapeError);
}
