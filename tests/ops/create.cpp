#include "weft/ops/create.hpp"

#include "support.hpp"

using namespace weft;

TEST_CASE("full, zeros, ones and arange", "[create]") {
  for (const Shape& shape : {Shape{}, Shape{0}, Shape{1}, Shape{3, 0, 2}, Shape{2, 3, 4}}) {
    const auto n = static_cast<std::size_t>(numel(shape));
    CHECK(full<float>(shape, 2.5F).to_vector() == std::vector<float>(n, 2.5F));
    CHECK(zeros<double>(shape).to_vector() == std::vector<double>(n, 0));
    CHECK(ones<std::int64_t>(shape).to_vector() == std::vector<std::int64_t>(n, 1));
    CHECK(ones<bf16>(shape).shape() == shape);
    CHECK(zeros<bool>(shape).to_vector() == std::vector<bool>(n, false));
  }
  CHECK(arange<std::int64_t>(4).to_vector() == std::vector<std::int64_t>{0, 1, 2, 3});
  CHECK(arange<float>(3, -1).to_vector() == std::vector<float>{-1, 0, 1});
  CHECK(arange<std::int32_t>(0).shape() == Shape{0});
  CHECK(arange<std::int32_t>(-2).shape() == Shape{0});
}

TEST_CASE("randn has the moments of a normal distribution", "[create]") {
  const Index n = 200000;
  const auto z = randn<double>({n}, 1).to_vector();
  double mean = 0, square = 0, cube = 0, fourth = 0, beyond = 0;
  for (double v : z) {
    mean += v;
    square += v * v;
    cube += v * v * v;
    fourth += v * v * v * v;
    beyond += std::abs(v) > 2;
  }
  // Five standard deviations of each mean over n values: of z^p it is sqrt(E z^2p - (E z^p)^2).
  const double sigma = 5 / std::sqrt(static_cast<double>(n)), count = static_cast<double>(n);
  CHECK(std::abs(mean / count) < sigma);
  CHECK(std::abs(square / count - 1) < sigma * std::sqrt(2.0));
  CHECK(std::abs(cube / count) < sigma * std::sqrt(15.0));
  CHECK(std::abs(fourth / count - 3) < sigma * std::sqrt(96.0));
  CHECK(std::abs(beyond / count - 0.0455003) < sigma * std::sqrt(0.0455));

  const auto scaled = randn<double>({n}, 1, 3, 0.5).to_vector();
  for (std::size_t i = 0; i < z.size(); i += 997) CHECK(scaled[i] == Approx(3 + 0.5 * z[i]).epsilon(1e-15));
}

TEST_CASE("uniform stays inside and is uniform", "[create]") {
  const Index n = 200000;
  const auto u = weft::uniform<double>({n}, 1, -2, 6).to_vector();
  double mean = 0, low = 0, outside = 0;
  for (double v : u) {
    outside += v < -2 || v >= 6;
    mean += v;
    low += v < 0;
  }
  CHECK(outside == 0);
  const double root = std::sqrt(static_cast<double>(n)), count = static_cast<double>(n);
  CHECK(std::abs(mean / count - 2) < 5 * 8 / std::sqrt(12.0) / root);
  CHECK(std::abs(low / count - 0.25) < 5 * std::sqrt(0.25 * 0.75) / root);
}

TEST_CASE("random tensors depend on seed and position alone", "[create]") {
  const auto x = randn({1000}, 7).to_vector();
  CHECK(test::same_bits(x, randn({10, 100}, 7).to_vector()));
  auto start = x;
  start.resize(13);
  CHECK(test::same_bits(start, randn({13}, 7).to_vector()));
  CHECK_FALSE(x == randn({1000}, 8).to_vector());
  CHECK_FALSE(weft::uniform({1000}, 7).to_vector() == weft::uniform({1000}, 8).to_vector());
  test::same_for_any_threads([] { return randn({200, 131}, 3).to_vector(); });
  test::same_for_any_threads([] { return weft::uniform<double>({200, 131}, 3).to_vector(); });
  CHECK(randn<float>({0}, 1).numel() == 0);
  const auto narrow = randn<bf16>({1000}, 7);
  for (Index i = 0; i < 1000; ++i)
    CHECK(static_cast<float>(narrow(i)) == Approx(x[static_cast<std::size_t>(i)]).epsilon(0x1p-8));
}
