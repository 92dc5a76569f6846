// AdamW with clipping inside the step, for one rank and for many. Norms are sums over fixed pieces of 4,096 elements of each
// parameter, in a fixed tree, so the bits depend on no thread count and on no sharing.
#pragma once

#include <cmath>
#include <deque>
#include <map>
#include <variant>

#include "weft/kernels/cpu/environment.hpp"
#include "weft/optim/unit.hpp"
#include "weft/tape/op.hpp"

namespace weft::inline WEFT_ABI::optim {

/// Parameters that a rule picks, and what is special about them.
struct ParameterGroup {
  bool (*matches)(const std::string& path, const Shape& shape) = nullptr;
  double weight_decay = 0;
  double lr_scale = 1;
};

struct AdamWConfig {
  double beta1 = 0.9, beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.1;           ///< of matrices; vectors (norms, biases) do not decay
  std::vector<ParameterGroup> groups = {};  ///< asked before that rule, in order; the first that matches counts
  // Among many ranks:
  int zero = 0;                        ///< 0: every rank keeps all; 1: optimizer states are shared, 2: gradients too, 3: parameters too
  bool exact = false;                  ///< the same bits for any number of ranks
  std::size_t bucket_bytes = std::size_t{16} << 20;  ///< gradients of one collective
};

struct StepOptions {
  double lr = 0;
  double clip = 0;  ///< the largest norm of all gradients together; 0: no clipping
};

/// The norm of a step's gradients before clipping. Reading it throws NumericError where it is not finite; the weights are then as
/// they were.
class GradientNorm {
 public:
  /// `changed` names what a step inside the backward had already updated, and what it left alone; empty: no weight was changed.
  GradientNorm(double norm, Index step, std::string changed = {}) : norm_(norm), step_(step), changed_(std::move(changed)) {}
  bool finite() const { return std::isfinite(norm_); }
  operator double() const {
    if (!finite())
      throw NumericError("[adamw] expected a finite gradient norm, got " + std::to_string(norm_) + " in step " + std::to_string(step_) +
                         "; " + (changed_.empty() ? "no weight was changed" : changed_) + "\n  hint: run the step again under Tape(key, {.check = true}), which names the op");
    return norm_;
  }

 private:
  double norm_;
  Index step_;
  std::string changed_;
};

/// p -= lr wd p, then p -= lr m^ / (sqrt(v^) + eps), with m and v the running means of gradient and squared gradient, corrected for
/// their start at 0. Parameters without a gradient stay as they are. Loshchilov and Hutter 2019.
///
/// With a Communicator the same class trains on many ranks: each runs its own micro-batches, and step() sums the gradients over all.
/// What ranks keep of 16 bytes a parameter (fp32) is by `zero` 16, 8 + 8/N, 4 + 12/N, 16/N (Rajbhandari et al. 2020, "ZeRO"). With
/// zero 3 parameters are there only while a module that holds them runs. A call on one rank is one on all, in the same order. It must
/// end before the model does.
template <class D = default_device>
class AdamW : private Sink {
 public:
  template <class M>
  explicit AdamW(const M& model, AdamWConfig config = {}) : config_(std::move(config)) { cut(model, nullptr, here()); }
  /// Throws ValueError where the ranks' models differ, or `exact` cannot be had for their number.
  template <class M>
  AdamW(const M& model, Communicator& ranks, AdamWConfig config = {}, Where where = here()) : config_(std::move(config)) { cut(model, &ranks, where); }
  AdamW(const AdamW&) = delete;
  AdamW& operator=(const AdamW&) = delete;
  ~AdamW() {
    for (const Hook& hook : hooks_) hook.remove(hook.module);
    for_each_place([this](auto& p) { if (p.param.slot()->sink == this) p.param.slot()->sink = nullptr; });
  }

