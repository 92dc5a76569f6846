// The tape: what is recorded when, the order of the reverse walk, when memory comes back, and every way to use one wrongly.
#include "weft/tape/tape.hpp"

#include <memory>

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/exp.hpp"
#include "weft/ops/sum.hpp"

using namespace weft;

namespace {
template <class F>
std::string tape_error(F&& f) {
  try {
    f();
  } catch (const TapeError& error) { return error.what(); }
  return "";
}
std::string line(unsigned n) { return "tape.cpp:" + std::to_string(n); }

Tensor<float> leaf(std::vector<float> values) { return from_vector<float>(values).require_grad(); }

/// y = x, and notes when its gradient runs.
Tensor<float> noted(const Tensor<float>& x, std::vector<std::string>& notes, const char* name, Where where = here()) {
  Op op("noted", where);
  Tensor<float> y = contiguous(x.detach(), true);
  return op.record(y, [&notes, name, dx = op.grad_of(x)](const Tensor<float>& dy) {
    notes.push_back(name);
    dx.take(dy);
  });
}
}  // namespace

TEST_CASE("records run in reverse order, each once") {
  const Tensor<float> x = leaf({1, 2});
  std::vector<std::string> notes;
  Tape tape;
  const auto a = noted(x, notes, "a");
  const auto b = noted(a, notes, "b");
  const auto unused = noted(a, notes, "unused");
  const auto c = noted(b, notes, "c");
  CHECK(tape.records() == 4);
  tape.backward(sum(c));
  CHECK(notes == std::vector<std::string>{"c", "b", "a"});
  CHECK(gradient(x).to_vector() == std::vector<float>{1, 1});
}

TEST_CASE("gradients add where a value is used more than once") {
  const Tensor<float> x = leaf({1, 2, 3});
  Tape tape;
  const auto y = x * x;
  tape.backward(sum(y * y + x));  // 4 x^3 + 1
  CHECK(gradient(x).to_vector() == std::vector<float>{5, 33, 109});
}

TEST_CASE("without a tape nothing is recorded") {
  const Tensor<float> x = leaf({1});
  const auto before = x * 2.0;
  CHECK_FALSE(before.requires_grad());
  Tape tape;
  {
    const NoGrad scope;
    CHECK(Tape::recording() == nullptr);
    CHECK_FALSE((x * 2.0).requires_grad());
  }
  CHECK_FALSE(no_grad([&] { return x * 2.0; }).requires_grad());
  CHECK(tape.records() == 0);
  CHECK((x * 2.0).requires_grad());
  const auto constant = from_vector<float>({1.0f});
  CHECK_FALSE((constant * 2.0).requires_grad());
  CHECK(tape.records() == 1);
}

TEST_CASE("the inner of nested tapes records, and the outer again after it") {
  const Tensor<float> x = leaf({3}), w = leaf({5});
  Tape outer;
  const auto y = x * x;
  {
    Tape inner;
    CHECK(Tape::recording() == &inner);
    const auto z = w * y;  // y belongs to another tape: a constant here
    inner.backward(z);
    CHECK(Tape::recording() == &outer);
  }
  CHECK(gradient(w).to_vector() == std::vector<float>{9});
  CHECK_FALSE(gradient(x).defined());
  outer.backward(y);
  CHECK(gradient(x).to_vector() == std::vector<float>{6});
}

TEST_CASE("tapes may end in any order") {
  const Tensor<float> x = leaf({3});
  auto first = std::make_unique<Tape>();
  Tape second;
  first.reset();
  CHECK(Tape::recording() == &second);
  second.backward(x * 2.0);
  CHECK(Tape::recording() == nullptr);
  CHECK(gradient(x).item() == 2);
}

