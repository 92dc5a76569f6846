// Reductions over every choice of axes and layout against plain loops in double.
#include "weft/kernels/cpu/reduce.hpp"

#include <limits>

#include "strided.hpp"

using namespace weft;
using namespace weft::test;
namespace k = weft::kernels;

namespace {
constexpr Layout layouts[] = {Layout::rows, Layout::reversed, Layout::gaps};

Shape kept_shape(const Shape& shape, unsigned mask) {
  Shape y = shape;
  for (Index a = 0; a < shape.rank(); ++a)
    if (mask >> a & 1u) y[a] = 1;
  return y;
}
}  // namespace

TEST_CASE("map_sum over any axes is the sum", "[kernels][reduce]") {
  for (const Shape& shape : shapes())
    for (unsigned mask = 0; mask < (1u << shape.rank()); ++mask)
      for (const Layout layout : layouts) {
        const Shape small = kept_shape(shape, mask);
        INFO(to_string(shape) << " to " << to_string(small) << " layout " << static_cast<int>(layout));
        const auto x = Array<float>::random(shape, layout, 1), z = Array<float>::random(small, Layout::rows, 2);
        auto y = Array<float>::random(small, layout, 3);
        std::vector<double> want(y.data.begin(), y.data.end());
        auto exact = Array<double>(small, layout);
        each(shape, [&](const Dims& i) {
          const auto slot = &at(exact.broadcast(shape), i) - exact.data.data();
          want[static_cast<std::size_t>(slot)] += static_cast<double>(at(x.in(), i)) * at(z.broadcast(shape), i);
        });
        k::map_sum<k::Mul, float, float, float>(cpu{}, k::Mul{}, y.out(1), x.in(), z.broadcast(shape));
        // A lane adds at most 32 terms, the trees have about 9 levels: 50 * 2^-24 of the sum of magnitudes (each <= 4).
        const double terms = static_cast<double>(std::max<Index>(1, numel(shape)));
        Index wrong = 0;
        for (std::size_t i = 0; i < want.size(); ++i)
          wrong += !(std::fabs(want[i] - static_cast<double>(y.data[i])) <= 50 * 0x1p-24 * 4 * (1 + terms));
        CHECK(wrong == 0);
        // In double the same tree must be right to the last digits; y by stride 0 instead of extent 1.
        auto x64 = Array<double>(shape, layout);
        for (std::size_t i = 0; i < x64.data.size(); ++i) x64.data[i] = static_cast<double>(x.data[i]);
        auto y64 = Array<double>(small, layout);
        auto out = y64.out();
        out.strides = y64.broadcast(shape).strides;
        if (numel(small) > 0 && numel(shape) > 0) out.shape = shape;
        k::map_sum<k::Copy, double, double>(cpu{}, k::Copy{}, out, x64.in());
        std::vector<double> sums(y64.data.size());
        each(shape, [&](const Dims& i) {
          sums[static_cast<std::size_t>(&at(y64.broadcast(shape), i) - y64.data.data())] += at(x64.in(), i);
        });
        wrong = 0;
        for (std::size_t i = 0; i < sums.size(); ++i)
          wrong += !(std::fabs(sums[i] - y64.data[i]) <= 1e-13 * (1 + terms));
        CHECK(wrong == 0);
      }
}

