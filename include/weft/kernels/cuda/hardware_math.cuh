// The hardware's approximations, within about 2^-22: enough where a result is rounded to 16 bits.
#pragma once

#include <cmath>

#include "weft/kernels/cuda/launch.cuh"
#include "weft/kernels/math.hpp"

namespace weft::inline WEFT_ABI::kernels::gpu {

/// The hardware's 2^x.
__device__ inline float exp2_for(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// e^x for results that are stored as T: those of 16 bits do not need more than the hardware's 2^x gives.
template <class T>
__device__ inline stat_t<T> exp_for(stat_t<T> x) {
#if defined(__CUDA_ARCH__)
  if constexpr (Narrow<T>) return exp2_for(x * 1.44269504f);
#endif
  return math::exp(x);
}

/// 1 / (1 + e^-x), as exp_for.
template <class T>
__device__ inline stat_t<T> sigmoid_for(stat_t<T> x) {
#if defined(__CUDA_ARCH__)
  if constexpr (Narrow<T>) return __fdividef(1.0f, 1.0f + exp_for<T>(-x));
#endif
  return math::sigmoid(x);
}

/// x / y and the root of x: within 2^-22 where the result is rounded to 16 bits, by the hardware's approximations, else rounded once.
template <bool narrow, class S>
__device__ inline S quotient(S x, S y) {
  if constexpr (narrow) return __fdividef(x, y);
  else return x / y;
}
template <bool narrow, class S>
__device__ inline S root(S x) {
  if constexpr (narrow) {
    float y;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  } else {
    return std::sqrt(x);
  }
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu
