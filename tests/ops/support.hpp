// What the tests of ops share: inputs of many shapes and strides, gradients against differences, other element types
// against double, the same bits for any number of threads, and the text of an error.
#pragma once

#include <functional>
#include <string>
#include <tuple>

#include "../support.hpp"
#include "weft/ops/view.hpp"
#include "weft/tape/gradcheck.hpp"

namespace weft::test {

/// Values for a tensor of this shape, uniform in [low, high), the same for the same seed; float holds them too.
inline Tensor<double> values(const Shape& shape, std::uint64_t seed = 1, double low = -1, double high = 1) {
  return from_vector<double>(uniform<double>(numel(shape), low, high, seed), shape);
}

/// Values in random order at least 1/16 apart, for ops that have a kink where two are equal.
inline Tensor<double> distinct(const Shape& shape, std::uint64_t seed = 1) {
  std::vector<double> all;
  for (Index i = 0; i < numel(shape); ++i) all.push_back(static_cast<double>(i - numel(shape) / 2) / 16);
  for (std::size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[mix(seed, i) % i]);
  return from_vector<double>(all, shape);
}

/// How an op's input lies in the tensor that it shows.
enum class Seen { plain, transposed, rows, columns, selected, repeated };

/// A tensor of `base` extents and a view of it.
struct Case {
  Shape base;
  Seen layout = Seen::plain;