TEST_CASE("a sum's bits depend on neither the layout nor the other axes nor the threads", "[kernels][reduce]") {
  const Shape shape = {1500, 3, 300};
  const auto x = Array<float>::random(shape, Layout::rows, 5);
  for (const unsigned mask : {1u, 2u, 4u, 5u, 6u, 7u}) {
    INFO("mask " << mask);
    const Shape small = kept_shape(shape, mask);
    auto y = Array<float>(small);
    const auto expected = same_for_any_threads([&] {
      k::map_sum<k::Square, float, float>(cpu{}, k::Square{}, y.out(), x.in());
      return y.data;
    });
    for (const Layout layout : {Layout::reversed, Layout::gaps}) {
      auto other = Array<float>(shape, layout);
      k::map<k::Copy, float, float>(cpu{}, k::Copy{}, other.out(), x.in());
      auto y2 = Array<float>(small);
      k::map_sum<k::Square, float, float>(cpu{}, k::Square{}, y2.out(), other.in());
      CHECK(same_bits(expected, y2.data));
    }
  }
  auto all = Array<float>({1500, 1, 1}), one = Array<float>({1, 1, 1});
  k::map_sum<k::Copy, float, float>(cpu{}, k::Copy{}, all.out(), x.in());
  for (const Index i : {0, 7, 1499}) {
    const In<float, cpu> row{x.data.data() + i * 900, {1, 3, 300}, x.strides};
    k::map_sum<k::Copy, float, float>(cpu{}, k::Copy{}, one.out(), row);
    CHECK(one.data[0] == all.data[static_cast<std::size_t>(i)]);
  }
}

