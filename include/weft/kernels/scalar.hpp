// Functions of one element, to be given to map and map_sum: device-neutral, on the types that kernels compute in.
// The backward ones take the gradient of their result first, then what they need of the input x or the result y.
#pragma once

#include <type_traits>

#include "weft/kernels/math.hpp"

namespace weft::inline WEFT_ABI::kernels {

#define WEFT_SCALAR template <class S> WEFT_INLINE constexpr

// Arithmetic, on integers too (their overflow is the caller's to avoid).
struct Copy { WEFT_SCALAR S operator()(S x) const { return x; } };
struct Add { WEFT_SCALAR S operator()(S a, S b) const { return static_cast<S>(a + b); } };
struct Sub { WEFT_SCALAR S operator()(S a, S b) const { return static_cast<S>(a - b); } };
struct Mul { WEFT_SCALAR S operator()(S a, S b) const { return static_cast<S>(a * b); } };
/// 0 where an integer is divided by 0; the least one divided by -1 is itself, as on overflow elsewhere. Both would trap.
struct Div {
  WEFT_SCALAR S operator()(S a, S b) const {
    if constexpr (std::is_integral_v<S>) {
      const bool traps = (b == 0) | (std::is_signed_v<S> & (b == static_cast<S>(-1)));
      const S quotient = static_cast<S>(a / (traps ? S(1) : b));
      return b == 0 ? S(0) : traps ? static_cast<S>(std::uint64_t{0} - static_cast<std::uint64_t>(a)) : quotient;
    } else {
      return static_cast<S>(a / b);
    }
  }
};
struct Neg { WEFT_SCALAR S operator()(S x) const { return static_cast<S>(-x); } };
struct Square { WEFT_SCALAR S operator()(S x) const { return static_cast<S>(x * x); } };
struct Reciprocal { WEFT_SCALAR S operator()(S x) const { return static_cast<S>(1 / x); } };
struct Abs {
  WEFT_SCALAR S operator()(S x) const {
    if constexpr (std::is_same_v<S, float>) return __builtin_fabsf(x);
    else if constexpr (std::is_same_v<S, double>) return __builtin_fabs(x);
    else if constexpr (std::is_signed_v<S>) return static_cast<S>(x < 0 ? -x : x);
    else return x;
  }
};
/// The larger; NaN where either is.
struct Max2 { WEFT_SCALAR S operator()(S a, S b) const { return math::select((a > b) | (a != a), a, b); } };
/// The smaller; NaN where either is.
struct Min2 { WEFT_SCALAR S operator()(S a, S b) const { return math::select((a < b) | (a != a), a, b); } };

// With a number that is the same for all elements.
template <class V> struct Constant { V value; WEFT_INLINE constexpr V operator()() const { return value; } };
struct AddScalar { double s; WEFT_SCALAR S operator()(S x) const { return static_cast<S>(x + static_cast<S>(s)); } };
struct MulScalar { double s; WEFT_SCALAR S operator()(S x) const { return static_cast<S>(x * static_cast<S>(s)); } };
/// s - x and s / x
struct SubFromScalar {
  double s;
  WEFT_SCALAR S operator()(S x) const { return static_cast<S>(static_cast<S>(s) - x); }
};
struct DivScalarBy {
  double s;
  WEFT_SCALAR S operator()(S x) const { return static_cast<S>(static_cast<S>(s) / x); }
};
/// s / max(x, 1): the gradient of a mean over x
struct DivScalarByCount {
  double s;
  WEFT_SCALAR S operator()(S x) const { return static_cast<S>(s) / (x > 1 ? x : S(1)); }
};
/// x / s
struct DivScalar { double s; WEFT_SCALAR S operator()(S x) const { return Div{}(x, static_cast<S>(s)); } };
/// s x + y, rounded once
struct ScaleAdd { double s; WEFT_SCALAR S operator()(S x, S y) const { return math::fma(static_cast<S>(s), x, y); } };
/// s x + (1 - s) y
struct Lerp {
  double s;
  WEFT_SCALAR S operator()(S x, S y) const { return math::fma(static_cast<S>(s), x, static_cast<S>(1 - s) * y); }
};
/// a x + b, rounded once
struct Affine {
  double a, b;
  WEFT_SCALAR S operator()(S x) const { return math::fma(static_cast<S>(a), x, static_cast<S>(b)); }
};
/// s x y, the product of x and y first
struct ScaledMul {
  double s;
  WEFT_SCALAR S operator()(S x, S y) const { return static_cast<S>(x * y * static_cast<S>(s)); }
};
/// a b + c, rounded once
struct MulAdd { WEFT_SCALAR S operator()(S a, S b, S c) const { return math::fma(a, b, c); } };
/// x within [low, high]; NaN stays
struct Clamp {
  double low, high;
  WEFT_SCALAR S operator()(S x) const {
    const S a = static_cast<S>(low), b = static_cast<S>(high);
    const S y = x < a ? a : x;
    return y > b ? b : y;
  }
};

// Comparisons and choice (Select is the op `where`; weft::Where is a place in the source).
struct Eq { WEFT_SCALAR bool operator()(S a, S b) const { return a == b; } };
struct Ne { WEFT_SCALAR bool operator()(S a, S b) const { return a != b; } };
struct Lt { WEFT_SCALAR bool operator()(S a, S b) const { return a < b; } };
struct Le { WEFT_SCALAR bool operator()(S a, S b) const { return a <= b; } };
struct Gt { WEFT_SCALAR bool operator()(S a, S b) const { return a > b; } };
struct Ge { WEFT_SCALAR bool operator()(S a, S b) const { return a >= b; } };
struct Select { WEFT_SCALAR S operator()(bool condition, S a, S b) const { return math::select(condition, a, b); } };
/// 1 where x is neither infinite nor NaN
struct IsFinite { WEFT_SCALAR bool operator()(S x) const { return x - x == 0; } };

// Functions of a real number.
struct Exp { WEFT_SCALAR S operator()(S x) const { return math::exp(x); } };
struct Log { WEFT_SCALAR S operator()(S x) const { return math::log(x); } };
struct Sqrt { WEFT_SCALAR S operator()(S x) const { return math::sqrt(x); } };
struct Rsqrt { WEFT_SCALAR S operator()(S x) const { return 1 / math::sqrt(x); } };
struct Tanh { WEFT_SCALAR S operator()(S x) const { return math::tanh(x); } };
struct Sigmoid { WEFT_SCALAR S operator()(S x) const { return math::sigmoid(x); } };
struct Erf { WEFT_SCALAR S operator()(S x) const { return math::erf(x); } };
struct Relu { WEFT_SCALAR S operator()(S x) const { return x < 0 ? S(0) : x; } };
/// x sigmoid(x). Elfwing et al. 2017.
struct Silu { WEFT_SCALAR S operator()(S x) const { return math::divide(x, 1 + math::exp(-x)); } };
/// x Phi(x) with the standard normal distribution Phi. Hendrycks and Gimpel 2016.
struct Gelu { WEFT_SCALAR S operator()(S x) const { return x * math::normal_cdf(x); } };
/// x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2, the approximation of the same paper.
struct GeluTanh {
  WEFT_SCALAR static S angle(S x) { return S(0.79788456080286536) * math::fma(S(0.044715) * x, x * x, x); }
  WEFT_SCALAR S operator()(S x) const {
    const S half = S(0.5) * x;
    return math::fma(half, math::tanh(angle(x)), half);
  }
};

// Gradients.
struct NormGrad { WEFT_SCALAR S operator()(S dy, S x, S y) const { return y == 0 ? S(0) : dy * (x / y); } };  ///< 0 at 0
struct DivGradB { WEFT_SCALAR S operator()(S dy, S a, S b) const { return -(dy * (a / b)) / b; } };  ///< of a / b by b
struct SquareGrad { WEFT_SCALAR S operator()(S dy, S x) const { return 2 * (dy * x); } };
struct ReciprocalGrad { WEFT_SCALAR S operator()(S dy, S y) const { return -dy * y * y; } };
struct AbsGrad { WEFT_SCALAR S operator()(S dy, S x) const { return x > 0 ? dy : x < 0 ? -dy : x; } };  ///< 0 at 0
struct ExpGrad { WEFT_SCALAR S operator()(S dy, S y) const { return dy * y; } };
struct LogGrad { WEFT_SCALAR S operator()(S dy, S x) const { return dy / x; } };
struct SqrtGrad { WEFT_SCALAR S operator()(S dy, S y) const { return dy / (2 * y); } };
struct RsqrtGrad { WEFT_SCALAR S operator()(S dy, S y) const { return S(-0.5) * dy * (y * y * y); } };
struct TanhGrad { WEFT_SCALAR S operator()(S dy, S y) const { return dy * math::fma(-y, y, S(1)); } };
struct SigmoidGrad { WEFT_SCALAR S operator()(S dy, S y) const { return dy * (y * (1 - y)); } };
struct ErfGrad {
  WEFT_SCALAR S operator()(S dy, S x) const { return dy * (S(1.1283791670955126) * math::exp(-(x * x))); }
};
struct ReluGrad { WEFT_SCALAR S operator()(S dy, S x) const { return x <= 0 ? S(0) : dy; } };  ///< 0 at 0
/// s + x s (1 - s) with s = sigmoid(x)
struct SiluGrad {
  WEFT_SCALAR S operator()(S dy, S x) const {
    const S s = math::sigmoid(x);
    return dy * math::fma(x * s, 1 - s, s);
  }
};
/// Phi(x) + x phi(x)
struct GeluGrad {
  WEFT_SCALAR S operator()(S dy, S x) const {
    constexpr S far = sizeof(S) == 4 ? S(13) : S(38);  // beyond, x pdf is below 1e-35; 1e-300
    const S low = x < -far ? -far : x, near = low > far ? far : low;
    const S pdf = S(0.39894228040143268) * math::exp_within(S(-0.5) * near * near);
    return dy * math::fma(near, pdf, math::normal_cdf(x));
  }
};
struct GeluTanhGrad {
  WEFT_SCALAR S operator()(S dy, S x) const {
    const S t = math::tanh(GeluTanh::angle(x));
    const S dangle = S(0.79788456080286536) * math::fma(S(0.134145) * x, x, S(1));
    return dy * math::fma(S(0.5) * x * dangle, math::fma(-t, t, S(1)), math::fma(S(0.5), t, S(0.5)));
  }
};
/// By a of max(a, b) and min(a, b): half of dy each where they are equal.
struct Max2Grad { WEFT_SCALAR S operator()(S dy, S a, S b) const { return a > b ? dy : a < b ? S(0) : S(0.5) * dy; } };
struct Min2Grad { WEFT_SCALAR S operator()(S dy, S a, S b) const { return a < b ? dy : a > b ? S(0) : S(0.5) * dy; } };
/// dy where x lies within [low, high], else 0
struct ClampGrad {
  double low, high;
  WEFT_SCALAR S operator()(S dy, S x) const {
    return ((x < static_cast<S>(low)) | (x > static_cast<S>(high))) ? S(0) : dy;
  }
};
/// By a and by b of where(condition, a, b).
struct SelectGradA {
  WEFT_SCALAR S operator()(S dy, bool condition) const { return math::select(condition, dy, S(0)); }
};
struct SelectGradB {
  WEFT_SCALAR S operator()(S dy, bool condition) const { return math::select(condition, S(0), dy); }
};

#undef WEFT_SCALAR

}  // namespace weft::inline WEFT_ABI::kernels