  /// Updates every parameter that has a gradient, on any rank, and empties the gradients. A norm that is not finite changes nothing.
  GradientNorm step(StepOptions options, Where where = here()) {
    check(options, where);
    Tape::step_ended();
    check_micro_batches(where);
    if (eager() && micros_ == 0) backward_ended(true);  // gradients that no tape wrote
    for_each_unit([](auto& u) { u.sum_micro_batches(); });
    if (!eager()) {
      if (!config_.exact) for_each_unit([](auto& u) { u.collect(false); });
      share_flags(where);
      reduce_all(where);
    } else {
      share_flags(where);
    }
    const double norm = norm_of_all(where);
    const GradientNorm result(norm, steps_);
    if (result.finite()) {
      ++steps_;
      const Tensor<float, D> scale = scalar<float, D>(options.clip > 0 && norm > options.clip ? static_cast<float>(options.clip / norm) : 1.0f);
      release_all();
      for_each_unit([&](auto& u) {
        u.update(arguments(options.lr), scale, where);
        u.start_publish(where);
      });
      for_each_unit([](auto& u) { u.finish_publish(); });
    }
    clear();
    return result;
  }

  /// tape.backward(loss), in which each unit's parameters are updated as soon as their gradients are there, so that gradients never
  /// all exist. One micro-batch a rank and step, and no clipping, which would need all gradients first: else throws ValueError. A
  /// parameter whose own gradient is not finite is left as it was; reading the norm then throws, and says what moved.
  template <class LossType>
  GradientNorm backward(Tape& tape, const LossType& loss, StepOptions options, Where where = here()) {
    check(options, where);
    if (options.clip > 0)
      fail<ValueError>("adamw", "expected no clip for an update inside the backward, got " + std::to_string(options.clip), where,
                       "the norm of all gradients is known only when all exist: use step(), or clip 0");
    if (tape.key().micros > sharing_.size() || micros_ > 0)
      fail<ValueError>("adamw", "expected one micro-batch a rank and step for an update inside the backward, got " + std::to_string(tape.key().micros) +
                                    " on " + std::to_string(sharing_.size()) + " ranks", where, "gradients that accumulate need step()");
    struct Updating {
      AdamW& self;
      ~Updating() { self.updating_ = nullptr; }
    } ending{*this};
    updating_ = &options;
    where_ = where;
    moved_.clear(), left_.clear();
    begin_norms();
    ++steps_;
    tape.backward(loss, where);
    Tape::step_ended();
    const GradientNorm result(norm_of_pieces(where), steps_ - 1, left_.empty() ? std::string()
                              : "left as they were: " + left_ + "; already moved: " + moved_);
    clear();
    return result;
  }

  /// Forgets the gradients since the last step; nn::zero_grad does not see those that were summed already.
  void zero_grad() { clear(); }

  /// This rank's i-th micro-batch of a step: contiguous for ZeRO 0 and 1, interleaved for 2 and 3, so that exact sums are local.
  Index micro(Index i, Index micros) const {
    const Index N = sharing_.size();
    return config_.zero < 2 ? sharing_.rank() * (micros / N) + i : i * N + sharing_.rank();
  }
  Index steps() const { return steps_; }
  void set_steps(Index steps) { steps_ = steps; }
  const AdamWConfig& config() const { return config_; }
  Communicator* ranks() const { return sharing_.ranks; }
  /// Elements of each unit, padding counted: what collectives move, and memory is counted, by. The first is what is in no list.
  std::vector<Index> unit_sizes() {
    std::vector<Index> sizes;
    for_each_unit([&](auto& u) { sizes.push_back(u.size()); });
    return sizes;
  }

