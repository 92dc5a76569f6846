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
  op.one_gradient_at_a_time();
  if (op.tape() == nullptr || tape_state().collected != nullptr) return fn(first, rest...);
  const auto ordinals = op.tape()->ordinals();
  SlotList read;
  Tensor<T, D> y;
  {
    struct Collecting {
      SlotList* before;
      ~Collecting() { tape_state().collected = before; }
    } collecting{std::exchange(tape_state().collected, &read)};
    y = fn(first, rest...);
  }
  if (!y.slot()) return y;  // no gradient passes through
  y = y.detach();
  std::vector<Grad<T, D>, CachedAllocator<Grad<T, D>>> pending;  // keeps `ready` of the parameters inside from firing too early
  for (const Ref<Slot>& slot : read) pending.push_back(op.template grad_of_slot<T, D>(slot));
  const Key key = op.tape()->key();
  const TapeOptions options{.check = op.tape()->options().check, .loss_scale = op.tape()->options().loss_scale, .recompute = true};
  const Scope scope = current_scope();
  return op.record(y, [=, pending = std::move(pending), saved = std::tuple(op.save(first), op.save(rest)...),
                       grads = std::tuple(op.grad_of(first), op.grad_of(rest)...)](const Tensor<T, D>& dy) {
    std::apply([](const auto&... input) { (input.get(), ...); }, saved);  // throws where one was written in place
    current_scope() = scope;
    Tape inner(key, options, where);
    inner.set_ordinals(ordinals);
    const Tensor<T, D> again = fn(first, rest...);
    if (again.storage()->refs == 1) again.storage()->forget();  // only its gradient is wanted: what ended it is never computed
    inner.backward(again, dy, where);
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
