#include "weft/kernels/cpu/rope.hpp"

#include "kernels/cpu/rows_support.hpp"

using namespace weft;
using namespace weft::test;

namespace {
using Positions = std::vector<std::int64_t>;

/// position(b, t) of a (B, T, H, D) array, turned as the formula says.
template <class Position>
Values reference(const Shape& s, const Values& x, Position position, double theta, bool inverse = false) {
  Values y(x.size());
  const Index half = s[3] / 2;
  for (Index b = 0; b < s[0]; ++b)
    for (Index t = 0; t < s[1]; ++t)
      for (Index h = 0; h < s[2]; ++h)
        for (Index i = 0; i < half; ++i) {
          const double angle = static_cast<double>(position(b, t)) *
                               std::pow(theta, -2 * static_cast<double>(i) / static_cast<double>(s[3])) *
                               (inverse ? -1 : 1);
          const auto at = static_cast<std::size_t>(((b * s[1] + t) * s[2] + h) * s[3] + i),
                     other = at + static_cast<std::size_t>(half);
          y[at] = x[at] * std::cos(angle) - x[other] * std::sin(angle);
          y[other] = x[other] * std::cos(angle) + x[at] * std::sin(angle);
        }
  return y;
}

const std::vector<Shape>& shapes() {
  static const std::vector<Shape> list = {
      {1, 1, 1, 2},   {0, 3, 2, 4},   {2, 0, 2, 4},   {2, 3, 0, 4},   {1, 1, 3, 6},    {2, 3, 2, 4},   {1, 15, 1, 8},
      {1, 16, 2, 8},  {2, 17, 3, 10}, {3, 5, 1, 34},  {1, 33, 2, 64}, {2, 64, 1, 2},   {1, 65, 1, 66}, {1, 130, 2, 4},
      {2, 1, 1, 128}, {4, 2, 2, 16},  {1, 2, 12, 64}, {2, 31, 1, 6},  {1, 100, 1, 30}, {3, 3, 3, 2}};
  return list;
}
}  // namespace

// The angle's rounding costs 1e-16 times the position; float stores the cosine and the result, a few 2^-24 each.
TEMPLATE_TEST_CASE("rope agrees with the formula for every kind of positions", "[rope]", float, double, bf16) {
  for (bool gaps : {false, true})
    for (const Shape& s : shapes()) {
      INFO(to_string(s) << " gaps " << gaps);
      const Array<TestType> x(s, gaps);
      Array<TestType> y(s, gaps);
      const double tol = tolerance<TestType>(4);
      kernels::rope_forward<TestType>(cpu{}, x, {}, 10000, 5, false, y.out());
      CHECK(distance(y.values(), reference(
                                     s, x.values(), [](Index, Index t) { return 5 + t; }, 10000)) <= tol);
      kernels::rope_forward<TestType>(cpu{}, x, {}, 500000, 5, true, y.out());
      CHECK(distance(y.values(), reference(
                                     s, x.values(), [](Index, Index t) { return 5 + t; }, 500000, true)) <= tol);

      Positions shared, each;
      for (Index t = 0; t < s[1]; ++t) shared.push_back(t * 37 % 101 - 20);  // in no order, some below zero
      for (Index r = 0; r < s[0] * s[1]; ++r) each.push_back(r * r % 1000);
      kernels::rope_forward<TestType>(cpu{}, x, {shared.data(), {s[1]}, {1}}, 10000, 0, false, y.out());
      const auto of_shared = [&](Index, Index t) { return shared[static_cast<std::size_t>(t)]; };
      if (x.size() > 0) CHECK(distance(y.values(), reference(s, x.values(), of_shared, 10000)) <= tol);
      kernels::rope_forward<TestType>(cpu{}, x, {each.data(), {s[0], s[1]}, {s[1], 1}}, 10000, 0, false, y.out());
      const auto of_each = [&](Index b, Index t) { return each[static_cast<std::size_t>(b * s[1] + t)]; };
      if (x.size() > 0) CHECK(distance(y.values(), reference(s, x.values(), of_each, 10000)) <= tol);
      CHECK(y.gaps_untouched());
    }
}

TEST_CASE("rope's gradient is the inverse turn", "[rope]") {
  for (const Shape& s : shapes()) {
    INFO(to_string(s));
    const Array<double> x(s), dy(s, true, -1, 1, 2);
    Array<double> dx(s, true);
    kernels::rope_forward<double>(cpu{}, dy, {}, 10000, 3, true, dx.out());
    const Values weights = dy.values();
    CHECK(gradient_error(x.values(), dx.values(), [&](const Values& v) {
            return dot(reference(
                           s, v, [](Index, Index t) { return 3 + t; }, 10000),
                       weights);
          }) < 1e-6);
  }
}

TEST_CASE("rope's values depend on the position alone: decoding gives the bits of a whole sequence", "[rope]") {
  const Shape s{1, 100, 2, 64};
  const Array<float> x(s);
  Array<float> y(s);
  kernels::rope_forward<float>(cpu{}, x, {}, 10000, 0, false, y.out());
  for (Index t = 0; t < 100; ++t) {
    std::vector<float> one(128);
    kernels::rope_forward<float>(cpu{}, {x.store.data() + t * 128, {1, 1, 2, 64}, {128, 128, 64, 1}}, {}, 10000, t,
                                 false, {one.data(), {1, 1, 2, 64}, {128, 128, 64, 1}, 0});
    CHECK(std::equal(one.begin(), one.end(), y.store.begin() + t * 128));
  }
}

TEST_CASE("rope with beta 1, in place, without output, and with any threads", "[rope]") {
  const Shape s{2, 19, 3, 10};
  const Array<float> x(s);
  Array<float> y(s), added(s), in_place(s);
  kernels::rope_forward<float>(cpu{}, x, {}, 10000, 0, false, y.out());
  std::fill(added.store.begin(), added.store.end(), 3.0f);
  kernels::rope_forward<float>(cpu{}, x, {}, 10000, 0, false, added.out(1));
  kernels::rope_forward<float>(cpu{}, in_place, {}, 10000, 0, false, in_place.out());
  for (std::size_t i = 0; i < y.store.size(); ++i) CHECK(added.store[i] == 3.0f + y.store[i]);
  CHECK(same_bits(in_place.store, y.store));
  kernels::rope_forward<float>(cpu{}, x, {}, 10000, 0, false, {});
  same_for_any_threads([] {
    Array<float> a({3, 150, 5, 16}), b({3, 150, 5, 16});
    kernels::rope_forward<float>(cpu{}, a, {}, 10000, 11, false, b.out());
    return b.store;
  });
}