  /// Fills the parameters as nn::materialise does, but no rank ever holds more than it keeps.
  void materialise(std::uint64_t seed, Where where = here()) {
    for_each_unit([&](auto& u) { u.materialise(seed); });
    weights_changed(where);
  }
  /// Runs f with all parameters there, on every rank; for instance to save them.
  template <class F>
  void with_parameters(F&& f, Where where = here()) {
    if (config_.zero == 3)
      for_each_unit([&](auto& u) {
        ++u.users;
        u.gather(where);
      });
    f();
    release_all();
  }
  /// Runs f for each unit while its parameters, and maybe others, are there.
  template <class F>
  void with_each_unit(F&& f, Where where = here()) {
    for_each_unit([&](auto& u) {
      if (config_.zero == 3) u.gather(where);
      f();
      if (config_.zero == 3) u.release();
    });
  }
  /// Parameters that are only described get memory, unless ranks share them.
  void allocate_weights() { for_each_unit([](auto& u) { u.allocate_weights(); }); }
  /// What for_each_weight gave was written: other ranks' copies follow.
  void weights_changed(Where where = here()) {
    release_all();
    for_each_unit([&](auto& u) { u.start_publish(where); });
    for_each_unit([&](auto& u) {
      u.finish_publish();
      for (auto& p : u.places()) p.param.storage()->touch(where);
    });
  }
  /// Calls f(path, tensor, shard) for the weights that this rank holds, or (`all` false) those of them that it alone writes to a
  /// checkpoint. A tensor that is a whole parameter has its shape, else it is flat.
  template <class F>
  void for_each_weight(F&& f, bool all = true) { for_each_unit([&](auto& u) { u.for_each_weight(all, f); }); }
  /// The same for everything the optimizer remembers, allocated where it is not yet: "m." and "v." and, for a narrow parameter,
  /// "master." before the parameter's path.
  template <class F>
  void for_each_state(F&& f, bool all = true) { for_each_unit([&](auto& u) { u.for_each_state(all, f); }); }

 private:
  using AnyUnit = std::variant<Unit<float, D>, Unit<double, D>, Unit<bf16, D>>;
  using Sums = std::vector<double, CachedAllocator<double>>;

  /// ZeRO-3: has a module's parameters there while it runs, and the next module's on their way.
  struct Hook final : nn::CallHooks {
    AdamW* self;
    const void* module;
    void (*remove)(const void*);
    std::vector<AnyUnit*> units;
    bool root = false;
    Hook* next[2] = {};  // the one that was entered after it last time, in a forward and in a backward

    void enter() {
      for (AnyUnit* unit : units)
        std::visit([&](auto& u) {
          ++u.users;
          u.gather(self->where_);
        }, *unit);
      const bool backward = tape_state().in_backward;  // where a part is computed again, in the order of the backward
      Hook*& last = self->last_[backward];
      if (last != nullptr && last != this && !root) last->next[backward] = this;
      last = root ? nullptr : this;
      if (next[backward] != nullptr)
        for (AnyUnit* unit : next[backward]->units) std::visit([&](auto& u) { u.prefetch(self->where_); }, *unit);
    }
    void leave(bool keep) {
      for (AnyUnit* unit : units)
        std::visit([&](auto& u) { if (u.users > 0 && --u.users == 0 && !keep) u.release(); }, *unit);
    }
    void enter_forward() override { enter(); }
    /// What the backward needs next stays: the root's, and all of a part that is computed again.
    void leave_forward() override { leave(tape_state().in_backward || (root && Tape::recording() != nullptr)); }
    void enter_backward() override { enter(); }
    void leave_backward() override { leave(false); }
  };

  // ---- The cut into units: each element of a list of modules is one, such as a block of a transformer; the rest is another.

