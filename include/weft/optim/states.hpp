// What AdamW remembers of the elements that a rank keeps: the moments m and v, and a master where weights are narrow.
#pragma once

#include "weft/core/lanes.hpp"
#include "weft/core/tensor.hpp"
#include "weft/kernels/cpu/map.hpp"
#include "weft/kernels/cuda/map.hpp"

namespace weft::inline WEFT_ABI::optim {

struct Keeping {
  bool as_weights = false;  ///< m and v of bf16 weights are bf16, without a master
  bool on_host = false;     ///< in the host's memory, whatever the device
};

/// For weights of type W: m, v and, where W is narrow, master in stat_t<W>; or, of bf16, m and v in W, and no master.
template <class W, class D>
class States {
 public:
  using S = stat_t<W>;
  static constexpr bool narrow = !std::is_same_v<W, S>;
  static constexpr bool as_weights = std::is_same_v<W, bf16>;  // f16 lacks the range for squares of gradients

  /// n elements: zeros; a master is not filled.
  void allocate(Index n, Keeping keeping) {
    const auto room = [&]<class T>(Tensor<T, D>& x) {
      if constexpr (std::is_same_v<D, cuda>) {
        if (keeping.on_host) {
          x = Tensor<T, D>(Ref<Storage>::make(static_cast<std::size_t>(n) * sizeof(T), true, gpu::host_memory), 0, {n}, {1});
          return;
        }
      }
      x = Tensor<T, D>({n});
    };
    const auto zeros = [&]<class T>(Tensor<T, D>& x) {
      room(x);
      kernels::fill<T>(D{}, T{}, x);
    };
    if constexpr (as_weights)
      if (keeping.as_weights) return zeros(narrow_m_), zeros(narrow_v_);
    if constexpr (narrow) room(master_);
    zeros(m_), zeros(v_);
  }
  bool defined() const { return m_.defined() || narrow_m_.defined(); }
  /// f(m, v, master), the master undefined where there is none.
  template <class F>
  void visit(F&& f) const {
    if constexpr (as_weights)
      if (narrow_m_.defined()) return f(narrow_m_, narrow_v_, master_);
    f(m_, v_, master_);
  }

 private:
  Tensor<S, D> m_, v_, master_;
  Tensor<W, D> narrow_m_, narrow_v_;
};

}  // namespace weft::inline WEFT_ABI::optim
