// A model's parameters, cut into units and shared among ranks; with ZeRO 3 also when each is there.
#pragma once

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <type_traits>
#include <variant>

#include "weft/kernels/cpu/environment.hpp"
#include "weft/optim/unit.hpp"

namespace weft::inline WEFT_ABI::optim {

/// Of<W> for weights of any type that trains on D: f16 on the GPU alone.
template <class D, template <class> class Of>
using OfWeights = std::conditional_t<std::is_same_v<D, cuda>, std::variant<Of<float>, Of<double>, Of<bf16>, Of<f16>>,
                                     std::variant<Of<float>, Of<double>, Of<bf16>>>;

/// Each element of a list of modules is a unit, such as a block of a transformer; the rest is another. (One for each type of weights.)
template <class D>
class Units {
 public:
  template <class W> using UnitOf = Unit<W, D>;
  using Any = OfWeights<D, UnitOf>;
  using Sums = CachedVector<double>;
  struct Home {
    Any* unit;
    std::size_t place;
  };

  Units() = default;
  Units(const Units&) = delete;
  Units& operator=(const Units&) = delete;
  ~Units() {
    for (const Hook& hook : hooks_) hook.remove(hook.module);
    for_each_place([this](auto& p) { if (p.param.slot()->sink == sink_) p.param.slot()->sink = nullptr; });
  }

  /// Called once. `rates_of(path, shape)` says what is special about a parameter; `keeping` is how states are kept, `sink` where gradients
  /// go. Throws ValueError where the ranks' models differ, or exact sums cannot be had for their number.
  template <class M, class RatesOf>
  void cut(const M& model, Sharing sharing, Keeping keeping, Sink* sink, RatesOf&& rates_of, Where where) {
    sharing_ = sharing, sink_ = sink;
    if (sharing.stage < 0 || sharing.stage > 3) fail<ValueError>("adamw", "expected a ZeRO stage of 0 to 3, got " + std::to_string(sharing.stage), where);
    const int N = sharing.size();
    if (!std::is_same_v<D, cpu> && !sharing.reaches_gpu())
      fail<ValueError>("adamw", "expected ranks that reach the GPU's memory for a model there, got " + std::to_string(N) + " that do not", where,
                       "run them as threads (run_ranks), or train on one rank or on the cpu");
    if (sharing.exact && (N & (N - 1)) != 0)
      fail<ValueError>("adamw", "expected a power of two of ranks for exact sums, got " + std::to_string(N), where, "set exact to false");
    const auto in_list = [](const std::string& path) {
      const auto dot = path.rfind('.');
      return dot != std::string::npos && path.find_first_not_of("0123456789", dot + 1) == std::string::npos;
    };
    std::string unit_path;  // of the outermost list's element that the walk is in; empty: the rest
    std::map<const Storage*, Any*> owners;
    std::map<std::pair<std::string, int>, Any*> units;
    std::map<std::string, Hook*> hook_of;
    std::string structure;
    nn::walk(model, "", [&](const std::string& path, const auto& module) {
      if (!unit_path.empty() && path.starts_with(unit_path + ".")) return;
      unit_path = in_list(path) ? path : "";
      if (sharing_.stage == 3 && !hook_of.contains(unit_path)) {
        Hook& hook = hooks_.emplace_back();
        hook.self = this, hook.module = &module, hook.root = unit_path.empty();
        hook.remove = [](const void* m) { static_cast<std::remove_cvref_t<decltype(module)> const*>(m)->set_hooks(nullptr); };
        module.set_hooks(&hook);
        hook_of[unit_path] = &hook;
      }
    }, [&](const std::string& path, const auto& p) {
      if (!p.slot()) return;
      using W = typename std::remove_cvref_t<decltype(p)>::value_type;
      static_assert(!(std::is_same_v<W, f16> && std::is_same_v<D, cpu>), "weft: weights of f16 are trained on the GPU; on the CPU use float or bf16");
      if (!unit_path.empty() && !path.starts_with(unit_path + ".")) unit_path = "";
      Any*& owner = owners[p.storage().get()];
      if (owner == nullptr) {
        Any*& unit = units[{unit_path, static_cast<int>(dtype_of<W>)}];
        if (unit == nullptr) unit = &units_.emplace_back(std::in_place_type<Unit<W, D>>);
        owner = unit;
        std::get<Unit<W, D>>(*unit).add(path, p, rates_of(path, p.shape()));
        structure += path + to_string(p.shape());
      }
      if (const auto hook = hook_of.find(unit_path); hook != hook_of.end())
        if (auto& needs = hook->second->units; std::find(needs.begin(), needs.end(), owner) == needs.end()) needs.push_back(owner);
    });
    expect_same_model(structure, where);
    for (Any& unit : units_)
      std::visit([&](auto& u) {
        u.close(sharing_, keeping);
        u.norms_at = own_pieces_;
        own_pieces_ += static_cast<std::size_t>(u.own_pieces());
        for (std::size_t i = 0; i < u.places().size(); ++i) {
          Slot* const slot = u.places()[i].param.slot().get();
          homes_[slot] = {&unit, i};
          slot->sink = sink;
        }
      }, unit);
  }

