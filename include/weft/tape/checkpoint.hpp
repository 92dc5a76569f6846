// Recompute: a part of the model that keeps only its inputs and runs again in the backward.
#pragma once

#include <tuple>

#include "weft/tape/op.hpp"

namespace weft::inline WEFT_ABI {

/// y = fn(inputs...), without keeping what fn's ops would save: backward runs fn again, with the same random numbers, and
/// then its gradients. fn takes the tensors and returns one tensor; it may read parameters and must be free of side effects.
/// Chen et al. 2016, "Training deep nets with sublinear memory cost".
template <class F, class T, class... In_, class D>
Tensor<T, D> checkpoint_impl(F fn, Where where, const Tensor<T, D>& first, const In_&... rest) {
  Op op("checkpoint", where);
  if (op.tape() == nullptr || tape_state().collected != nullptr) return fn(first, rest...);
  const auto ordinals = op.tape()->ordinals();
  std::vector<Ref<Slot>> leaves;
  Tensor<T, D> y;
  {
    struct Collecting {
      std::vector<Ref<Slot>>* before;
      ~Collecting() { tape_state().collected = before; }
    } collecting{std::exchange(tape_state().collected, &leaves)};
    y = fn(first, rest...).detach();
  }
  std::vector<Grad<T, D>> pending;  // keeps `ready` of the parameters inside from firing before the recomputed part ran
  for (const Ref<Slot>& leaf : leaves) pending.push_back(op.template grad_of_slot<T, D>(leaf));
  const Key key = op.tape()->key();
  const bool check = op.tape()->options().check;
  const Scope scope = current_scope();
  return op.record(y, [=, saved = std::tuple(op.save(first), op.save(rest)...),
                       grads = std::tuple(op.grad_of(first), op.grad_of(rest)...)](const Tensor<T, D>& dy) {
    std::apply([](const auto&... input) { (input.get(), ...); }, saved);  // throws where one was written in place
    const Scope before = std::exchange(current_scope(), scope);
    Tape inner(key, {.check = check, .recompute = true}, where);
    inner.set_ordinals(ordinals);
    const Tensor<T, D> again = fn(first, rest...);
    inner.backward(again, dy, where);
    current_scope() = before;
  });
}

template <class F, class T, class D>
Tensor<T, D> checkpoint(F fn, const Tensor<T, D>& x, Where where = here()) { return checkpoint_impl(std::move(fn), where, x); }
template <class F, class T, class U, class D>
Tensor<T, D> checkpoint(F fn, const Tensor<T, D>& x, const Tensor<U, D>& y, Where where = here()) {
  return checkpoint_impl(std::move(fn), where, x, y);
}
template <class F, class T, class U, class V, class D>
Tensor<T, D> checkpoint(F fn, const Tensor<T, D>& x, const Tensor<U, D>& y, const Tensor<V, D>& z, Where where = here()) {
  return checkpoint_impl(std::move(fn), where, x, y, z);
}

}  // namespace weft::inline WEFT_ABI
