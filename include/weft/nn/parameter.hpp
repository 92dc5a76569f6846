// A parameter: a tensor that training changes, with the rule that fills it. Making one allocates nothing, so that a model of
// any size can be described on any machine and filled shard by shard.
#pragma once

#include "weft/core/philox.hpp"
#include "weft/kernels/cpu/map.hpp"
#include "weft/kernels/cpu/random.hpp"
#include "weft/kernels/cuda/map.hpp"
#include "weft/kernels/cuda/random.hpp"
#include "weft/core/tensor.hpp"

namespace weft::inline WEFT_ABI::nn {

/// How a parameter begins: every element `value`, or normal with mean 0 and this standard deviation.
struct Init {
  double value = 0;
  double std = 0;
};

template <class W, class D = default_device>
struct Parameter : Tensor<W, D> {
  Init init;

  Parameter() = default;  ///< absent, such as the bias of a layer without one
  Parameter(const Shape& shape, Init how) : Tensor<W, D>(shape, true), init(how) { this->require_grad(); }

  /// Allocates the block and fills it: an element is a function of seed, path and its position alone.
  void materialise(std::uint64_t seed, const std::string& path) const {
    this->storage()->materialise();
    fill(seed, path, 0, Out<W, D>{this->data(), {this->numel()}, {1}, 0});
  }
  /// The same for the elements from `first` on that y holds.
  void fill(std::uint64_t seed, const std::string& path, Index first, Out<W, D> y) const {
    if (init.std > 0)
      kernels::normal_fill<W>(D{}, {philox_key(mix(seed, path)), 0, 0}, 0, init.std, first, y);
    else
      kernels::fill<W>(D{}, static_cast<W>(static_cast<stat_t<W>>(init.value)), y);
  }
  /// Training leaves it as it is. Undone by require_grad().
  void freeze() { this->set_slot({}); }
};

}  // namespace weft::inline WEFT_ABI::nn