  const Sharing& sharing() const { return sharing_; }
  std::size_t size() const { return units_.size(); }
  Any& operator[](std::size_t i) { return units_[i]; }
  template <class F>
  void for_each(F&& f) { for (Any& unit : units_) std::visit(f, unit); }
  template <class F>
  void for_each_place(F&& f) { for_each([&](auto& u) { for (auto& p : u.places()) f(p); }); }
  /// Where the gradient of a slot belongs.
  Home home(const Slot& slot) const { return homes_.find(&slot)->second; }

  /// What one rank knows of the places that each(f) visits, all do: a gradient that one has is there, one that is not finite is bad.
  template <class Each>
  void share_flags(Each&& each, Where where) {
    if (sharing_.size() == 1) return;
    CachedVector<std::uint8_t> flags;
    each([&](auto& p) { flags.push_back(static_cast<std::uint8_t>(p.has + 2 * p.bad)); });
    sharing_.ranks->template all_reduce<std::uint8_t>(flags, Reduce::max, where);
    std::size_t i = 0;
    each([&](auto& p) {
      p.has = flags[i] != 0;
      p.bad = flags[i++] >= 2;
    });
  }
  /// Sums every unit's gradients over ranks where a step has any: one unit's messages leave while the last one's arrive.
  void reduce_all(Where where) {
    if (sharing_.size() == 1) return;
    Any* before = nullptr;
    const auto finish = [&](Any* unit) { if (unit != nullptr) std::visit([](auto& u) { u.finish_reduce(); }, *unit); };
    for (Any& unit : units_)
      std::visit([&](auto& u) {
        if (std::none_of(u.places().begin(), u.places().end(), [](const auto& p) { return p.has; })) return;
        if (!sharing_.exact) u.collect(true);
        u.start_reduce(where);
        finish(std::exchange(before, &unit));
      }, unit);
    finish(before);
  }
  /// Room for the sums of squares of this rank's pieces; a unit's begin at its norms_at.
  Tensor<double, D> no_norms() const { return Tensor<double, D>({static_cast<Index>(own_pieces_)}); }
  Tensor<double, D> squared_norms() {
    const Tensor<double, D> pieces = no_norms();
    for_each([&](auto& u) { u.squared_norms(pieces.data() + u.norms_at); });
    return pieces;
  }
  /// Sums of a device for the host, which waits for them.
  static Sums read(const double* pieces, std::size_t count) {
    Sums sums(count);
    weft::detail::to_host(D{}, sums.data(), pieces, count * sizeof(double));
    return sums;
  }
  /// The root of the sum over all pieces of all ranks, in the order of units: padding has no piece. The host waits.
  double norm(const Tensor<double, D>& pieces, Where where) {
    const int N = sharing_.size();
    if (N == 1) {
      const Tensor<double, D> sum(Shape{});
      kernels::tree_sum(D{}, pieces, sum);
      return std::sqrt(read(sum.data(), 1)[0]);
    }
    const Sums own = read(pieces.data(), own_pieces_);
    Sums all(own.size() * static_cast<std::size_t>(N)), ordered;
    sharing_.ranks->template all_gather<double>(std::span<const double>(own), std::span<double>(all), where);
    for_each([&](auto& u) {
      const std::size_t begin = ordered.size();
      ordered.resize(begin + static_cast<std::size_t>(u.cut().pieces()));
      for (int r = 0; r < N; ++r) u.cut().order_pieces(r, all.data() + static_cast<std::size_t>(r) * own.size() + u.norms_at, ordered.data() + begin);
    });
    return std::sqrt(kernels::tree_sum(ordered.data(), static_cast<Index>(ordered.size())));
  }

