#include "weft/ops/compare.hpp"

#include "support.hpp"

using namespace weft;
using namespace weft::test;

namespace {
using Bools = std::vector<bool>;

/// A condition that is neither all true nor all false.
Tensor<bool> condition(const Shape& shape) {
  Tensor<bool> c(shape);
  for (Index i = 0; i < c.numel(); ++i) c.data()[i] = mix(1, static_cast<std::uint64_t>(i)) % 3 != 0;
  return c;
}
}  // namespace

TEST_CASE("comparisons broadcast and know NaN", "[compare]") {
  const auto a = from_vector<float>({1, 2, 3, NAN}), b = from_vector<float>({2, 2, 2, 2});
  for (const auto& right : {b, scalar<float>(2), slice(b, 0, 0, 1)}) {
    CHECK(equal(a, right).to_vector() == Bools{0, 1, 0, 0});
    CHECK(not_equal(a, right).to_vector() == Bools{1, 0, 1, 1});
    CHECK(less(a, right).to_vector() == Bools{1, 0, 0, 0});
    CHECK(less_equal(a, right).to_vector() == Bools{1, 1, 0, 0});
    CHECK(greater(a, right).to_vector() == Bools{0, 0, 1, 0});
    CHECK(greater_equal(a, right).to_vector() == Bools{0, 1, 1, 0});
  }
  const auto i = from_vector<std::int64_t>({1, 2, 3, 4}, {2, 2});
  CHECK(less(i, transpose(i)).to_vector() == Bools{0, 1, 0, 0});
  CHECK(equal(values({0, 3}), values({3})).shape() == Shape{0, 3});
}

TEST_CASE("a comparison records nothing", "[compare]") {
  auto x = from_vector<double>({1, 2}).require_grad();
  Tape tape;
  const auto c = greater(x, scalar<double>(1.5));
  CHECK(tape.records() == 0);
  CHECK_FALSE(c.requires_grad());
}

TEST_CASE("where: gradients go to what was chosen", "[compare]") {
  for_cases(0, [&](const Case& c) {
    const Shape shape = c.view(Tensor<double>(c.base)).shape();
    const Tensor<bool> chosen = condition(shape);
    check_gradients([&](const auto& a, const auto& b) { return where(chosen, c.view(a), b); }, values(c.base, 1),
                    values(shape, 2));
    check_gradients([&](const auto& a, const auto& b) { return where(chosen, b, c.view(a)); }, values(c.base, 3),
                    values({1}, 4));
    check_gradients([&](const auto& a) { return where(chosen, c.view(a), c.view(a)); }, values(c.base, 5));
  });
  const auto fn = [&](const auto& a, const auto& b) {
    return where(condition({5, 1, 3}), a, b);
  };  // all three broadcast
  check_gradients(fn, values({4, 1}), values({3}));
  check_gradients(fn, values({}), values({2, 5, 4, 3}));

  const auto a = values({3, 4}, 1), b = values({4}, 2);
  const auto chosen = condition({3, 1});
  const auto y = where(chosen, a, b);
  for (Index i = 0; i < 3; ++i)
    for (Index j = 0; j < 4; ++j) CHECK(y(i, j) == (chosen(i, 0) ? a(i, j) : b(j)));

  const auto large = [](const auto& p, const auto& q) { return where(condition({97, 131}), p, q); };
  check_thread_bits<double>(large, values({97, 131}), values({131}));
  check_thread_bits<float>(large, values({97, 131}), values({131}));
  check_against_double<float>(large, 1e-6, values({97, 131}), values({131}));   // a sum over 97
  check_against_double<bf16>(large, 0x1p-7, values({97, 131}), values({131}));  // one rounding to bf16
}

TEST_CASE("where does not let the other side's NaN through", "[compare]") {
  auto a = from_vector<double>({NAN, 1}).require_grad(), b = from_vector<double>({2, INFINITY}).require_grad();
  Tape tape;
  const auto y = where(from_vector<bool>({false, true}), a, b);
  CHECK(y.to_vector() == std::vector<double>{2, 1});
  tape.backward(y, from_vector<double>({3, 4}));
  CHECK(gradient(a).to_vector() == std::vector<double>{0, 4});
  CHECK(gradient(b).to_vector() == std::vector<double>{3, 0});
}

TEST_CASE("compare's errors", "[compare]") {
  const auto a = values({2, 3}), b = values({4, 5});
  check_error<ShapeError>([&] { equal(a, b); }, {"[equal]", "(2, 3)", "(4, 5)"});
  check_error<ShapeError>([&] { greater_equal(a, b); }, {"[greater_equal]"});
  check_error<ShapeError>([&] { where(condition({2}), a, a); }, {"[where]", "(2)", "(2, 3)"});
  check_error<ShapeError>([&] { where(condition({3}), a, b); }, {"[where]", "(2, 3)", "(4, 5)"});
}