  template <class M>
  void cut(const M& model, Communicator* ranks, Where where) {
    sharing_ = {ranks, config_.zero, config_.exact, config_.bucket_bytes};
    if (config_.zero < 0 || config_.zero > 3) fail<ValueError>("adamw", "expected a ZeRO stage of 0 to 3, got " + std::to_string(config_.zero), where);
    const int N = sharing_.size();
    if (config_.exact && (N & (N - 1)) != 0)
      fail<ValueError>("adamw", "expected a power of two of ranks for exact sums, got " + std::to_string(N), where, "set exact to false");
    const auto in_list = [](const std::string& path) {
      const auto dot = path.rfind('.');
      return dot != std::string::npos && path.find_first_not_of("0123456789", dot + 1) == std::string::npos;
    };
    std::string unit_path;  // of the outermost list's element that the walk is in; empty: the rest
    std::map<const Storage*, AnyUnit*> owners;
    std::map<std::pair<std::string, int>, AnyUnit*> units;
    std::map<std::string, Hook*> hook_of;
    std::string structure;
    nn::walk(model, "", [&](const std::string& path, const auto& module) {
      if (!unit_path.empty() && path.starts_with(unit_path + ".")) return;
      unit_path = in_list(path) ? path : "";
      if (config_.zero == 3 && !hook_of.contains(unit_path)) {
        Hook& hook = hooks_.emplace_back();
        hook.self = this, hook.module = &module, hook.root = unit_path.empty();
        hook.remove = [](const void* m) { static_cast<std::remove_cvref_t<decltype(module)> const*>(m)->set_hooks(nullptr); };
        module.set_hooks(&hook);
        hook_of[unit_path] = &hook;
      }
    }, [&](const std::string& path, const auto& p) {
      if (!p.slot()) return;
      using W = typename std::remove_cvref_t<decltype(p)>::value_type;
      if (!unit_path.empty() && !path.starts_with(unit_path + ".")) unit_path = "";
      AnyUnit*& owner = owners[p.storage().get()];
      if (owner == nullptr) {
        AnyUnit*& unit = units[{unit_path, static_cast<int>(dtype_of<W>)}];
        if (unit == nullptr) unit = &units_.emplace_back(std::in_place_type<Unit<W, D>>);
        owner = unit;
        std::get<Unit<W, D>>(*unit).add(path, p, rates_of(path, p.shape()));
        structure += path + to_string(p.shape());
      }
      if (const auto hook = hook_of.find(unit_path); hook != hook_of.end())
        if (auto& needs = hook->second->units; std::find(needs.begin(), needs.end(), owner) == needs.end()) needs.push_back(owner);
    });
    expect_same_model(structure, where);
    for (AnyUnit& unit : units_)
      std::visit([&](auto& u) {
        u.close(sharing_);
        for (std::size_t i = 0; i < u.places().size(); ++i) {
          Slot* const slot = u.places()[i].param.slot().get();
          homes_[slot] = {&unit, i};
          slot->sink = this;
        }
      }, unit);
  }
  Rates rates_of(const std::string& path, const Shape& shape) const {
    for (const ParameterGroup& g : config_.groups)
      if (g.matches(path, shape)) return {g.weight_decay, g.lr_scale};
    return {shape.rank() >= 2 ? config_.weight_decay : 0.0, 1.0};
  }
  void expect_same_model(const std::string& structure, Where where) {
    if (sharing_.size() == 1) return;
    std::string all = structure;
    if (config_.exact)
      for (const auto& [name, value] : environment()) all += name + value;  // other instructions or libraries give other bits
    const auto mine = static_cast<std::int64_t>(mix(static_cast<std::uint64_t>(config_.zero * 2 + config_.exact), all) >> 1);
    std::int64_t both[2] = {mine, -mine};
    sharing_.ranks->template all_reduce<std::int64_t>(both, Reduce::max, where);
    if (both[0] != mine || both[1] != -mine)
      fail<ValueError>("adamw", "expected every rank to have the same model, ZeRO stage and exactness" + std::string(config_.exact ? ", compiler, instruction set and libraries" : "") +
                                    ", but rank " + std::to_string(sharing_.rank()) + " differs from another", where);
  }

  // ---- What the tape says.

  struct Home {
    AnyUnit* unit;
    std::size_t place;
  };
  Ref<Storage> place(Slot& slot, std::size_t) override {
    const Home at = homes_.find(&slot)->second;
    return std::visit([&](auto& u) { return u.place(u.places()[at.place]); }, *at.unit);
  }
  void ready(Slot& slot) noexcept override {
    if (!eager()) return;
    const Home at = homes_.find(&slot)->second;
    std::visit([&](auto& u) { u.count_ready(u.places()[at.place]); }, *at.unit);
  }
  void advance() override {
    if (!eager()) return;
    while (to_reduce_ < units_.size() && std::visit([](auto& u) { return u.complete(); }, next_unit())) reduce_next();
  }
  void backward_ended(bool whole) override {
    if (!whole) return clear();
    ++micros_;
    if (eager()) {
      while (to_reduce_ < units_.size()) reduce_next();
      finish_reduced();
      to_reduce_ = 0;
    } else if (config_.exact) {
      for_each_unit([](auto& u) { u.push_micro_batch(); });
    }
    last_[0] = last_[1] = nullptr;
  }

