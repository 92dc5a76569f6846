#include "weft/ops/rope.hpp"

#include "support.hpp"
#include "weft/ops/view.hpp"

using namespace weft;
using namespace weft::test;

namespace {
const auto fn = [](const auto& x) { return rope(x, 100, 3); };

std::vector<double> plain_rope(const Tensor<double>& x, double theta, Index start) {
  std::vector<double> y;
  const Index D = x.size(3);
  for (Index b = 0; b < x.size(0); ++b)
    for (Index t = 0; t < x.size(1); ++t)
      for (Index h = 0; h < x.size(2); ++h)
        for (Index d = 0; d < D; ++d) {
          const Index i = d % (D / 2);
          const double angle =
              static_cast<double>(start + t) * std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(D));
          const double p = x(b, t, h, i), q = x(b, t, h, i + D / 2);
          y.push_back(d < D / 2 ? p * std::cos(angle) - q * std::sin(angle)
                                : q * std::cos(angle) + p * std::sin(angle));
        }
  return y;
}

const Shape shapes[] = {{1, 1, 1, 2},  {2, 3, 2, 4}, {0, 2, 2, 2}, {1, 0, 2, 2},  {1, 2, 0, 2},
                        {1, 2, 1, 0},  {1, 5, 1, 6}, {2, 1, 3, 2}, {1, 19, 1, 2}, {3, 2, 1, 8},
                        {1, 2, 2, 34}, {2, 2, 2, 2}, {1, 40, 2, 2}};
}  // namespace

TEST_CASE("rope: values and gradients, contiguous and as views", "[rope]") {
  for (const Shape& shape : shapes) {
    INFO(to_string(shape));
    check_near(fn(values(shape)), plain_rope(values(shape), 100, 3), 1e-13);
    check_gradients(fn, values(shape));
    Shape heads_first{shape[0], shape[2], shape[1], shape[3]};  // (B, H, T, D)
    check_gradients([](const auto& x) { return fn(permute(x, {0, 2, 1, 3})); }, values(heads_first));
    check_gradients(fn, permute(values(heads_first), {0, 2, 1, 3}));
    Shape wide = shape;
    wide[3] += 2;
    check_gradients([](const auto& x) { return fn(slice(x, 3, 1, x.size(3) - 1)); }, values(wide));
    if (shape[2] == 1 && shape[0] == 1)
      check_near(fn(expand(values(shape), {1, shape[1], 2, shape[3]})),
                 plain_rope(expand(values(shape), {1, shape[1], 2, shape[3]}), 100, 3), 1e-13);
  }
  check_gradients([](const auto& x) { return fn(transpose(x)); },
                  values({1, 2, 4, 3}));  // the last axis has no stride of 1
}

TEST_CASE("rope: position 0 is left alone, and a start is a shift in time", "[rope]") {
  const auto x = values({1, 9, 2, 8});
  CHECK(rope(slice(x, 1, 0, 1)).to_vector() == slice(x, 1, 0, 1).to_vector());
  CHECK(same_bits(rope(slice(x, 1, 4, 9), 10000, 4).to_vector(), slice(rope(x), 1, 4, 9).to_vector()));
}

TEST_CASE("rope: types and threads", "[rope]") {
  const auto x = values({3, 60, 4, 64});
  check_thread_bits<double>(fn, x);
  check_thread_bits<float>(fn, x);
  check_against_double<float>(fn, 1e-6, x);   // cos and sin round once, then two products
  check_against_double<bf16>(fn, 0x1p-8, x);  // one rounding
}

TEST_CASE("rope's errors", "[rope]") {
  check_error<ShapeError>([&] { rope(values({2, 3, 4})); }, {"[rope]", "rank 4", "(2, 3, 4)"});
  check_error<ShapeError>([&] { rope(values({1, 2, 3, 5})); }, {"[rope]", "even", "(1, 2, 3, 5)"});
}
