// Norms: their formulas in plain double, and what they begin as.
#include "weft/nn/norm.hpp"

#include "../support.hpp"
#include "weft/tape/gradcheck.hpp"

using namespace weft;

namespace {
const std::vector<double> row{1, 2, 4, -3, 0.5};
Tensor<double> x() { return from_vector<double>(row, {1, 5}); }
}  // namespace

TEST_CASE("layer norm") {
  nn::LayerNorm<double> norm(5, true, 1e-3);
  nn::materialise(norm, 1);
  double mean = 0, variance = 0;
  for (double v : row) mean += v / 5;
  for (double v : row) variance += (v - mean) * (v - mean) / 5;
  const auto plain = norm(x()).to_vector();
  for (std::size_t i = 0; i < 5; ++i) CHECK(plain[i] == Approx((row[i] - mean) / std::sqrt(variance + 1e-3)).epsilon(1e-13));
  norm.weight.assign(std::vector<double>{1, 2, 3, 4, 5});
  norm.bias.assign(std::vector<double>{10, 10, 10, 10, 10});
  const auto scaled = norm(x()).to_vector();
  for (std::size_t i = 0; i < 5; ++i) CHECK(scaled[i] == Approx(plain[i] * static_cast<double>(i + 1) + 10).epsilon(1e-13));
  CHECK(gradcheck([&](const auto& a) { return norm(a); }, x()).ok());
  CHECK(nn::count_parameters(nn::LayerNorm<double>(5, false)) == 5);
}

TEST_CASE("rms norm") {
  nn::RMSNorm<double> norm(5, 1e-3);
  nn::materialise(norm, 1);
  double squares = 0;
  for (double v : row) squares += v * v / 5;
  const auto plain = norm(x()).to_vector();
  for (std::size_t i = 0; i < 5; ++i) CHECK(plain[i] == Approx(row[i] / std::sqrt(squares + 1e-3)).epsilon(1e-13));
  CHECK(gradcheck([&](const auto& a) { return norm(a); }, x()).ok());
}