TEST_CASE("sums of integers are exact, of bf16 are kept in float", "[kernels][reduce]") {
  auto n = Array<std::int64_t>({3, 4000});
  for (std::size_t i = 0; i < n.data.size(); ++i) n.data[i] = static_cast<std::int64_t>(i) * 1'000'000'007;
  auto total = Array<std::int64_t>({1, 1});
  k::map_sum<k::Copy, std::int64_t, std::int64_t>(cpu{}, k::Copy{}, total.out(), n.in());
  CHECK(total.data[0] == 12000LL * 11999 / 2 * 1'000'000'007);

  bool truth[9] = {true, false, true, true, false, false, true, true, true};
  auto count = Array<std::int64_t>({1});
  k::map_sum<k::Copy, std::int64_t, bool>(cpu{}, k::Copy{}, count.out(), In<bool, cpu>{truth, {9}, {1}});
  CHECK(count.data[0] == 6);

  auto ones = Array<bf16>({5000});
  k::fill<bf16>(cpu{}, bf16(1.0f), ones.out());
  auto sum = Array<bf16>({1});
  k::map_sum<k::Copy, bf16, bf16>(cpu{}, k::Copy{}, sum.out(), ones.in());
  CHECK(sum.data[0].bits == bf16(5000.0f).bits);  // summed in bf16 it would stick at 256
}

TEST_CASE("extremes and argmax", "[kernels][reduce]") {
  for (const Shape& shape : shapes())
    for (unsigned mask = 1; mask < (1u << shape.rank()); ++mask)
      for (const Layout layout : layouts) {
        const Shape small = kept_shape(shape, mask);
        INFO(to_string(shape) << " to " << to_string(small));
        auto x = Array<float>::random(shape, layout, 1);
        for (float& v : x.data) v = std::round(4 * v);  // many are equal
        auto largest = Array<float>(small), smallest = Array<float>(small);
        k::reduce_max<float>(cpu{}, largest.out(), x.in());
        k::reduce_min<float>(cpu{}, smallest.out(), x.in());
        auto most = Array<float>(small), least = Array<float>(small);
        for (float& v : most.data) v = -std::numeric_limits<float>::infinity();
        for (float& v : least.data) v = std::numeric_limits<float>::infinity();
        each(shape, [&](const Dims& i) {
          float& a = const_cast<float&>(at(most.broadcast(shape), i));
          float& b = const_cast<float&>(at(least.broadcast(shape), i));
          a = std::max(a, at(x.in(), i));
          b = std::min(b, at(x.in(), i));
        });
        if (numel(small) > 0) {
          CHECK(largest.data == most.data);
          CHECK(smallest.data == least.data);
        }

        if ((mask & (mask - 1)) != 0 || numel(shape) == 0) continue;
        Index axis = 0;
        while ((mask >> axis & 1u) == 0) ++axis;
        auto index = Array<std::int64_t>(small);
        k::argmax<float>(cpu{}, index.out(), x.in(), axis);
        Index wrong = 0;
        each(small, [&](const Dims& i) {
          Dims where = i;
          Index first = 0;
          while (where[axis] = first, at(x.in(), where) != at(most.in(), i)) ++first;
          wrong += at(index.in(), i) != first;
        });
        CHECK(wrong == 0);
      }
}

TEST_CASE("extremes give an element as it is, denormals too", "[kernels][reduce]") {
  for (const Index n : {5, 100, 1000}) {
    auto x = Array<float>({n}), y = Array<float>({1});
    for (const float tiny : {1e-40f, -1e-40f}) {
      std::fill(x.data.begin(), x.data.end(), tiny);
      k::reduce_max<float>(cpu{}, y.out(), x.in());
      CHECK(same_bits(y.data, std::vector<float>{tiny}));
      k::reduce_min<float>(cpu{}, y.out(), x.in());
      CHECK(same_bits(y.data, std::vector<float>{tiny}));
    }
  }
}

TEST_CASE("NaN is the largest and the smallest", "[kernels][reduce]") {
  for (const Index place : {0, 5, 40, 99})
    for (const Index step : {1, 2}) {
      auto x = Array<float>::random({200});
      x.data[static_cast<std::size_t>(place * step)] = std::numeric_limits<float>::quiet_NaN();
      x.data[static_cast<std::size_t>(99 * step)] = std::numeric_limits<float>::quiet_NaN();
      const In<float, cpu> view{x.data.data(), {100}, {step}};
      auto y = Array<float>({1});
      auto i = Array<std::int64_t>({1});
      k::reduce_max<float>(cpu{}, y.out(), view);
      CHECK(std::isnan(y.data[0]));
      k::reduce_min<float>(cpu{}, y.out(), view);
      CHECK(std::isnan(y.data[0]));
      k::argmax<float>(cpu{}, i.out(), view, 0);
      CHECK(i.data[0] == place);
    }
}

TEMPLATE_TEST_CASE("argmax along rows and across them, of every type", "[kernels][reduce]", float, double, bf16, std::int64_t) {
  using T = TestType;
  for (const Shape& shape : {Shape{130, 300}, Shape{300, 130}, Shape{5, 70}, Shape{1, 9}, Shape{700, 3}})
    for (const bool with_nan : {false, true}) {
      const Index rows = shape[0], columns = shape[1];
      const auto random = Array<float>::random(shape);
      Array<T> x(shape);
      for (std::size_t i = 0; i < x.data.size(); ++i) {
        x.data[i] = static_cast<T>(static_cast<stat_t<T>>(std::round(8 * random.data[i])));  // many are equal
        if constexpr (!std::is_integral_v<T>)
          if (with_nan && i % 97 == 5) x.data[i] = static_cast<T>(std::numeric_limits<stat_t<T>>::quiet_NaN());
      }
      const auto check = [&](Index axis) {
        INFO(to_string(shape) << " axis " << axis << (with_nan ? " with NaN" : ""));
        const Index n = shape[axis], others = shape[1 - axis];
        auto y = Array<std::int64_t>(axis == 0 ? Shape{1, columns} : Shape{rows, 1});
        k::argmax<T>(cpu{}, y.out(), x.in(), axis);
        Index wrong = 0;
        for (Index o = 0; o < others; ++o) {
          const auto value = [&](Index i) { return static_cast<stat_t<T>>(x.data[static_cast<std::size_t>(axis == 0 ? i * columns + o : o * columns + i)]); };
          Index best = 0;
          for (Index i = 1; i < n && value(best) == value(best); ++i)
            if (value(i) > value(best) || value(i) != value(i)) best = i;
          wrong += y.data[static_cast<std::size_t>(o)] != best;
        }
        CHECK(wrong == 0);
      };
      check(0), check(1);
    }
}
