#include "weft/ops/arithmetic.hpp"

#include <limits>

#include "support.hpp"
#include "weft/ops/reciprocal.hpp"

using namespace weft;
using namespace weft::test;

namespace {

/// Pairs that broadcast, beside those of cases() with themselves.
// clang-format off
const std::pair<Shape, Shape> broadcasts[] = {
    {{}, {3}},        {{3}, {}},          {{1}, {4}},       {{2, 3}, {3}},    {{3}, {2, 3}},       {{2, 3}, {2, 1}},
    {{2, 1}, {1, 3}}, {{1, 3}, {2, 1}},   {{17}, {1}},      {{2, 3, 4}, {4}}, {{2, 3, 4}, {3, 1}}, {{7, 1}, {7, 1}},
    {{0, 3}, {3}},    {{1}, {0}},         {{2, 0}, {2, 1}}, {{1, 1}, {1}},    {{}, {}},            {{40, 3}, {1, 3}},
    {{3, 40}, {3, 1}}, {{4, 1, 5}, {3, 1}}, {{2, 1, 4}, {1, 3, 1}}, {{1, 2, 1, 3, 1}, {2, 1, 1, 4}}};
// clang-format on

template <class F, class R>
void check_binary(F&& fn, R&& reference, double low) {
  for_cases(0, [&](const Case& c) {  // two different layouts of one shape, and one tensor twice
    const Shape shape = c.view(Tensor<double>(c.base)).shape();
    check_gradients([&](const auto& a, const auto& b) { return fn(c.view(a), b); }, values(c.base, 1, low, 2),
                    values(shape, 2, low, 2));
    check_gradients([&](const auto& a) { return fn(c.view(a), c.view(a)); }, values(c.base, 3, low, 2));
    if (c.layout != Seen::repeated) check_gradients(fn, values(shape, 4, low, 2), c.view(values(c.base, 5, low, 2)));
  });
  for (const auto& [left, right] : broadcasts) {
    INFO("a " << to_string(left) << " b " << to_string(right));
    const Tensor<double> a = values(left, 6, low, 2), b = values(right, 7, low, 2), y = fn(a, b);
    const Tensor<double> a_full = expand(a, y.shape()), b_full = expand(b, y.shape());
    std::vector<double> expected;
    const auto as = doubles(a_full), bs = doubles(b_full);
    for (std::size_t i = 0; i < as.size(); ++i) expected.push_back(reference(as[i], bs[i]));
    CHECK(doubles(y) == expected);  // one rounding in both
    check_gradients(fn, a, b);
  }
  const Tensor<double> a = values({97, 131}, 8, low, 2), row = values({131}, 9, low, 2),
                       column = values({97, 1}, 10, low, 2);
  check_thread_bits<double>(fn, a, row);
  check_thread_bits<float>(fn, column, a);
  // One rounding of the result, some of a sum over 97 or 131 elements.
  check_against_double<float>(fn, 2e-6, a, row);
  check_against_double<bf16>(fn, 0x1p-6, a, column);
}

}  // namespace

TEST_CASE("add", "[arithmetic]") {
  check_binary([](const auto& a, const auto& b) { return add(a, b); }, [](double a, double b) { return a + b; }, -2);
}
TEST_CASE("sub", "[arithmetic]") {
  check_binary([](const auto& a, const auto& b) { return a - b; }, [](double a, double b) { return a - b; }, -2);
}
TEST_CASE("mul", "[arithmetic]") {
  check_binary([](const auto& a, const auto& b) { return a * b; }, [](double a, double b) { return a * b; }, -2);
}
TEST_CASE("div", "[arithmetic]") {
  check_binary([](const auto& a, const auto& b) { return a / b; }, [](double a, double b) { return a / b; }, 0.5);
}

