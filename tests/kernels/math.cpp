// Accuracy of the vectorisable functions against the double ones of the C library, over floats of every exponent.
#include "weft/kernels/math.hpp"

#include <limits>

#include "support.hpp"
#include "weft/core/simd.hpp"

using namespace weft;
namespace math = weft::kernels::math;

namespace {

struct Exp { template <class S> WEFT_INLINE S operator()(S x) const { return math::exp(x); } };
struct Log { template <class S> WEFT_INLINE S operator()(S x) const { return math::log(x); } };
struct Tanh { template <class S> WEFT_INLINE S operator()(S x) const { return math::tanh(x); } };
struct ExpWithin { template <class S> WEFT_INLINE S operator()(S x) const { return math::exp_within(x < -87 ? S(-87) : x > 88 ? S(88) : x); } };
struct NormalCdf { template <class S> WEFT_INLINE S operator()(S x) const { return math::normal_cdf(x); } };
struct Erf { template <class S> WEFT_INLINE S operator()(S x) const { return math::erf(x); } };
struct Sqrt { template <class S> WEFT_INLINE S operator()(S x) const { return math::sqrt(x); } };
struct Sigmoid { template <class S> WEFT_INLINE S operator()(S x) const { return math::sigmoid(x); } };

/// |got - want| in units of the float spacing at want; results below the smallest normal float may be zero.
double ulp(float got, double want) {
  const float rounded = static_cast<float>(want);
  if (std::isnan(want)) return std::isnan(got) ? 0 : 1e9;
  if (std::isinf(rounded) || std::isinf(got)) return rounded == got ? 0 : 1e9;
  if (std::fabs(want) < 0x1p-126 && got == 0) return 0;
  int exponent = 0;
  std::frexp(want, &exponent);
  return std::fabs(static_cast<double>(got) - want) / std::ldexp(1.0, std::max(exponent, -125) - 24);
}

/// The largest error over every `step`-th float of both signs, denormals left out; the vector loop and the scalar call
/// must agree in every bit, whatever the position in the array; without `same_nan` but for which NaN it is.
template <class F>
double sweep(std::uint32_t step, double (*error)(float, double) = ulp, bool same_nan = true) {
  const F f;
  double worst = 0;
  Index different = 0;
  std::uint64_t u = 0;
  constexpr int block = 4096 + 7;
  std::vector<float> x(block), y(block);
  const FlushDenormals flush;
  while (u <= 0xffffffffu) {
    int n = 0;
    for (; u <= 0xffffffffu && n < block; u += step) {
      const float v = std::bit_cast<float>(static_cast<std::uint32_t>(u));
      if (std::fpclassify(v) != FP_SUBNORMAL) x[static_cast<std::size_t>(n++)] = v;
    }
    const float* const xp = x.data();
    float* const yp = y.data();
    simd([=]() WEFT_INLINE {
#pragma omp simd
      for (int i = 0; i < n; ++i) yp[i] = f(xp[i]);
    });
    for (int i = 0; i < n; ++i) {
      const float alone = f(xp[i]);
      if (same_nan || !std::isnan(alone) || !std::isnan(yp[i])) different += std::bit_cast<std::uint32_t>(alone) != std::bit_cast<std::uint32_t>(yp[i]);
      worst = std::max(worst, error(yp[i], f(static_cast<double>(xp[i]))));
    }
  }
  CHECK(different == 0);
  return worst;
}

constexpr float inf = std::numeric_limits<float>::infinity();
const float not_a_number = std::numeric_limits<float>::quiet_NaN();

}  // namespace

TEST_CASE("the errors stay within the bounds that the docstrings state", "[kernels][math]") {
#if defined(WEFT_TEST_ALL_FLOATS)
  const std::uint32_t step = 1;
#else
  const std::uint32_t step = 1009;  // odd and prime: every exponent, all kinds of mantissas
#endif
  CHECK(sweep<Exp>(step) < 1.04);
  CHECK(sweep<Log>(step) < 0.86);
  CHECK(sweep<Tanh>(step) < 2.6);
  CHECK(sweep<Erf>(step) < 1.2);
  CHECK(sweep<Sigmoid>(step) < 2.5);
  CHECK(sweep<ExpWithin>(step, ulp, false) < 1.04);
  const auto of_one = [](float got, double want) { return std::isnan(want) ? ulp(got, want) : std::fabs(static_cast<double>(got) - want) * 0x1p24; };
  CHECK(sweep<NormalCdf>(step, of_one, false) < 1.3);
}

