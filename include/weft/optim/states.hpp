// What AdamW remembers of the elements that a rank keeps: the moments m and v, and a master where weights are narrow.
#pragma once

#include "weft/core/tensor.hpp"
#include "weft/kernels/cpu/map.hpp"
#include "weft/kernels/cuda/map.hpp"

namespace weft::inline WEFT_ABI::optim {

/// For weights of type W: m, v and, where W is narrow, master in stat_t<W>; or m and v in W, and no master.
template <class W, class D>
class States {
 public:
  using S = stat_t<W>;
  static constexpr bool narrow = !std::is_same_v<W, S>;

  /// n elements: zeros; a master is not filled. `as_weights`: m and v of type W, without a master.
  void allocate(Index n, bool as_weights) {
    const auto zeros = [n]<class T>(Tensor<T, D>& x) {
      x = Tensor<T, D>({n});
      kernels::fill<T>(D{}, T{}, x);
    };
    if constexpr (narrow) {
      if (as_weights) return zeros(narrow_m_), zeros(narrow_v_);
      master_ = Tensor<S, D>({n});
    }
    zeros(m_), zeros(v_);
  }
  bool defined() const { return m_.defined() || narrow_m_.defined(); }
  /// f(m, v, master), the master undefined where there is none.
  template <class F>
  void visit(F&& f) const {
    if constexpr (narrow)
      if (narrow_m_.defined()) return f(narrow_m_, narrow_v_, master_);
    f(m_, v_, master_);
  }

 private:
  Tensor<S, D> m_, v_, master_;
  Tensor<W, D> narrow_m_, narrow_v_;
};

}  // namespace weft::inline WEFT_ABI::optim