  /// True iff gradients leave, or are used, inside the backward.
  bool eager() const { return config_.zero >= 2 || updating_ != nullptr; }
  /// Units leave from the last to the first, whatever the order in which they are complete: the same on every rank.
  AnyUnit& next_unit() { return units_[units_.size() - 1 - to_reduce_]; }
  void reduce_next() {
    finish_reduced();
    reducing_ = &next_unit();
    ++to_reduce_;
    std::visit([&](auto& u) {
      u.collect(sharing_.size() > 1 || config_.zero >= 2);
      u.end_backward();
      u.start_reduce(where_);
    }, *reducing_);
  }
  void finish_reduced() {
    if (reducing_ == nullptr) return;
    AnyUnit& unit = *std::exchange(reducing_, nullptr);
    std::visit([&](auto& u) {
      u.finish_reduce();
      if (updating_ == nullptr) return;
      u.sum_micro_batches();
      share_flags_of(u);
      u.squared_norms(sums_.data() + sums_at(unit));
      share_flags_of(u);  // now with what is not finite
      for (auto& p : u.places()) {
        if (!p.has) continue;
        std::string& list = p.bad ? left_ : moved_;
        if (p.bad || !left_.empty() || list.size() < 1000) list += (list.empty() ? "" : ", ") + p.path;
      }
      u.update(arguments(updating_->lr), {}, where_);
      u.start_publish(where_);
      u.finish_publish();
      u.clear();
    }, unit);
  }

  // ---- A step's parts.