TEST_CASE("sqrt is IEEE's in every bit", "[kernels][math]") {
  CHECK(sweep<Sqrt>(1009) <= 0.5);
  Index different = 0;
  for (std::uint32_t u = 0x3f800000u; u < 0x40800000u; ++u) {  // every mantissa, both parities of the exponent
    const float x = std::bit_cast<float>(u);
    different += math::sqrt(x) != std::sqrt(x);
  }
  CHECK(different == 0);
  for (const float x : {0.0f, 1.0f, inf, 0x1p-126f, 0x1.fffffep-126f, 3e38f, 0x1p-100f}) {
    INFO(x);
    CHECK(math::sqrt(x) == std::sqrt(x));
  }
  CHECK(std::signbit(math::sqrt(-0.0f)));
  CHECK(std::isnan(math::sqrt(-1.0f)));
  CHECK(std::isnan(math::sqrt(-inf)));
  CHECK(std::isnan(math::sqrt(not_a_number)));
}

TEST_CASE("special values", "[kernels][math]") {
  CHECK(math::exp(0.0f) == 1);
  CHECK(math::exp(inf) == inf);
  CHECK(math::exp(-inf) == 0);
  CHECK(math::exp(88.75f) == inf);
  CHECK(math::exp(88.72283f) < inf);
  CHECK(math::exp(-200.0f) == 0);
  CHECK(std::isnan(math::exp(not_a_number)));

  CHECK(math::log(1.0f) == 0);
  CHECK(math::log(0.0f) == -inf);
  CHECK(math::log(-0.0f) == -inf);
  CHECK(math::log(1e-45f) == -inf);  // a denormal counts as zero
  CHECK(math::log(inf) == inf);
  CHECK(std::isnan(math::log(-1.0f)));
  CHECK(std::isnan(math::log(-inf)));
  CHECK(std::isnan(math::log(not_a_number)));

  CHECK(math::tanh(inf) == 1);
  CHECK(math::tanh(-inf) == -1);
  CHECK(math::tanh(1e-30f) == 1e-30f);
  CHECK(std::signbit(math::tanh(-0.0f)));
  CHECK(std::isnan(math::tanh(not_a_number)));

  CHECK(math::erf(inf) == 1);
  CHECK(math::erf(-inf) == -1);
  CHECK(math::erf(5.0f) == 1);
  CHECK(math::erf(0.0f) == 0);
  CHECK(std::signbit(math::erf(-0.0f)));
  CHECK(std::isnan(math::erf(not_a_number)));

  CHECK(math::normal_cdf(0.0f) == 0.5f);
  CHECK(math::normal_cdf(inf) == 1);
  CHECK(math::normal_cdf(-inf) == 0);
  CHECK(math::normal_cdf(-6.0f) == 0);
  CHECK(std::isnan(math::normal_cdf(not_a_number)));

  CHECK(math::sigmoid(0.0f) == 0.5f);
  CHECK(math::sigmoid(inf) == 1);
  CHECK(math::sigmoid(-inf) == 0);
  CHECK(std::isnan(math::sigmoid(not_a_number)));
}

TEST_CASE("the double overloads are the C library's", "[kernels][math]") {
  for (const double x : {-3.0, -0.1, 0.0, 0.7, 20.0}) {
    CHECK(math::exp(x) == std::exp(x));
    CHECK(math::tanh(x) == std::tanh(x));
    CHECK(math::erf(x) == std::erf(x));
    CHECK(math::sigmoid(x) == 1 / (1 + std::exp(-x)));
  }
  CHECK(math::log(2.0) == std::log(2.0));
}
