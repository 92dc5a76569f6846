// Rotary positions: the angle of each pair, relative positions, and starting in the middle of a text.
#include "weft/nn/rotary_embedding.hpp"

#include "../support.hpp"

using namespace weft;

TEST_CASE("each pair turns by position over theta^(2 d / D)") {
  const nn::RotaryEmbedding<double> rotary(100);
  const auto x = from_vector<double>(test::uniform<double>(3 * 4), {1, 3, 1, 4});
  const auto y = rotary(x, Index{5});
  for (Index t = 0; t < 3; ++t)
    for (Index d = 0; d < 2; ++d) {
      const double angle = static_cast<double>(t + 5) * std::pow(100.0, -static_cast<double>(d) / 2);
      CHECK(y(0, t, 0, d) == Approx(x(0, t, 0, d) * std::cos(angle) - x(0, t, 0, d + 2) * std::sin(angle)));
      CHECK(y(0, t, 0, d + 2) == Approx(x(0, t, 0, d + 2) * std::cos(angle) + x(0, t, 0, d) * std::sin(angle)));
    }
  CHECK(rotary(x).to_vector() == rotary(x, Index{0}).to_vector());
}

TEST_CASE("products depend on the distance alone") {
  const nn::RotaryEmbedding<double> rotary;
  const auto q = from_vector<double>(test::uniform<double>(8), {1, 1, 1, 8}), k = from_vector<double>(test::uniform<double>(8, -1, 1, 2), {1, 1, 1, 8});
  const auto product = [&](Index i, Index j) {
    const auto a = rotary(q, i), b = rotary(k, j);
    double sum = 0;
    for (Index d = 0; d < 8; ++d) sum += a(0, 0, 0, d) * b(0, 0, 0, d);
    return sum;
  };
  CHECK(product(7, 3) == Approx(product(104, 100)).epsilon(1e-10));
}

TEST_CASE("it has no parameters") { CHECK(nn::count_parameters(nn::RotaryEmbedding<float>(10)) == 0); }
