#include "weft/kernels/cpu/random.hpp"

#include "kernels/cpu/rows_support.hpp"

using namespace weft;
using namespace weft::test;

namespace {
const RandomKey key{{{1, 2}}, 0, 0};

template <class T>
std::vector<T> normal(Index first, Index n, double mean = 0, double std = 1) {
  Array<T> y({n});
  kernels::normal_fill<T>(cpu{}, key, mean, std, first, y.out());
  return y.store;
}
}  // namespace

TEST_CASE("a normal value is a function of key and element alone", "[random]") {
  const auto all = same_for_any_threads([] { return normal<float>(0, 50001); });
  for (auto [first, n] : {std::pair<Index, Index>{0, 1}, {1, 1}, {3, 2}, {5, 4096}, {4096, 4096}, {50000, 1}, {7, 0}}) {
    const auto part = normal<float>(first, n);
    CHECK(std::equal(part.begin(), part.end(), all.begin() + first));
  }
  const PhiloxWords drawn = philox(key, 2);
  const NormalPair pair = normal_pair(drawn.w[2], drawn.w[3]);
  CHECK(normal<double>(10, 2) == std::vector<double>{pair.first, pair.second});
  CHECK(normal<double>(10, 1, 5, 2)[0] == 5 + 2 * pair.first);
}

TEST_CASE("normal values have the moments of a normal distribution", "[random]") {
  const Index n = 400000;
  const auto z = normal<double>(0, n);
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0, pairs = 0;
  for (std::size_t i = 0; i < z.size(); ++i) {
    m1 += z[i];
    m2 += z[i] * z[i];
    m3 += z[i] * z[i] * z[i];
    m4 += z[i] * z[i] * z[i] * z[i];
    if (i > 0) pairs += z[i] * z[i - 1];
  }
  const double N = static_cast<double>(n), sigma = 1 / std::sqrt(N);  // five standard deviations of each moment
  CHECK(std::abs(m1 / N) < 5 * sigma);
  CHECK(std::abs(m2 / N - 1) < 5 * std::sqrt(2.0) * sigma);
  CHECK(std::abs(m3 / N) < 5 * std::sqrt(15.0) * sigma);
  CHECK(std::abs(m4 / N - 3) < 5 * std::sqrt(96.0) * sigma);
  CHECK(std::abs(pairs / N) < 5 * sigma);
}

TEMPLATE_TEST_CASE("uniform values lie in their interval, and fill it", "[random]", float, double, bf16) {
  Array<TestType> y({100000});
  kernels::uniform_fill<TestType>(cpu{}, key, -2, 3, 0, y.out());
  double sum = 0, low = 9, high = -9;
  for (double v : y.values()) sum += v, low = std::min(low, v), high = std::max(high, v);
  CHECK(sum / 1e5 == Approx(0.5).margin(5 * 5 / std::sqrt(12.0 * 1e5)));
  CHECK(low >= -2);
  CHECK(low < -1.95);
  CHECK(high <= 3);
  CHECK(high > 2.95);

  Array<TestType> part({17});
  kernels::uniform_fill<TestType>(cpu{}, key, -2, 3, 4095, part.out());
  CHECK(std::equal(part.store.begin(), part.store.end(), y.store.begin() + 4095,
                   [](TestType a, TestType b) { return static_cast<float>(a) == static_cast<float>(b); }));
  kernels::uniform_fill<TestType>(cpu{}, key, -2, 3, 0, {});
}