TEST_CASE("a tape runs once, and records nothing after") {
  const Tensor<float> x = leaf({3});
  Tape tape; const unsigned made = here().line;
  const auto y = x * x;
  tape.backward(y);
  CHECK_FALSE((x * 2.0).requires_grad());
  const std::string error = tape_error([&] { tape.backward(y); });
  CHECK_THAT(error, Catch::Contains(line(made)) && Catch::Contains("has run") && Catch::Contains("hint"));
  CHECK_THAT(error, Catch::Contains(line(here().line - 2)));
}

TEST_CASE("activations go back to the allocator as the walk passes them") {
  constexpr Index n = 1 << 18;  // 1 MiB
  constexpr std::size_t bytes = sizeof(float) * n;
  const Tensor<float> x = Tensor<float>({n}).require_grad();
  for (Index i = 0; i < n; ++i) x.data()[i] = 0.001f;
  std::vector<std::size_t> live;
  const auto watch = [&](const Tensor<float>& a) {
    Op op("watch", here());
    return op.record(contiguous(a.detach(), true), [&, dx = op.grad_of(a)](const Tensor<float>& dy) {
      live.push_back(memory_stats().live);
      dx.take(dy);
    });
  };
  const std::size_t before = memory_stats().live;
  {
    Tape tape;
    Tensor<float> y = x;
    for (int i = 0; i < 10; ++i) y = exp(watch(y)) * 0.5;  // exp keeps its output, the others nothing
    const auto loss = sum(y);
    y = {};
    const std::size_t forward = memory_stats().live - before;
    CHECK(forward >= 10 * bytes);
    CHECK(forward < 12 * bytes);
    tape.backward(loss);
    REQUIRE(live.size() == 10);
    for (std::size_t i = 1; i < live.size(); ++i) CHECK(live[i - 1] - live[i] >= bytes);
    CHECK(live.back() - before < 4 * bytes);
  }
  gradient(x);
  x.slot()->clear();
  CHECK(memory_stats().live - before < bytes / 4);
}

TEST_CASE("an activation whose gradient alone is needed is not kept") {
  constexpr Index n = 1 << 18;
  const Tensor<float> x = Tensor<float>({n}).require_grad();
  const std::size_t before = memory_stats().live;
  Tape tape;
  Tensor<float> y = x;
  for (int i = 0; i < 10; ++i) y = y * 0.5 + 1.0;
  CHECK(memory_stats().live - before < 3 * n * sizeof(float));
}

TEST_CASE("a tape that never ran gives all back") {
  const Tensor<float> x = leaf({1, 2, 3});
  const std::size_t before = memory_stats().live;
  {
    const Tape tape;
    Tensor<float> y = x;
    for (int i = 0; i < 2000; ++i) y = y * y;
    CHECK(tape.records() == 2000);
  }
  CHECK(memory_stats().live == before);
  CHECK(x.slot()->pending == 0);
}

TEST_CASE("a loss that depends on nothing") {
  const Tensor<float> x = from_vector<float>({1});
  {
    Tape tape;
    const auto y = x * x;
    CHECK_THAT(tape_error([&] { tape.backward(y); }), Catch::Contains("depends") && Catch::Contains(line(here().line)));
  }
  const Tensor<float> w = leaf({2});
  const auto outside = w * w;
  Tape tape;
  CHECK(tape_error([&] { tape.backward(outside); }) != "");
  CHECK(tape_error([&] { tape.backward(Loss<float, cpu>(outside, 1)); }) != "");
  CHECK(tape_error([&] { tape.backward((w * w).detach()); }) != "");
  tape.backward(w * w);  // a refused loss leaves the tape as it was
  CHECK(gradient(w).item() == 4);
}

TEST_CASE("a loss of more than one element") {
  const Tensor<float> x = leaf({1, 2});
  Tape tape;
  const auto y = x * x;
  CHECK_THROWS_WITH(tape.backward(y), Catch::Contains("one element") && Catch::Contains("(2)"));
  CHECK_THROWS_AS(tape.backward(y, from_vector<float>({1, 2, 3})), ShapeError);
  const auto dy = from_vector<float>({10, 100});
  tape.backward(y, dy);
  CHECK(gradient(x).to_vector() == std::vector<float>{20, 400});
  CHECK(dy.to_vector() == std::vector<float>{10, 100});
}

