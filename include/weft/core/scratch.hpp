// Memory for the length of a scope, from the caching allocator of the thread that asks: kernels use it for packed panels
// and partial sums.
#pragma once

#include "weft/core/storage.hpp"

namespace weft::inline WEFT_ABI {

/// n uninitialised elements, 64-byte aligned.
template <class T>
class Scratch {
 public:
  explicit Scratch(Index n)
      : bytes_(static_cast<std::size_t>(n) * sizeof(T)), data_(static_cast<T*>(Allocator::mine().allocate(bytes_))) {}
  ~Scratch() { Allocator::mine().release(data_, bytes_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* data() const { return data_; }
  T& operator[](Index i) const { return data_[i]; }

 private:
  std::size_t bytes_;
  T* data_;
};

}  // namespace weft::inline WEFT_ABI
