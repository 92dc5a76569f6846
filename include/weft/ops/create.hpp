// New tensors: constant, counting, random. Random ones are functions of a seed and the element's position.
#pragma once

#include "weft/core/philox.hpp"
#include "weft/kernels/cpu/map.hpp"
#include "weft/kernels/cpu/random.hpp"
#include "weft/kernels/cuda/map.hpp"
#include "weft/kernels/cuda/random.hpp"
#include "weft/tape/op.hpp"

namespace weft::inline WEFT_ABI {

/// Every element `value`.
template <class T, class D = default_device>
Tensor<T, D> full(const Shape& shape, T value) {
  Tensor<T, D> x(shape);
  kernels::fill<T>(D{}, value, x);
  return x;
}
template <class T, class D = default_device>
Tensor<T, D> zeros(const Shape& shape) { return full<T, D>(shape, T{}); }
template <class T, class D = default_device>
Tensor<T, D> ones(const Shape& shape) { return full<T, D>(shape, static_cast<T>(stat_t<T>(1))); }

/// start, start + 1, ..., start + n - 1.
template <class T, class D = default_device>
Tensor<T, D> arange(Index n, Index start = 0) {
  Tensor<T, D> x({std::max<Index>(n, 0)});
  if constexpr (std::is_same_v<D, cpu>)
    for (Index i = 0; i < x.numel(); ++i) x.data()[i] = static_cast<T>(static_cast<stat_t<T>>(start + i));
  else kernels::count_up<T>(D{}, start, x);
  return x;
}

/// Normally distributed; element i is a function of the seed and i alone.
template <class T = float, class D = default_device>
Tensor<T, D> randn(const Shape& shape, std::uint64_t seed, double mean = 0, double std = 1) {
  Tensor<T, D> x(shape);
  kernels::normal_fill<T>(D{}, RandomKey{philox_key(mix(seed, "randn")), 0, 0}, mean, std, 0, x);
  return x;
}
/// Uniform in [low, high); element i is a function of the seed and i alone.
template <class T = float, class D = default_device>
Tensor<T, D> uniform(const Shape& shape, std::uint64_t seed, double low = 0, double high = 1) {
  Tensor<T, D> x(shape);
  kernels::uniform_fill<T>(D{}, RandomKey{philox_key(mix(seed, "uniform")), 0, 0}, low, high, 0, x);
  return x;
}

}  // namespace weft::inline WEFT_ABI