  static void check(const StepOptions& options, Where where) {
    if (!(options.lr >= 0) || !(options.clip >= 0))
      fail<ValueError>("adamw", "expected lr and clip of at least 0, got lr " + std::to_string(options.lr) + " and clip " +
                                    std::to_string(options.clip), where);
  }
  void check_micro_batches(Where where) const {
    if (config_.exact && config_.zero < 2 && sharing_.size() > 1 && (micros_ & (micros_ - 1)) != 0)
      fail<ValueError>("adamw", "expected a power of two of micro-batches a rank for exact sums of ZeRO 0 and 1, got " + std::to_string(micros_), where,
                       "ZeRO 2 and 3 take any number");
  }
  kernels::AdamWArgs arguments(double lr) const {
    const auto t = static_cast<double>(steps_);
    return {lr, config_.beta1, config_.beta2, config_.eps, 0, 1 - std::pow(config_.beta1, t), 1 - std::pow(config_.beta2, t)};
  }
  /// A parameter that has a gradient on one rank has one on all.
  void share_flags(Where where) {
    if (sharing_.size() == 1) return;
    std::vector<std::uint8_t, CachedAllocator<std::uint8_t>> flags;
    for_each_place([&](auto& p) { flags.push_back(p.has); });
    sharing_.ranks->template all_reduce<std::uint8_t>(flags, Reduce::max, where);
    std::size_t i = 0;
    for_each_place([&](auto& p) { p.has = flags[i++] != 0; });
  }
  template <class U>
  void share_flags_of(U& u) {
    if (sharing_.size() == 1) return;
    std::vector<std::uint8_t, CachedAllocator<std::uint8_t>> flags;
    for (auto& p : u.places()) flags.push_back(static_cast<std::uint8_t>(p.has + 2 * p.bad));
    sharing_.ranks->template all_reduce<std::uint8_t>(flags, Reduce::max, where_);
    std::size_t i = 0;
    for (auto& p : u.places()) {
      p.has = flags[i] != 0;
      p.bad = flags[i++] >= 2;
    }
  }
  void reduce_all(Where where) {
    if (sharing_.size() == 1) return;
    AnyUnit* before = nullptr;
    const auto finish = [&](AnyUnit* unit) { if (unit != nullptr) std::visit([](auto& u) { u.finish_reduce(); }, *unit); };
    for (AnyUnit& unit : units_)
      std::visit([&](auto& u) {
        bool any = false;
        for (auto& p : u.places()) any = any || p.has;
        if (!any) return;
        if (!config_.exact) u.collect(true);
        u.start_reduce(where);
        finish(std::exchange(before, &unit));
      }, unit);
    finish(before);
  }
  void begin_norms() {
    Index own = 0;
    for_each_unit([&](auto& u) { own += u.own_pieces(); });
    sums_.assign(static_cast<std::size_t>(own), 0.0);
  }
  std::size_t sums_at(const AnyUnit& unit) {
    Index at = 0;
    for (AnyUnit& u : units_) {
      if (&u == &unit) break;
      std::visit([&](auto& x) { at += x.own_pieces(); }, u);
    }
    return static_cast<std::size_t>(at);
  }
  double norm_of_all(Where where) {
    begin_norms();
    Index at = 0;
    for_each_unit([&](auto& u) {
      u.squared_norms(sums_.data() + at);
      at += u.own_pieces();
    });
    return norm_of_pieces(where);
  }
  /// The root of the sum over all pieces of all ranks, in the order of units: padding has no piece.
  double norm_of_pieces(Where where) {
    const int N = sharing_.size();
    Sums all;
    if (N > 1) {
      all.resize(sums_.size() * static_cast<std::size_t>(N));
      sharing_.ranks->template all_gather<double>(std::span<const double>(sums_), std::span<double>(all), where);
    }
    Index pieces = 0, own = 0;
    for_each_unit([&](auto& u) { pieces += u.pieces(); });
    Sums ordered(static_cast<std::size_t>(pieces));
    pieces = 0;
    for_each_unit([&](auto& u) {
      for (int r = 0; r < N; ++r) u.order_norms(r, (N > 1 ? all.data() + static_cast<std::size_t>(r) * sums_.size() : sums_.data()) + own, ordered.data() + pieces);
      own += u.own_pieces(), pieces += u.pieces();
    });
    return std::sqrt(kernels::tree_sum(ordered.data(), pieces));
  }
  /// ZeRO-3: no parameter is there, until a module asks.
  void release_all() {
    if (config_.zero != 3) return;
    for_each_unit([](auto& u) {
      u.users = 0;
      u.release();
    });
  }
  void clear() {
    reducing_ = nullptr;
    to_reduce_ = 0, micros_ = 0;
    last_[0] = last_[1] = nullptr;
    for_each_unit([](auto& u) { u.clear(); });
    release_all();
  }

  template <class F>
  void for_each_unit(F&& f) { for (AnyUnit& unit : units_) std::visit(f, unit); }
  template <class F>
  void for_each_place(F&& f) { for_each_unit([&](auto& u) { for (auto& p : u.places()) f(p); }); }

  AdamWConfig config_;
  Sharing sharing_;
  std::deque<AnyUnit> units_;
  std::deque<Hook> hooks_;
  std::map<const Slot*, Home> homes_;
  Index steps_ = 0;
  Index micros_ = 0;                     // backwards since the last step
  std::size_t to_reduce_ = 0;            // units that have left in this backward
  AnyUnit* reducing_ = nullptr;
  const StepOptions* updating_ = nullptr;  // inside backward()
  std::string moved_, left_;
  Where where_;
  Sums sums_;
  Hook* last_[2] = {};
};

template <class M>
AdamW(const M&, AdamWConfig) -> AdamW<default_device>;
template <class M>
AdamW(const M&) -> AdamW<default_device>;
template <class M>
AdamW(const M&, Communicator&, AdamWConfig) -> AdamW<default_device>;
template <class M>
AdamW(const M&, Communicator&) -> AdamW<default_device>;

}  // namespace weft::inline WEFT_ABI::optim
