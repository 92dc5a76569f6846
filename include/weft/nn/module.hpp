// Modules: plain structs that hold a configuration, parts and a forward. One `visit` names the parts; parameters, state
// dict, initialisation and counting all come from it.
#pragma once

#include <optional>
#include <set>
#include <vector>

#include "weft/nn/parameter.hpp"
#include "weft/tape/tape.hpp"

namespace weft::inline WEFT_ABI::nn {

/// Watches a module's calls: before and after its forward, and around its backward where a tape records.
struct CallHooks {
  virtual ~CallHooks() = default;
  virtual void enter_forward() {}
  virtual void leave_forward() {}
  virtual void enter_backward() {}
  virtual void leave_backward() {}
};

/// One copy of each path for the whole program: what refers to it never dangles.
inline const std::string* intern(const std::string& path) {
  static SpinLock paths_lock;
  static std::set<std::string> paths;
  const SpinLock::Hold lock(paths_lock);
  return &*paths.insert(path).first;
}

template <class Self>
class Module {
 public:
  Module() = default;
  Module(const Module&) {}                                         // a copy shares parameters, not its place in a model
  Module(Module&&) noexcept {}
  Module& operator=(const Module&) { path_ = nullptr; return *this; }
  Module& operator=(Module&&) noexcept { path_ = nullptr; return *this; }

  /// forward(inputs...), with this module's path for errors and random keys, and the caller's place.
  template <class A>
  auto operator()(const A& a, Where where = here()) const {
    const Call call(*this, where);
    return self().forward(a);
  }
  template <class A, class B>
  auto operator()(const A& a, const B& b, Where where = here()) const {
    const Call call(*this, where);
    return self().forward(a, b);
  }
  template <class A, class B, class C>
  auto operator()(const A& a, const B& b, const C& c, Where where = here()) const {
    const Call call(*this, where);
    return self().forward(a, b, c);
  }

  /// "model" for the outermost module, "model.layers.0.mlp" for a part of it, once the outermost was called.
  const std::string& path() const { return *(path_ != nullptr ? path_ : intern("model")); }
  void set_path(const std::string* path) const { path_ = path; }
  /// At most one watcher, which must outlive the calls; null removes it.
  void set_hooks(CallHooks* hooks) const { hooks_ = hooks; }

 protected:
  /// Names the running module and its caller; a method other than forward that runs ops makes one first.
  class Call {
   public:
    Call(const Module& module, Where where) : before_(current_scope()), hooks_(module.hooks_) {
      if (module.path_ == nullptr) name_parts(module.self(), "model");
      current_scope() = {inside_weft(where) ? before_.where : where, module.path_};
      if (hooks_ == nullptr) return;
      if (Tape* tape = records()) tape->record("module", where, [h = hooks_] { h->leave_backward(); });
      hooks_->enter_forward();
    }
    ~Call() {
      if (hooks_ != nullptr) {
        hooks_->leave_forward();
        if (Tape* tape = records()) tape->record("module", current_scope().where, [h = hooks_] { h->enter_backward(); });
      }
      current_scope() = before_;
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    /// Null in a checkpoint's first pass too: what counts is the backward of the second.
    static Tape* records() { return tape_state().collected == nullptr ? Tape::recording() : nullptr; }

    Scope before_;
    CallHooks* hooks_;
  };

 private:
  const Self& self() const { return static_cast<const Self&>(*this); }

  mutable const std::string* path_ = nullptr;
  mutable CallHooks* hooks_ = nullptr;
};

namespace detail {
struct Nothing {
  template <class P> void operator()(const char*, const P&) const {}
};
}  // namespace detail

template <class M>
concept IsModule = requires(const M& m, detail::Nothing f) { m.visit(f); };

/// Calls on_module(path, module) for a module and, inside it, on_parameter(path, parameter) for each parameter that is there,
/// in the order of `visit`.
template <class M, class OnModule, class OnParameter>
void walk(const M& part, const std::string& path, OnModule&& on_module, OnParameter&& on_parameter) {
  if constexpr (IsModule<M>) {
    on_module(path, part);
    part.visit([&](const std::string& name, const auto& child) {
      walk(child, path.empty() ? name : path + "." + name, on_module, on_parameter);
    });
  } else if constexpr (requires { part.size(); part[0]; requires IsModule<std::remove_cvref_t<decltype(part[0])>>; }) {
    for (std::size_t i = 0; i < part.size(); ++i) walk(part[i], path + "." + std::to_string(i), on_module, on_parameter);
  } else if constexpr (requires { part.has_value(); }) {
    if (part.has_value()) walk(*part, path, on_module, on_parameter);
  } else {
    if (part.defined()) on_parameter(path, part);
  }
}

/// Gives each part its path.
template <class M>
void name_parts(const M& module, const std::string& root) {
  walk(module, root, [](const std::string& path, const auto& m) { m.set_path(intern(path)); }, [](const std::string&, const auto&) {});
}

/// Calls f(path, parameter) once for each parameter; one that is met twice (tied) at its first path.
template <class M, class F>
void for_each_parameter(const M& module, F&& f) {
  std::set<const Storage*> met;
  walk(module, "", [](const std::string&, const auto&) {}, [&](const std::string& path, const auto& p) {
    if (met.insert(p.storage().get()).second) f(path, p);
  });
}

/// Fills every parameter as its Init says, a function of seed, path and position alone.
template <class M>
void materialise(const M& module, std::uint64_t seed) {
  for_each_parameter(module, [&](const std::string& path, const auto& p) { p.materialise(seed, path); });
}

/// The number of trained numbers, tied ones once.
template <class M>
Index count_parameters(const M& module) {
  Index n = 0;
  for_each_parameter(module, [&](const std::string&, const auto& p) { n += p.numel(); });
  return n;
}

/// Forgets all gradients.
template <class M>
void zero_grad(const M& module) {
  for_each_parameter(module, [](const std::string&, const auto& p) { if (p.slot()) p.slot()->clear(); });
}

/// A module of the same values in blocks of its own; tied parameters stay tied.
template <class M>
M clone(const M& module) {
  M copy = module;
  std::vector<std::pair<const Storage*, Index>> met;
  std::vector<Ref<Storage>> blocks;
  std::vector<Ref<Slot>> slots;
  walk(copy, "", [](const std::string&, const auto&) {}, [&](const std::string&, const auto& shared) {
    using P = std::remove_cvref_t<decltype(shared)>;
    using W = typename P::value_type;
    auto& p = const_cast<P&>(shared);  // a part of `copy`, which is not const; visit hands out const handles
    for (const auto& [old, i] : met)
      if (old == p.storage().get()) {
        static_cast<Tensor<W, typename P::device>&>(p) = {blocks[static_cast<std::size_t>(i)], p.offset(), p.shape(), p.strides()};
        p.set_slot(slots[static_cast<std::size_t>(i)]);
        return;
      }
    P fresh(p.shape(), p.init);
    if (p.storage()->data != nullptr) {
      fresh.storage()->materialise();
      kernels::map<kernels::Copy, W, W>(typename P::device{}, {}, fresh, p);
    }
    if (!p.slot()) fresh.freeze();
    met.emplace_back(p.storage().get(), static_cast<Index>(blocks.size()));
    blocks.push_back(fresh.storage());
    slots.push_back(fresh.slot());
    p = fresh;
  });
  return copy;
}

}  // namespace weft::inline WEFT_ABI::nn
