// Micro-batches' gradients, summed in an order that no number of ranks changes.
#pragma once

#include <vector>

#include "weft/core/tensor.hpp"
#include "weft/kernels/cpu/map.hpp"
#include "weft/kernels/cuda/map.hpp"
#include "weft/kernels/scalar.hpp"

namespace weft::inline WEFT_ABI::optim {

/// The sum of arrays that come one after the other, such as micro-batches' gradients, in the tree of comm::tree_reduce: node (k, j)
/// covers arrays [j 2^k, (j + 1) 2^k), left child first. At most 1 + log2(arrays) of them live.
template <class S, class D>
class SumTree {
 public:
  void push(Tensor<S, D> x) {
    nodes_.push_back(std::move(x));
    for (Index k = count_++; k & 1; k >>= 1) merge();
  }
  /// The sum of all, and begins anew; undefined where nothing came.
  Tensor<S, D> take() {
    while (nodes_.size() > 1) merge();
    Tensor<S, D> sum = nodes_.empty() ? Tensor<S, D>() : nodes_[0];
    clear();
    return sum;
  }
  void clear() {
    nodes_.clear();
    count_ = 0;
  }

 private:
  void merge() {
    const Tensor<S, D> right = nodes_.back();
    nodes_.pop_back();
    const Tensor<S, D>& left = nodes_.back();
    kernels::map<kernels::Add, S, S, S>(D{}, {}, left, left, right);
  }
  std::vector<Tensor<S, D>> nodes_;
  Index count_ = 0;
};

}  // namespace weft::inline WEFT_ABI::optim
