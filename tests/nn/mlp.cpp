// Feed-forward layers: their formulas in plain double.
#include "weft/nn/mlp.hpp"

#include "../support.hpp"
#include "weft/tape/gradcheck.hpp"

using namespace weft;

namespace {
/// W x + b for one row.
std::vector<double> affine(const nn::Linear<double>& l, const std::vector<double>& x) {
  std::vector<double> y;
  for (Index o = 0; o < l.weight.size(0); ++o) {
    double sum = l.bias.defined() ? l.bias(o) : 0;
    for (Index i = 0; i < l.weight.size(1); ++i) sum += l.weight(o, i) * x[static_cast<std::size_t>(i)];
    y.push_back(sum);
  }
  return y;
}
const std::vector<double> row{0.5, -1, 2};
Tensor<double> x() { return from_vector<double>(row, {1, 1, 3}); }
void check(const Tensor<double>& y, const std::vector<double>& expected) {
  REQUIRE(y.numel() == static_cast<Index>(expected.size()));
  for (std::size_t i = 0; i < expected.size(); ++i) CHECK(y.data()[i] == Approx(expected[i]).epsilon(1e-12).margin(1e-15));
}
}  // namespace

TEST_CASE("gelu feed-forward, exact and by tanh") {
  nn::MLP<double> mlp(3, 5, true, 0.7, 0.7);
  nn::materialise(mlp, 1);
  mlp.up_proj.bias.assign(std::vector<double>{0.1, -0.2, 0.3, -0.4, 0.5});
  for (const bool approximate : {false, true}) {
    mlp.tanh_gelu = approximate;
    auto h = affine(mlp.up_proj, row);
    for (double& v : h)
      v *= approximate ? 0.5 * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))) : 0.5 * (1 + std::erf(v / std::sqrt(2)));
    check(mlp(x()), affine(mlp.down_proj, h));
    CHECK(gradcheck([&](const auto& a) { return mlp(a); }, x()).ok());
  }
}

TEST_CASE("swiglu feed-forward") {
  nn::SwiGLU<double> mlp(3, 5, false, 0.7, 0.7);
  nn::materialise(mlp, 1);
  auto h = affine(mlp.gate_proj, row);
  const auto up = affine(mlp.up_proj, row);
  for (std::size_t i = 0; i < h.size(); ++i) h[i] = h[i] / (1 + std::exp(-h[i])) * up[i];
  check(mlp(x()), affine(mlp.down_proj, h));
  CHECK(gradcheck([&](const auto& a) { return mlp(a); }, x()).ok());
  CHECK(nn::count_parameters(mlp) == 45);
}