  // ---- ZeRO 3.

  void gather_all(Where where) {
    if (sharing_.stage != 3) return;
    for_each([&](auto& u) {
      ++u.weights().users;
      u.weights().gather(where);
    });
  }
  /// No parameter is there, until a module asks.
  void release_all() {
    forget_order();
    if (sharing_.stage != 3) return;
    for_each([](auto& u) {
      u.weights().users = 0;
      u.weights().release();
    });
  }
  /// A backward, or what it belonged to, is over: the next module that is entered is not the successor of the last.
  void forget_order() { last_[0] = last_[1] = nullptr; }

 private:
  /// ZeRO-3: has a module's parameters there while it runs, and the next module's on their way.
  struct Hook final : nn::CallHooks {
    Units* self;
    const void* module;
    void (*remove)(const void*);
    std::vector<Any*> units;
    bool root = false;
    Hook* next[2] = {};  // the one that was entered after it last time, in a forward and in a backward

    void enter() {
      for (Any* unit : units)
        std::visit([&](auto& u) {
          ++u.weights().users;
          u.weights().gather(Where{});
        }, *unit);
      const bool backward = tape_state().in_backward;  // where a part is computed again, in the order of the backward
      Hook*& last = self->last_[backward];
      if (last != nullptr && last != this && !root) last->next[backward] = this;
      last = root ? nullptr : this;
      if (next[backward] != nullptr)
        for (Any* unit : next[backward]->units) std::visit([&](auto& u) { u.weights().prefetch(Where{}); }, *unit);
    }
    void leave(bool keep) {
      for (Any* unit : units)
        std::visit([keep](auto& u) { if (auto& w = u.weights(); w.users > 0 && --w.users == 0 && !keep) w.release(); }, *unit);
    }
    void enter_forward() override { enter(); }
    /// What the backward needs next stays: the root's, and all of a part that is computed again.
    void leave_forward() override { leave(tape_state().in_backward || (root && Tape::recording() != nullptr)); }
    void enter_backward() override { enter(); }
    void leave_backward() override { leave(false); }
  };

  void expect_same_model(const std::string& structure, Where where) {
    if (sharing_.size() == 1) return;
    std::string all = structure;
    if (sharing_.exact)
      for (const auto& [name, value] : environment()) all += name + value;  // other instructions or libraries give other bits
    const auto mine = static_cast<std::int64_t>(mix(static_cast<std::uint64_t>(sharing_.stage * 2 + sharing_.exact), all) >> 1);
    std::int64_t both[2] = {mine, -mine};
    sharing_.ranks->template all_reduce<std::int64_t>(both, Reduce::max, where);
    if (both[0] != mine || both[1] != -mine)
      fail<ValueError>("adamw", "expected every rank to have the same model, ZeRO stage and exactness" + std::string(sharing_.exact ? ", compiler, instruction set and libraries" : "") +
                                    ", but rank " + std::to_string(sharing_.rank()) + " differs from another", where);
  }

  Sharing sharing_;
  Sink* sink_ = nullptr;
  std::deque<Any> units_;
  std::deque<Hook> hooks_;
  std::map<const Slot*, Home> homes_;
  std::size_t own_pieces_ = 0;
  Hook* last_[2] = {};
};

}  // namespace weft::inline WEFT_ABI::optim
