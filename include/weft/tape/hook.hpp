// A look at a gradient on its way.
#pragma once

#include "weft/tape/op.hpp"

namespace weft::inline WEFT_ABI {

/// Calls f(dx) in the backward once x's gradient is complete, before the op that made x uses it. f may change dx in place. Throws
/// TapeError where x wants no gradient, is a leaf (read gradient(x) after the backward), or is a view (hook what it views).
template <class T, class D, class F>
void on_gradient(const Tensor<T, D>& x, F f, Where where = here()) {
  if (!x.slot() || x.slot()->leaf || x.slot()->root)
    fail<TapeError>("on_gradient", std::string("expected the result of a recorded op, got ") +
                                       (!x.slot() ? "a tensor without a gradient" : x.slot()->leaf ? "a leaf" : "a view"), where,
                    "read gradient(x) of a leaf after the backward; hook the tensor that a view shows");
  struct Hook : GradientHook {
    F f;
    explicit Hook(F g) : f(std::move(g)) {}
    void run(Slot& slot) override { f(detail::gradient<T, D>(slot)); }
  };
  auto* hook = new Hook(std::move(f));
  hook->next = std::exchange(x.slot()->hooks, hook);
}

}  // namespace weft::inline WEFT_ABI
