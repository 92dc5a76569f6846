// Dropout: elements are zeroed at random while a tape records, and nothing happens else.
#pragma once

#include "weft/kernels/cpu/dropout.hpp"
#include "weft/kernels/cuda/dropout.hpp"
#include "weft/ops/contiguous.hpp"

namespace weft::inline WEFT_ABI {

/// The random key of this call: a function of the tape's seed, the module's path and the call's number at that path; step and
/// micro-batch go into the counter. Recompute asks again and gets the same. Throws TapeError where no tape records.
inline RandomKey next_random_key(const Op& op) {
  if (op.tape() == nullptr) op.fail<TapeError>("expected a recording tape, whose key makes the random numbers");
  const Key& key = op.tape()->key();
  const std::string* path = current_scope().path;
  const auto ordinal = static_cast<std::uint64_t>(op.tape()->next_ordinal(path));
  const std::uint64_t site = mix(path != nullptr ? site_hash(*path) : 0, ordinal);
  return {philox_key(mix(key.seed, site)), static_cast<std::uint32_t>(key.step), static_cast<std::uint32_t>(key.micro)};
}

/// y = x / (1 - rate) where an element is kept, else 0; each is dropped with probability `rate`. x itself where no tape
/// records. Throws ValueError where rate is not in [0, 1). Srivastava et al. 2014.
template <class T, class D>
Tensor<T, D> dropout(const Tensor<T, D>& x, double rate, Where where = here()) {
  Op op("dropout", where);
  if (!(rate >= 0 && rate < 1)) op.fail<ValueError>("expected a rate in [0, 1), got " + std::to_string(rate));
  if (op.tape() == nullptr || rate == 0) return x;
  const Tensor<T, D> rows = x.rank() > 0 && x.strides().back() == 1 ? x : contiguous(x, x.rank() > 0, where);
  const RandomKey key = next_random_key(op);
  Tensor<T, D> y = like(x);
  kernels::dropout_forward<T>(D{}, rows, rate, key, y);
  return op.record(y, [rate, key, dx = op.grad_of(rows)](const Tensor<T, D>& dy) {
    kernels::dropout_backward<T>(D{}, dy, rate, key, dx);
  });
}

}  // namespace weft::inline WEFT_ABI