namespace {
/// One of nine expressions, on tensors and on numbers, in one function, so that what takes it is compiled once.
template <class X>
X with_number(int i, const X& x) {
  switch (i) {
    case 0: return x + 3;
    case 1: return 3.5 + x;
    case 2: return x - 0.25;
    case 3: return 5 - x;
    case 4: return x * -3;
    case 5: return 7 * x;
    case 6: return x / 3;
    case 7: return 3 / x;
    default: return -x;
  }
}
}  // namespace

TEST_CASE("numbers on either side", "[arithmetic]") {
  for (int i = 0; i < 9; ++i) {
    INFO("expression " << i);
    check_unary([i](const auto& x) { return with_number(i, x); }, [i](double x) { return with_number(i, x); }, 0.5, 2,
                2e-6);
  }
}

TEST_CASE("one tensor on both sides gets both gradients, and a chain of ops its product", "[arithmetic]") {
  auto x = from_vector<double>({1, 2, 3}).require_grad();
  Tape tape;
  const auto y = x * x + 2 * x - x / x;
  CHECK(y.to_vector() == std::vector<double>{2, 7, 14});
  tape.backward(y, from_vector<double>({1, 10, 100}));
  CHECK(gradient(x).to_vector() == std::vector<double>{4, 60, 800});
}

TEST_CASE("add gives both inputs one gradient, and neither sees what the other does with it", "[arithmetic]") {
  auto a = from_vector<double>({1, 2}).require_grad(), b = from_vector<double>({3, 4}).require_grad();
  Tape tape;
  const auto y = (a + b) + a;  // a gets the gradient twice
  tape.backward(y, from_vector<double>({5, 6}));
  CHECK(gradient(a).to_vector() == std::vector<double>{10, 12});
  CHECK(gradient(b).to_vector() == std::vector<double>{5, 6});
}

TEST_CASE("integers have arithmetic and no gradient", "[arithmetic]") {
  const auto a = from_vector<std::int64_t>({7, -7, 9}), b = from_vector<std::int64_t>({2});
  CHECK((a + b).to_vector() == std::vector<std::int64_t>{9, -5, 11});
  CHECK((a - b).to_vector() == std::vector<std::int64_t>{5, -9, 7});
  CHECK((a * b).to_vector() == std::vector<std::int64_t>{14, -14, 18});
  CHECK((a / b).to_vector() == std::vector<std::int64_t>{3, -3, 4});
  CHECK((a / from_vector<std::int64_t>({0})).to_vector() == std::vector<std::int64_t>{0, 0, 0});
  const auto least = from_vector<std::int64_t>({std::numeric_limits<std::int64_t>::min()});
  CHECK((least / from_vector<std::int64_t>({-1})).item() == least.item());
  CHECK((a / 0.0).to_vector() == std::vector<std::int64_t>{0, 0, 0});
}

TEST_CASE("arithmetic's errors name op, shapes and the user's line", "[arithmetic]") {
  const auto a = values({2, 3}), b = values({4, 5}), c = values({2, 4});
  check_error<ShapeError>([&] { add(a, b); }, {"[add]", "(2, 3)", "(4, 5)", "axis -1"});
  check_error<ShapeError>([&] { return a + b; }, {"[add]", "(2, 3)", "(4, 5)"});
  check_error<ShapeError>([&] { return a - c; }, {"[sub]", "(2, 3)", "(2, 4)", "3 and 4"});
  check_error<ShapeError>([&] { return a * b; }, {"[mul]"});
  check_error<ShapeError>([&] { return a / b; }, {"[div]"});
  check_error<ShapeError>([&] { return a / 3 + b * 2; }, {"[add]"});
}

TEST_CASE("an operator's error names exactly the line that it stands on", "[arithmetic]") {
  const auto a = values({2, 3}), b = values({4, 5});
  std::string text;
  const int line = __LINE__ + 2;
  try {
    (void)(a * 2 + b);
  } catch (const ShapeError& error) { text = error.what(); }
  CHECK_THAT(text, Catch::Contains("arithmetic.cpp:" + std::to_string(line)));
}
