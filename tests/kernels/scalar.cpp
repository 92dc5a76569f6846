// Each gradient functor against central differences of its function in double, and choices and comparisons by example.
#include "weft/kernels/scalar.hpp"

#include <limits>

#include "support.hpp"

using namespace weft;
namespace k = weft::kernels;

namespace {

/// |gradient - central difference| <= 1e-7 max(1, |gradient|): the truncation of a step of 1e-5 is about 1e-10.
template <class F, class G>
void check_gradient(F f, G gradient, const std::vector<double>& points) {
  const double h = 1e-5;
  for (const double x : points) {
    const double want = 1.5 * (f(x + h) - f(x - h)) / (2 * h), got = gradient(1.5, x);
    INFO("x " << x << " want " << want << " got " << got);
    CHECK(std::fabs(got - want) <= 1e-7 * std::max(1.0, std::fabs(got)));
  }
}
/// The same for gradients that take y = f(x).
template <class F, class G>
void check_gradient_of_y(F f, G gradient, const std::vector<double>& points) {
  check_gradient(f, [=](double dy, double x) { return gradient(dy, f(x)); }, points);
}

const std::vector<double> anywhere = {-5, -2.3, -1, -0.4, -0.01, 0.02, 0.3, 1.1, 2.7, 6};
const std::vector<double> positive = {0.1, 0.5, 1, 3, 20};

}  // namespace

TEST_CASE("gradients are those of the functions", "[kernels][scalar]") {
  check_gradient(k::Square{}, k::SquareGrad{}, anywhere);
  check_gradient(k::Abs{}, k::AbsGrad{}, anywhere);
  check_gradient(k::Relu{}, k::ReluGrad{}, anywhere);
  check_gradient(k::Silu{}, k::SiluGrad{}, anywhere);
  check_gradient(k::Gelu{}, k::GeluGrad{}, anywhere);
  check_gradient(k::GeluTanh{}, k::GeluTanhGrad{}, anywhere);
  check_gradient(k::Erf{}, k::ErfGrad{}, anywhere);
  check_gradient(k::Log{}, k::LogGrad{}, positive);
  check_gradient(k::Clamp{-2, 2}, k::ClampGrad{-2, 2}, anywhere);
  check_gradient_of_y(k::Exp{}, k::ExpGrad{}, anywhere);
  check_gradient_of_y(k::Tanh{}, k::TanhGrad{}, anywhere);
  check_gradient_of_y(k::Sigmoid{}, k::SigmoidGrad{}, anywhere);
  check_gradient_of_y(k::Sqrt{}, k::SqrtGrad{}, positive);
  check_gradient_of_y(k::Rsqrt{}, k::RsqrtGrad{}, positive);
  check_gradient_of_y(k::Reciprocal{}, k::ReciprocalGrad{}, positive);
  check_gradient([](double b) { return k::Div{}(0.7, b); },
                 [](double dy, double b) { return k::DivGradB{}(dy, 0.7, b); }, positive);
  check_gradient([](double a) { return k::Max2{}(a, 0.7); },
                 [](double dy, double a) { return k::Max2Grad{}(dy, a, 0.7); }, anywhere);
  check_gradient([](double a) { return k::Min2{}(a, 0.7); },
                 [](double dy, double a) { return k::Min2Grad{}(dy, a, 0.7); }, anywhere);
}

TEST_CASE("values", "[kernels][scalar]") {
  // erf(1/sqrt 2) = 0.68268949..., tanh and e by the C library
  CHECK(k::Gelu{}(1.0) == Approx(0.5 * (1 + 0.682689492137085897)).epsilon(1e-15));
  CHECK(k::GeluTanh{}(1.0) == Approx(0.5 * (1 + std::tanh(0.7978845608028654 * 1.044715))).epsilon(1e-15));
  CHECK(k::Silu{}(2.0) == Approx(2 / (1 + std::exp(-2.0))).epsilon(1e-15));
  CHECK(k::Silu{}(-200.0f) == 0);
  CHECK(k::ScaleAdd{3}(2.0f, 1.0f) == 7);
  CHECK(k::Affine{3, 1}(2.0f) == 7);
  CHECK(k::Abs{}(-3) == 3);
  CHECK(k::Abs{}(std::uint8_t{3}) == 3);
  CHECK(k::Max2Grad{}(1.0f, 2.0f, 2.0f) == 0.5f);
  CHECK(k::Select{}(true, 1.0f, 2.0f) == 1);
  CHECK(k::Select{}(false, std::int64_t{1}, std::int64_t{2}) == 2);
  CHECK(k::SelectGradA{}(3.0f, false) == 0);
  CHECK(k::SelectGradB{}(3.0f, false) == 3);
  CHECK(k::Lt{}(1, 2));
  CHECK_FALSE(k::Ge{}(1, 2));
}

TEST_CASE("NaN goes through", "[kernels][scalar]") {
  const float bad = std::numeric_limits<float>::quiet_NaN();
  for (const float y : {k::Relu{}(bad), k::Silu{}(bad), k::Gelu{}(bad), k::GeluTanh{}(bad), k::Max2{}(bad, 1.0f),
                        k::Max2{}(1.0f, bad), k::Min2{}(bad, 1.0f), k::Min2{}(1.0f, bad), k::Clamp{-1, 1}(bad),
                        k::Abs{}(bad), k::Sqrt{}(bad)})
    CHECK(std::isnan(y));
  CHECK_FALSE(k::IsFinite{}(bad));
  CHECK_FALSE(k::IsFinite{}(std::numeric_limits<float>::infinity()));
  CHECK(k::IsFinite{}(3e38f));
}