TEST_CASE("a leaf itself as the loss") {
  const Tensor<float> x = leaf({7});
  Tape tape;
  tape.backward(x);
  CHECK(gradient(x).item() == 1);
}

TEST_CASE("a saved tensor that was written in place since") {
  const Tensor<float> x = leaf({1, 2});
  Tape tape;
  const auto y = exp(x); const unsigned forward = here().line;
  y.set({0}, 5); const unsigned written = here().line;
  const std::string error = tape_error([&] { tape.backward(sum(y)); });
  CHECK_THAT(error, Catch::Contains("(2)") && Catch::Contains("written in place") && Catch::Contains(line(written)));
  CHECK_THAT(error, Catch::Contains("[exp]") && Catch::Contains(line(forward)) && Catch::Contains("hint"));
  CHECK_FALSE(tape_state().in_backward);  // and the thread can go on
  Tape again;
  again.backward(sum(exp(x)));
}

TEST_CASE("writing what backward does not read is allowed") {
  const Tensor<float> x = leaf({1, 2});
  Tape tape;
  const auto y = x * 3.0;
  y.set({0}, 100);
  tape.backward(sum(y));
  CHECK(gradient(x).to_vector() == std::vector<float>{3, 3});
}

TEST_CASE("no tape inside a backward") {
  const Tensor<float> x = leaf({1});
  Tape tape;
  Op op("inner", here());
  const auto y = op.record(contiguous(x.detach(), true), [dx = op.grad_of(x)](const Tensor<float>&) { const Tape second; });
  CHECK_THAT(tape_error([&] { tape.backward(y); }), Catch::Contains("first order") && Catch::Contains("[inner]"));
}

TEST_CASE("ops inside a backward record nothing") {
  const Tensor<float> x = leaf({2}), w = leaf({3});
  Tape tape;
  Op op("inner", here());
  bool recorded = true;
  const auto y = op.record(contiguous(x.detach(), true), [&, dx = op.grad_of(x)](const Tensor<float>& dy) {
    recorded = (w * dy).requires_grad();
    dx.take(dy);
  });
  tape.backward(y);
  CHECK_FALSE(recorded);
}

TEST_CASE("a tape that lives through two steps is reported with its line") {
  const Tensor<float> x = leaf({2});
  Tape tape; const unsigned made = here().line;
  Tape::step_ended();  // nothing recorded yet
  const auto y = x * x;
  Tape::step_ended();
  const std::string error = tape_error([] { Tape::step_ended(); });
  CHECK_THAT(error, Catch::Contains(line(made)) && Catch::Contains("1 records") && Catch::Contains("hint"));
  tape.backward(y);
  Tape::step_ended();
}

TEST_CASE("a hundred thousand records, and the second run asks the system for nothing") {
  const Tensor<float> x = leaf({1, 2, 3, 4});
  const auto run = [&] {
    Tape tape;
    Tensor<float> y = x;
    for (int i = 0; i < 100000; ++i) y = y * 1.0;
    CHECK(tape.records() == 100000);
    tape.backward(sum(y));
    CHECK(gradient(x).to_vector() == std::vector<float>{1, 1, 1, 1});
    x.slot()->clear();
  };
  run();
  const std::size_t calls = memory_stats().system_calls;
  run();
  CHECK(memory_stats().system_calls == calls);
}

TEST_CASE("the ordinal of a module path counts from 0 in each tape") {
  const std::string path = "model.a", other = "model.b";
  Tape tape;
  CHECK(tape.next_ordinal(&path) == 0);
  CHECK(tape.next_ordinal(&path) == 1);
  CHECK(tape.next_ordinal(&other) == 0);
  const auto ordinals = tape.ordinals();
  CHECK(tape.next_ordinal(&path) == 2);
  tape.set_ordinals(ordinals);
  CHECK(tape.next_ordinal(&path) == 2);
}