  template <class T>
  Tensor<T> view(const Tensor<T>& x) const {
    switch (layout) {
      case Seen::plain: return x;
      case Seen::transposed: return transpose(x, 0, -1);
      case Seen::rows: return slice(x, 0, 1, x.size(0));
      case Seen::columns: return slice(x, -1, 1, x.size(-1) - 1);
      case Seen::selected: return select(x, 1, 1);
      case Seen::repeated: {
        Shape shape = x.shape();
        for (Index a = 0; a < shape.rank(); ++a)
          if (shape[a] == 1) shape[a] = 3;
        shape.insert(0, 2);
        return expand(x, shape);
      }
    }
    return x;
  }
  std::string text() const { return to_string(base) + " layout " + std::to_string(static_cast<int>(layout)); }
};

/// More than 20: ranks 0 to 5, extents 0 and 1, some longer than a vector, views with gaps, transposed, repeated.
inline const std::vector<Case>& cases() {
  static const std::vector<Case> all = {{{}},
                                        {{0}},
                                        {{1}},
                                        {{2}},
                                        {{5}},
                                        {{37}},
                                        {{0, 3}},
                                        {{3, 0}},
                                        {{1, 1}},
                                        {{2, 3}},
                                        {{1, 7}},
                                        {{7, 1}},
                                        {{3, 19}},
                                        {{2, 3, 4}},
                                        {{2, 0, 4}},
                                        {{1, 2, 3, 2}},
                                        {{2, 1, 2, 1, 3}},
                                        {{3, 4}, Seen::transposed},
                                        {{2, 3, 4}, Seen::transposed},
                                        {{1, 4}, Seen::transposed},
                                        {{4, 3}, Seen::rows},
                                        {{3, 5}, Seen::columns},
                                        {{2, 3, 4}, Seen::columns},
                                        {{2, 3, 4}, Seen::selected},
                                        {{3, 2}, Seen::selected},
                                        {{1, 3}, Seen::repeated},
                                        {{3, 1}, Seen::repeated},
                                        {{}, Seen::repeated}};
  return all;
}

/// The shapes without layouts, for ops of one axis' extent and other inputs that follow from it.
template <class F>
void for_cases(Index least_rank, F&& f) {
  int count = 0;
  for (const Case& c : cases()) {
    if (c.view(Tensor<double>(c.base)).rank() < least_rank) continue;
    INFO("case " << c.text());
    f(c);
    ++count;
  }
  CHECK(count >= 20);
}

/// A function whose type does not tell which, so that what takes it is compiled once.
template <class T, class... X>
using Function = std::function<T(const X&...)>;

template <class... X>
void check_gradients_of(const Function<Tensor<double>, X...>& fn, const X&... inputs) {
  const GradcheckResult result = gradcheck(fn, inputs...);
  INFO("error " << result.error << " at " << result.worst);
  CHECK(result.ok());
}
template <class F, class... X>
void check_gradients(F&& fn, const X&... inputs) {
  check_gradients_of<X...>(Function<Tensor<double>, X...>(fn), inputs...);
}

/// The gradient of an op of one input, for every case: the input is a view of a leaf, and (but for repeated elements,
/// which differences cannot move one by one) the leaf itself lies so.
template <class F>
void check_gradients_of_cases(F&& fn, Index least_rank = 0, double low = -1, double high = 1) {
  for_cases(least_rank, [&](const Case& c) {
    check_gradients([&](const Tensor<double>& x) { return fn(c.view(x)); }, values(c.base, 1, low, high));
    if (c.layout != Seen::repeated) check_gradients(fn, c.view(values(c.base, 2, low, high)));
  });
}

template <class T, class D>
std::vector<double> doubles(const Tensor<T, D>& x) {
  std::vector<double> result;
  if (x.defined()) x.for_each_offset([&](Index at) { result.push_back(static_cast<double>(x.data()[at])); });
  return result;
}

/// The same values in another type, row-major.
template <class T>
Tensor<T> in_type(const Tensor<double>& x) {
  Tensor<T> y(x.shape());
  Index i = 0;
  x.for_each_offset([&](Index at) { y.data()[i++] = static_cast<T>(static_cast<stat_t<T>>(x.data()[at])); });
  return y;
}

template <class Y, class... X>
std::vector<std::vector<double>> outcome_of(const std::function<Tensor<Y>(const X&...)>& fn, X... inputs) {
  std::tuple<X...> leaves{inputs...};
  std::apply([](auto&... x) { (x.require_grad(), ...); }, leaves);
  Tape tape(Key{5, 2});
  const Tensor<Y> y = std::apply(fn, leaves);
  std::vector<std::vector<double>> result{doubles(y)};
  if (y.slot()) {
    Tensor<Y> dy(y.shape());
    for (Index i = 0; i < dy.numel(); ++i)
      dy.data()[i] = static_cast<Y>(static_cast<float>(mix(3, static_cast<std::uint64_t>(i)) % 64) / 32 - 1);
    tape.backward(y, dy);
  }
  std::apply([&](auto&... x) { (result.push_back(doubles(gradient(x))), ...); }, leaves);
  return result;
}
/// The result of fn and the gradients of its inputs, all as doubles; dy is pseudo-random and exact in bf16.
template <class T, class F, class... X>
std::vector<std::vector<double>> outcome(F&& fn, const X&... inputs) {
  using Result = std::decay_t<decltype(fn(in_type<T>(inputs)...))>;
  using Y = typename Result::value_type;
  const std::function<Tensor<Y>(const decltype(in_type<T>(inputs))&...)> erased = fn;
  return outcome_of<Y>(erased, in_type<T>(inputs)...);
}

/// Each element of `got` lies within tolerance * (the largest |expected|, at least `least`) of what is expected; NaN is
/// never near.
inline void check_near(const std::vector<double>& got, const std::vector<double>& expected, double tolerance,
                       double least = 0) {
  REQUIRE(got.size() == expected.size());
  double scale = least, worst = 0;
  std::size_t at = 0;
  for (double e : expected) scale = std::max(scale, std::abs(e));
  for (std::size_t i = 0; i < got.size(); ++i)
    if (const double error = std::abs(got[i] - expected[i]); !(error <= worst)) worst = error, at = i;
  INFO("element " << at << " of " << got.size() << ", difference " << worst << ", scale " << scale);
  CHECK(worst <= tolerance * scale);
}
template <class T>
void check_near(const Tensor<T>& got, const std::vector<double>& expected, double tolerance) {
  check_near(doubles(got), expected, tolerance);
}

/// What check_near allows; `least` is for gradients that cancel to 0 from terms of that size.
struct Near {
  double tolerance, least;
  Near(double tolerance_, double least_ = 0) : tolerance(tolerance_), least(least_) {}
};

/// fn in type T, forward and gradients, against fn in double on the same values (rounded to T first).
template <class T, class F, class... X>
void check_against_double(F&& fn, Near near, const X&... inputs) {
  const auto got = outcome<T>(fn, inputs...);
  const auto expected =
      outcome<double>(fn, in_type<double>(from_vector<double>(doubles(in_type<T>(inputs)), inputs.shape()))...);
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    INFO((i == 0 ? std::string("result") : "gradient of input " + std::to_string(i - 1)));
    check_near(got[i], expected[i], near.tolerance, near.least);
  }
}
template <class F, class... X>
void check_float_against_double(F&& fn, double tolerance, const X&... inputs) {
  check_against_double<float>(fn, tolerance, inputs...);
}

