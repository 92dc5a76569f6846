#include "weft/ops/concat.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"

using namespace weft;
using namespace weft::test;

TEST_CASE("concat: gradients of every part", "[concat]") {
  for_cases(1, [&](const Case& c) {
    const Shape shape = c.view(Tensor<double>(c.base)).shape();
    for (Index axis : {Index{0}, shape.rank() - 1}) {
      Shape other = shape;
      other[axis] += 2;
      const auto fn = [&](const auto& a, const auto& b) {
        return concat<double, cpu>({c.view(a), b, c.view(a)}, axis);
      };
      check_gradients(fn, values(c.base, 1), values(other, 2));
      if (c.layout != Seen::repeated)
        check_gradients(
            [&](const auto& a, const auto& b) {
              return concat<double, cpu>({a, b}, axis - shape.rank());
            },
            c.view(values(c.base, 1)), values(other, 2));
    }
  });
}

TEST_CASE("concat: values, parts of nothing, one part, many", "[concat]") {
  const auto a = values({2, 3}, 1), b = values({2, 1}, 2), none = values({2, 0}, 3);
  const auto y = concat<double, cpu>({a, none, b, a}, 1);
  CHECK(y.shape() == Shape{2, 7});
  for (Index i = 0; i < 2; ++i)
    for (Index j = 0; j < 7; ++j) CHECK(y(i, j) == (j < 3 ? a(i, j) : j == 3 ? b(i, 0) : a(i, j - 4)));
  CHECK(concat<double, cpu>({a}).to_vector() == a.to_vector());
  CHECK(concat<std::int64_t, cpu>({from_vector<std::int64_t>({1}), from_vector<std::int64_t>({2, 3})}).to_vector() ==
        std::vector<std::int64_t>{1, 2, 3});
  check_gradients([](const auto& x) { return concat<double, cpu>(std::vector<Tensor<double>>(9, x), 1); },
                  values({2, 2}));
}

TEST_CASE("concat undoes split, without a trace in the gradient", "[concat]") {
  check_gradients(
      [](const auto& x) {
        const auto [p, q, r] = split(x, {2, 1, 4}, 1);
        return concat<double, cpu>({p, q, r}, 1) * x;
      },
      values({3, 7}));
}

TEST_CASE("concat: types and threads", "[concat]") {
  const auto fn = [](const auto& a, const auto& b) { return concat(std::vector{a, b, a}, 1); };
  check_thread_bits<double>(fn, values({97, 65}), values({97, 33}));
  check_thread_bits<float>(fn, values({97, 65}), values({97, 33}));
  check_against_double<float>(fn, 1e-6, values({97, 65}), values({97, 33}));  // one sum of two
  check_against_double<bf16>(fn, 0x1p-7, values({97, 65}), values({97, 33}));
}

TEST_CASE("concat's errors", "[concat]") {
  const auto a = values({2, 3}), b = values({3, 3}), c = values({2, 3, 1});
  check_error<ShapeError>([&] { concat<double, cpu>({}); }, {"[concat]", "at least one"});
  check_error<ShapeError>([&] { concat<double, cpu>({a, b}, 1); }, {"[concat]", "axis 1", "(2, 3)", "(3, 3)"});
  check_error<ShapeError>([&] { concat<double, cpu>({a, c}, 1); }, {"[concat]", "(2, 3)", "(2, 3, 1)"});
  check_error<ShapeError>([&] { concat<double, cpu>({a, a}, 2); }, {"[concat]", "got 2", "rank 2"});
  check_error<ShapeError>([&] { concat<double, cpu>({values({}), values({})}); }, {"[concat]", "rank 0"});
}
