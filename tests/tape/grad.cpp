// Where gradients gather: views into their root's, parts of a split, buffers that are shared until somebody writes, leaves over
// several tapes, and the event after a parameter's last write.
#include "weft/tape/grad.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/cast.hpp"
#include "weft/ops/exp.hpp"
#include "weft/ops/sum.hpp"
#include "weft/ops/view.hpp"
#include "weft/tape/checkpoint.hpp"

using namespace weft;

namespace {
using Floats = std::vector<float>;
Tensor<float> leaf(Floats values, const Shape& shape) { return from_vector<float>(values, shape).require_grad(); }
Tensor<float> leaf(Floats values) { return from_vector<float>(values).require_grad(); }

struct Counter : Sink {
  std::vector<const Slot*> fired;
  std::vector<Floats> values;  ///< of the gradient when it fired
  void ready(Slot& slot) noexcept override {
    fired.push_back(&slot);
    values.push_back(detail::gradient<float, cpu>(slot).to_vector());
  }
};
}  // namespace

TEST_CASE("parts of a split share one gradient buffer, and a part without a gradient is zeros") {
  const Tensor<float> x = leaf({1, 2, 3, 4, 5, 6}, {2, 3});
  Tape tape;
  const auto y = x * 10.0;
  const auto parts = split(y, {1, 1, 1}, 1);
  tape.backward(sum(parts[0] * 2.0) + sum(parts[2] * 3.0));
  CHECK(gradient(x).to_vector() == Floats{20, 0, 30, 20, 0, 30});
}

TEST_CASE("a part that is used twice") {
  const Tensor<float> x = leaf({1, 2, 3, 4}, {2, 2});
  Tape tape;
  const auto parts = split(x * 1.0, {1, 1}, 0);
  tape.backward(sum(parts[0] * 2.0 + parts[0] * 5.0));
  CHECK(gradient(x).to_vector() == Floats{7, 7, 0, 0});
}

TEST_CASE("a tensor used whole and through its parts, in either order") {
  for (const bool whole_first : {true, false}) {
    const Tensor<float> x = leaf({1, 2, 3, 4}, {2, 2});
    Tape tape;
    const auto y = x * 1.0;
    const auto parts = split(y, {1, 1}, 0);
    const auto a = sum(y * y), b = sum(parts[1] * 100.0);
    tape.backward(whole_first ? b + a : a + b);
    CHECK(gradient(x).to_vector() == Floats{2, 4, 106, 108});
  }
}

TEST_CASE("split of a leaf, of a view, and of a part") {
  const Tensor<float> x = leaf({1, 2, 3, 4, 5, 6, 7, 8}, {2, 4});
  {
    Tape tape;
    const auto p = split(x, {1, 3}, 1);
    tape.backward(sum(p[1] * 2.0));
    CHECK(gradient(x).to_vector() == Floats{0, 2, 2, 2, 0, 2, 2, 2});
  }
  x.slot()->clear();
  {
    Tape tape;
    const auto p = split(transpose(x * 1.0), {1, 3}, 0);  // columns of x
    tape.backward(sum(p[0] * 5.0));
    CHECK(gradient(x).to_vector() == Floats{5, 0, 0, 0, 5, 0, 0, 0});
  }
  x.slot()->clear();
  {
    Tape tape;
    const auto p = split(x * 1.0, {2, 2}, 1);
    const auto q = split(p[0], {1, 1}, 1);
    tape.backward(sum(q[1] * 3.0) + sum(p[1]));
    CHECK(gradient(x).to_vector() == Floats{0, 3, 1, 1, 0, 3, 1, 1});
  }
}

TEST_CASE("two splits of one tensor") {
  const Tensor<float> x = leaf({1, 2, 3, 4});
  Tape tape;
  const auto y = x * 1.0;
  const auto a = split(y, {1, 3}, 0), b = split(y, {2, 2}, 0);
  tape.backward(sum(a[1] * 10.0) + sum(b[0] * 1.0));
  CHECK(gradient(x).to_vector() == Floats{1, 11, 10, 10});
}

TEST_CASE("a reshaped part writes all of it") {
  const Tensor<float> x = leaf({1, 2, 3, 4, 5, 6}, {2, 3});
  Tape tape;
  const auto parts = split(x * 1.0, {2, 1}, 1);
  tape.backward(sum(unsqueeze(parts[0], 0) * 4.0) + sum(parts[1] * 9.0));
  CHECK(gradient(x).to_vector() == Floats{4, 4, 9, 4, 4, 9});
}

TEST_CASE("slices that overlap add up") {
  const Tensor<float> x = leaf({1, 2, 3, 4});
  Tape tape;
  const auto y = x * 1.0;
  tape.backward(sum(slice(y, 0, 0, 3)) + sum(slice(y, 0, 1, 4) * 10.0) + sum(slice(y, 0, 1, 4) * 100.0));
  CHECK(gradient(x).to_vector() == Floats{1, 111, 111, 110});
}