/// fn's result and gradients against those of a composition of plain ops, in double. Inputs are of order 1, and so are
/// the terms of a composition whose result cancels to 0.
template <class F, class G, class... X>
void check_against_composition(F&& fn, G&& composition, double tolerance, const X&... inputs) {
  const auto got = outcome<double>(fn, inputs...), expected = outcome<double>(composition, inputs...);
  for (std::size_t i = 0; i < got.size(); ++i) {
    INFO((i == 0 ? std::string("result") : "gradient of input " + std::to_string(i - 1)));
    check_near(got[i], expected[i], tolerance, 1);
  }
}

/// Result and gradients have the same bits for 1, 2, 3 and 7 threads.
template <class T, class F, class... X>
void check_thread_bits(F&& fn, const X&... inputs) {
  const auto all = same_for_any_threads([&] {
    std::vector<double> bits;
    for (const auto& part : outcome<T>(fn, inputs...)) bits.insert(bits.end(), part.begin(), part.end());
    return bits;
  });
  CHECK(all.size() > 1);
}

/// f throws an E whose text holds all parts and names this call's file, at most 4 lines away (a long call has several).
template <class E, class F>
void check_error(F&& f, std::initializer_list<std::string> parts, Where where = here()) {
  std::string text;
  try {
    f();
  } catch (const E& error) { text = error.what(); }
  for (const std::string& part : parts) CHECK_THAT(text, Catch::Contains(part));
  bool near = false;
  for (unsigned line = where.line - 4; line <= where.line + 4; ++line)
    near = near ||
           text.find("at " + std::string(where.file) + ":" + std::to_string(line) + "\n") != std::string::npos ||
           text.ends_with(":" + std::to_string(line));
  INFO(text << "\ncalled at line " << where.line);
  CHECK(near);
}

/// Everything that an elementwise op of one input promises. `reference` is its formula in double on one number.
template <class F, class R>
void check_unary(F&& fn, R&& reference, double low, double high, double float_tolerance) {
  check_gradients_of_cases(fn, 0, low, high);
  for_cases(0, [&](const Case& c) {
    const Tensor<double> x = c.view(values(c.base, 3, low, high)), y = fn(x);
    CHECK(y.shape() == x.shape());
    std::vector<double> expected;
    for (double v : doubles(x)) expected.push_back(reference(v));
    check_near(y, expected, 1e-14);  // some roundings of double
  });
  const Tensor<double> large = values({97, 131}, 4, low, high);
  check_against_double<float>(fn, float_tolerance, large);
  check_against_double<bf16>(fn, 0x1p-7, large);  // bf16 keeps 8 bits: input gradient and result round once each
  check_thread_bits<double>(fn, large);
  check_thread_bits<float>(fn, large);
}

}  // namespace weft::test