TEST_CASE("views of views, and elements that are repeated") {
  const Tensor<float> x = leaf({1, 2, 3, 4, 5, 6}, {2, 3});
  Tape tape;
  const auto v = transpose(slice(x, 1, 1, 3));                                     // (2, 2)
  const auto e = expand(unsqueeze(select(x, 0, 0), 0), {4, 3});                    // row 0, four times
  tape.backward(sum(reshape(v, {4}) * from_vector<float>({1, 2, 3, 4})) + sum(e));
  CHECK(gradient(x).to_vector() == Floats{4, 5, 7, 0, 2, 4});
}

TEST_CASE("one gradient in two places is copied when one of them is written") {
  const Tensor<float> x = leaf({1, 2});
  Tape tape;
  const auto a = x * 1.0;
  const auto twice = a + a;          // both take the same dy
  const auto b = twice + a;          // and one more
  tape.backward(sum(b * from_vector<float>({1, 10})));
  CHECK(gradient(x).to_vector() == Floats{3, 30});
}

TEST_CASE("x + x of a leaf") {
  const Tensor<float> x = leaf({1, 2});
  Tape tape;
  tape.backward(sum(x + x));
  CHECK(gradient(x).to_vector() == Floats{2, 2});
}

TEST_CASE("a residual chain") {
  const Tensor<float> x = leaf({1});
  Tape tape;
  Tensor<float> y = x * 1.0;
  for (int i = 0; i < 5; ++i) y = y + y * 2.0;  // times 3
  tape.backward(y);
  CHECK(gradient(x).item() == 243);
}

TEST_CASE("two leaves of one sum have gradients of their own") {
  const Tensor<float> x = leaf({1, 2}), y = leaf({3, 4});
  Tape tape;
  tape.backward(sum((x + y) * 2.0));
  gradient(x).assign(Floats{7, 7});
  CHECK(gradient(y).to_vector() == Floats{2, 2});
}

TEST_CASE("a leaf gathers over tapes") {
  const Tensor<float> x = leaf({1, 2});
  for (int micro = 0; micro < 3; ++micro) {
    Tape tape;
    tape.backward(sum(x * static_cast<double>(micro + 1)));
  }
  CHECK(gradient(x).to_vector() == Floats{6, 6});
  x.slot()->clear();
  CHECK_FALSE(gradient(x).defined());
  Tape tape;
  tape.backward(sum(x));
  CHECK(gradient(x).to_vector() == Floats{1, 1});
}

TEST_CASE("the gradient of a leaf in bf16 is float, and gathers in float") {
  Tensor<bf16> w({1});
  w.set({0}, bf16(1.0f));
  w.require_grad();
  for (int i = 0; i < 300; ++i) {  // in bf16 the sum would stop at 256
    Tape tape;
    tape.backward(sum(cast<float>(w)));
  }
  STATIC_REQUIRE(std::is_same_v<decltype(gradient(w)), Tensor<float>>);
  CHECK(gradient(w).item() == 300);
}

TEST_CASE("only leaves keep their gradient") {
  const Tensor<float> x = leaf({1});
  Tape tape;
  const auto y = x * 2.0;
  tape.backward(y * 3.0);
  CHECK_FALSE(gradient(y).defined());
  CHECK(gradient(x).item() == 6);
}

TEST_CASE("ready fires once, after the last write") {
  Counter sink;
  const Tensor<float> w = leaf({2}), v = leaf({3}), unused = leaf({4});
  for (const auto& t : {w, v, unused}) t.slot()->sink = &sink;
  {
    Tape tape;
    const auto y = w * v;
    const auto z = y * w;   // w twice: tied
    tape.backward(z * w);   // and a third time: w^3 v
    CHECK(sink.fired.size() == 2);
  }
  CHECK(std::count(sink.fired.begin(), sink.fired.end(), w.slot().get()) == 1);
  CHECK(std::count(sink.fired.begin(), sink.fired.end(), v.slot().get()) == 1);
  for (std::size_t i = 0; i < sink.fired.size(); ++i)
    CHECK(sink.values[i] == (sink.fired[i] == w.slot().get() ? Floats{36} : Floats{8}));
}

TEST_CASE("ready fires as soon as it can, before earlier records run") {
  Counter sink;
  const Tensor<float> early = leaf({2}), late = leaf({3});
  for (const auto& t : {early, late}) t.slot()->sink = &sink;
  Tape tape;
  tape.backward((early * 1.0) * late);
  CHECK(sink.fired == std::vector<const Slot*>{late.slot().get(), early.slot().get()});
}

TEST_CASE("ready does not fire where a tape ends without backward") {
  Counter sink;
  const Tensor<float> w = leaf({2});
  w.slot()->sink = &sink;
  {
    const Tape tape;
    (void)(w * w);
  }
  CHECK(sink.fired.empty());
  CHECK(w.slot()->pending == 0);
}

TEST_CASE("ready waits for what a checkpoint makes again") {
  Counter sink;
  const Tensor<float> w = leaf({2}), x = leaf({5});
  w.slot()->sink = &sink;
  Tape tape;
  const auto y = checkpoint([w](const Tensor<float>& a) { return a * w * w; }, x * 1.0);
  tape.backward(y * w);  // x w^3
  CHECK(sink.fired.size() == 1);
  CHECK(sink.values.at(0) == Floats{60});
  CHECK(gradient(x).item() == 8);
}
