// Parameters that an optimizer keeps together, such as those of one block: their gradients lie in one block of memory, and ranks share
// them as cut.hpp cuts them.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "weft/nn/module.hpp"
#include "weft/optim/cut.hpp"
#include "weft/optim/states.hpp"
#include "weft/optim/sum_tree.hpp"
#include "weft/tape/grad.hpp"

namespace weft::inline WEFT_ABI::optim {

struct Rates {
  double weight_decay, lr_scale;
  PhiloxKey rounding;  ///< where it is stochastic
};

/// All calls below that move data between ranks are collective.
template <class Weight, class D>
class Unit {
 public:
  using W = Weight;
  using S = stat_t<W>;  // of gradients

  struct Place {
    std::string path;
    nn::Parameter<W, D> param;
    Rates rates;
    Index begin;             ///< in the unit
    bool ready = false;      ///< its last gradient of this backward has come
    bool has = false;        ///< a gradient came in this step, on any rank once flags are exchanged
    bool bad = false;        ///< one that is not finite: the parameter is left as it is
  };

  // ---- The cut.

  void add(const std::string& path, const nn::Parameter<W, D>& param, Rates rates) { places_.push_back({path, param, rates, cut_.add(param.numel())}); }
  /// After the last parameter: cuts the unit, and takes over the parameters' memory where ranks share it.
  void close(const Sharing& sharing, bool bf16_states) {
    sharing_ = sharing, bf16_states_ = bf16_states;
    cut_.close(sharing, sizeof(S));
    if (sharing.stage == 3) take_shards();
    else if (sharing.size() > 1 && sharing.stage > 0) take_whole();
  }
  std::vector<Place>& places() { return places_; }
  const Cut& cut() const { return cut_; }
  Index own_pieces() const { return cut_.own_size() / Cut::piece; }

  // ---- Gradients.

  /// Memory for a parameter's gradient, in the unit's block.
  Ref<Storage> place(const Place& p) {
    if (!block_) block_ = new_storage<D>(static_cast<std::size_t>(cut_.size()) * sizeof(S));
    return window(block_, p.begin, p.param.numel() * static_cast<Index>(sizeof(S)), sizeof(S));
  }
  void count_ready(Place& p) { if (!std::exchange(p.ready, true)) ++ready_; }
  /// True iff all parameters have their last gradient of this backward.
  bool complete() const { return ready_ == places_.size(); }

  /// Brings what the backward wrote into the block, wherever it lies, and notes what is there. `fill`: zeroes what is not.
  void collect(bool fill) {
    // What an op has made ahead of a backward that is still to come lies in this block: it keeps it, and the rest moves.
    if (std::any_of(places_.begin(), places_.end(), [](const Place& p) { return p.param.slot()->claimed; })) block_ = {};
    for (Place& p : places_) {
      const Tensor<S, D> g = detail::gradient<S, D>(*p.param.slot());
      p.has |= g.defined();
      if (!g.defined() && !fill) continue;
      if (!block_) block_ = new_storage<D>(static_cast<std::size_t>(cut_.size()) * sizeof(S));
      S* const to = block() + p.begin;
      const Index n = p.param.numel();
      if (!g.defined()) kernels::fill<S>(D{}, S(0), Out<S, D>{to, {n}, {1}, 0});
      else if (g.data() != to) kernels::map<kernels::Copy, S, S>(D{}, {}, Out<S, D>{to, {n}, {1}, 0}, In<S, D>{g.data(), {n}, {1}});
    }
  }
  /// A micro-batch's gradients as they are, for a sum in the tree's order; the next ones get memory of their own.
  void push_micro_batch() {
    collect(true);
    tree_.push(Tensor<S, D>(std::move(block_), 0, {cut_.size()}, {1}));
    end_backward();
  }
  /// The block's sum over ranks, begun: two buckets are under way at a time, the last two still are when it returns.
  void start_reduce(Where where) {
    if (sharing_.size() == 1) return;
    if (sharing_.stage >= 2) part_ = Tensor<S, D>({cut_.own_size()});
    for (std::size_t k = 0; k < cut_.buckets().size(); ++k) {
      const std::span<S> all{block() + cut_.buckets()[k].begin, static_cast<std::size_t>(cut_.buckets()[k].length)};
      const auto share = static_cast<std::size_t>(cut_.own()[k].count);
      Handle& handle = flight_[k % 2];
      handle.wait();
      if (sharing_.stage == 0) handle = sharing_.ranks->template start_all_reduce<S, D>(all, Reduce::sum, where);
      else
        handle = sharing_.ranks->template start_reduce_scatter<S, D>(
            std::span<const S>(all), std::span<S>(sharing_.stage == 1 ? block() + cut_.own()[k].begin : part_.data() + cut_.own()[k].kept, share), where);
    }
  }
  void finish_reduce() {
    for (Handle& handle : flight_) handle.wait();
    if (sharing_.stage < 2) return;
    if (sharing_.size() == 1) part_ = Tensor<S, D>(std::move(block_), 0, {cut_.size()}, {1});
    block_ = {};
    if (sharing_.exact) {
      tree_.push(std::move(part_));
    } else if (!sum_.defined()) {
      sum_ = std::move(part_);
    } else {
      kernels::map<kernels::Add, S, S, S>(D{}, {}, sum_, sum_, part_);
    }
    part_ = {};
  }
  /// The step's micro-batches become one gradient.
  void sum_micro_batches() {
    if (!sharing_.exact) return;
    Tensor<S, D> sum = tree_.take();
    if (sharing_.stage >= 2) sum_ = std::move(sum);
    else if (sum.defined()) block_ = sum.storage();
  }
  /// What the tape wrote is taken; the next backward begins.
  void end_backward() {
    for (Place& p : places_) {
      p.param.slot()->clear();
      p.ready = false;
    }
    ready_ = 0;
  }
  /// Forgets all gradients, whatever is under way with them.
  void clear() {
    for (Handle& handle : flight_) handle.drop();
    end_backward();
    block_ = {};
    part_ = sum_ = {};
    tree_.clear();
    for (Place& p : places_) p.has = p.bad = false;
  }

  /// Sums of squares of the pieces that this rank owns, 0 for what is not there: own_pieces() of them, on the device.
  void squared_norms(double* pieces) {
    kernels::fill<double>(D{}, 0, Out<double, D>{pieces, {own_pieces()}, {1}, 0});
    for_spans(cut_.own(), [&](Place& p, const Span& s) {
      if (!p.has) return;
      const Index at = s.order / Cut::piece, n = (s.count + Cut::piece - 1) / Cut::piece;
      kernels::squared_norm<S>(D{}, In<S, D>{gradient_at(s), {s.count}, {1}}, Out<double, D>{pieces + at, {n}, {1}, 0});
    });
  }
  /// Notes by these sums which parameters' gradients are not finite.
  void note_bad(const double* sums) {
    for_spans(cut_.own(), [&](Place& p, const Span& s) {
      if (!p.has) return;
      const Index at = s.order / Cut::piece, n = (s.count + Cut::piece - 1) / Cut::piece;
      for (Index i = 0; i < n; ++i) p.bad |= !std::isfinite(sums[at + i]);
    });
  }

  // ---- Weights and states.

  /// Allocates the states where they are not yet.
  void prepare() {
    if (states_.defined() || places_.empty()) return;
    states_.allocate(cut_.held_size(), bf16_states_);
    if constexpr (!std::is_same_v<W, S>)
      states_.visit([&](const auto&, const auto&, const Tensor<S, D>& master) {
        if (!master.defined()) return;
        for_spans(cut_.held(), [&](Place& p, const Span& s) {
          kernels::map<kernels::Copy, S, W>(D{}, {}, Out<S, D>{master.data() + s.kept, {s.count}, {1}, 0}, In<W, D>{weight_at(p, s), {s.count}, {1}});
        });
      });
  }
  void update(const kernels::AdamWArgs& common, const Tensor<float, D>& scale, Where where) {
    prepare();
    states_.visit([&]<class M>(const Tensor<M, D>& m, const Tensor<M, D>& v, const Tensor<S, D>& master) {
      for_spans(cut_.held(), [&](Place& p, const Span& s) {
        if (!p.has || p.bad) return;
        kernels::AdamWArgs args = common;
        args.lr *= p.rates.lr_scale;
        args.lr_scale = p.rates.lr_scale;
        args.weight_decay = p.rates.weight_decay;
        args.rounding.key = p.rates.rounding;
        args.first = s.first;
        const auto part = [&s]<class T>(const Tensor<T, D>& x) { return x.defined() ? Out<T, D>{x.data() + s.kept, {s.count}, {1}, 0} : Out<T, D>{}; };
        kernels::adamw_step<W, S, M>(D{}, Out<W, D>{weight_at(p, s), {s.count}, {1}, 0}, part(master), In<S, D>{gradient_at(s), {s.count}, {1}},
                                     part(m), part(v), args, scale);
      });
    });
    for (Place& p : places_)
      if (p.has && !p.bad) p.param.storage()->touch(where);
  }
  /// Where every rank holds all weights but updates its own, they are collected; the last collectives are under way when it returns.
  void start_publish(Where where) { if (sharing_.size() > 1 && (sharing_.stage == 1 || sharing_.stage == 2)) start_gather(where); }
  void finish_publish() { wait_gather(); }

  /// ZeRO-3: the whole weights, for as long as somebody uses them.
  void gather(Where where) {
    if (gathering_.empty() && !whole_) start_gather(where);
    wait_gather();
    for (Place& p : places_)
      if (p.param.storage()->data == nullptr) p.param.storage()->lend(whole_, static_cast<std::size_t>(p.begin) * sizeof(W));
  }
  void prefetch(Where where) { if (gathering_.empty() && !whole_) start_gather(where); }
  void release() {
    for (Handle& handle : gathering_) handle.drop();
    gathering_.clear();
    for (Place& p : places_) p.param.storage()->drop();
    whole_ = {};
  }
  int users = 0;
  std::size_t norms_at = 0;  ///< where this unit's sums of squares begin among those of all that this rank owns

  void materialise(std::uint64_t seed) {
    allocate_weights();
    for_spans(cut_.held(), [&](Place& p, const Span& s) { p.param.fill(seed, p.path, s.first, Out<W, D>{weight_at(p, s), {s.count}, {1}, 0}); });
  }
  /// Parameters that are only described get their memory, unless ranks share them.
  void allocate_weights() {
    if (sharing_.stage != 3)
      for (Place& p : places_) p.param.storage()->materialise();
  }
  /// Calls f(name, tensor, shard) for the weights that this rank owns (`all` false: written by it alone) or holds.
  template <class F>
  void for_each_weight(bool all, F&& f) {
    for_spans(all ? cut_.held() : cut_.own(), [&](Place& p, const Span& s) {
      const Shard shard{s.first, s.count, p.param.shape()};
      if (sharing_.stage == 3) f(p.path, view(weights_, s.kept, shard), shard);
      else f(p.path, view(static_cast<const Tensor<W, D>&>(p.param), s.first, shard), shard);
    });
  }
  /// The same for m, v and, where there is one, master; allocated where they are not yet.
  template <class F>
  void for_each_state(bool all, F&& f) {
    prepare();
    states_.visit([&](const auto& m, const auto& v, const auto& master) {
      for_spans(all ? cut_.held() : cut_.own(), [&](Place& p, const Span& s) {
        const Shard shard{s.first, s.count, p.param.shape()};
        f("m." + p.path, view(m, s.kept, shard), shard);
        f("v." + p.path, view(v, s.kept, shard), shard);
        if (master.defined()) f("master." + p.path, view(master, s.kept, shard), shard);
      });
    });
  }

 private:
  using Span = Cut::Span;
  template <class F>
  void for_spans(const std::vector<Cut::Part>& parts, F&& f) {
    for (Place& p : places_) Cut::for_spans(parts, p.begin, p.param.numel(), [&](const Span& s) { f(p, s); });
  }

  static Ref<Storage> window(const Ref<Storage>& block, Index begin, Index bytes, std::size_t element) {
    Ref<Storage> w = new_storage<D>(static_cast<std::size_t>(bytes), false);
    w->lend(block, static_cast<std::size_t>(begin) * element);
    return w;
  }
  template <class T>
  static Tensor<T, D> view(const Tensor<T, D>& x, Index offset, const Shard& shard) {
    const Shape shape = shard.whole() ? shard.shape : Shape{shard.count};
    return {x.storage(), x.offset() + offset, shape, row_major(shape)};
  }
  S* block() const { return static_cast<S*>(block_->data); }
  const S* gradient_at(const Span& s) const { return sharing_.stage < 2 ? block() + s.at : sum_.data() + s.kept; }
  W* weight_at(const Place& p, const Span& s) const { return sharing_.stage == 3 ? weights_.data() + s.kept : p.param.data() + s.first; }

  /// The weights move into one block that ranks can collect into.
  void take_whole() {
    whole_ = new_storage<D>(static_cast<std::size_t>(cut_.size()) * sizeof(W));
    for (Place& p : places_) {
      W* const to = static_cast<W*>(whole_->data) + p.begin;
      const Index n = p.param.numel();
      if (p.param.storage()->data != nullptr)
        kernels::map<kernels::Copy, W, W>(D{}, {}, Out<W, D>{to, {n}, {1}, 0}, In<W, D>{p.param.data(), {n}, {1}});
      p.param.storage()->lend(whole_, static_cast<std::size_t>(p.begin) * sizeof(W));
    }
  }
  /// The rank keeps its part of the weights, and the parameters are dropped.
  void take_shards() {
    weights_ = Tensor<W, D>({cut_.own_size()});
    for_spans(cut_.own(), [&](Place& p, const Span& s) {
      if (p.param.storage()->data != nullptr)
        kernels::map<kernels::Copy, W, W>(D{}, {}, Out<W, D>{weights_.data() + s.kept, {s.count}, {1}, 0}, In<W, D>{p.param.data() + s.first, {s.count}, {1}});
    });
    for (Place& p : places_) p.param.storage()->drop();
  }
  void start_gather(Where where) {
    if (!whole_) whole_ = new_storage<D>(static_cast<std::size_t>(cut_.size()) * sizeof(W));
    W* const all = static_cast<W*>(whole_->data);
    if (sharing_.size() == 1) {
      if (sharing_.stage == 3) kernels::map<kernels::Copy, W, W>(D{}, {}, Out<W, D>{all, {cut_.size()}, {1}, 0}, weights_);
      return;
    }
    for (std::size_t k = 0; k < cut_.buckets().size(); ++k) {
      const W* const mine = sharing_.stage == 3 ? weights_.data() + cut_.own()[k].kept : all + cut_.own()[k].begin;
      gathering_.push_back(sharing_.ranks->template start_all_gather<W, D>(std::span<const W>(mine, static_cast<std::size_t>(cut_.own()[k].count)),
                                                           std::span<W>(all + cut_.buckets()[k].begin, static_cast<std::size_t>(cut_.buckets()[k].length)), where));
    }
  }
  void wait_gather() {
    for (Handle& handle : gathering_) handle.wait();
    gathering_.clear();
  }

  std::vector<Place> places_;
  Sharing sharing_;
  Cut cut_;

  Ref<Storage> block_;                  // gradients as the tape writes them
  Tensor<S, D> part_, sum_;             // ZeRO 2-3: this rank's part of one micro-batch's, and of all
  SumTree<S, D> tree_;                  // exact: micro-batches that wait for their sibling
  std::size_t ready_ = 0;
  States<W, D> states_;
  bool bf16_states_ = false;
  Ref<Storage> whole_;                  // all weights, where ranks collect them
  Tensor<W, D> weights_;                // ZeRO-3: this rank's
  std::array<Handle, 2> flight_;        // after the memory that they use, so that they end first
  std::vector<Handle> gathering_;
};

}  // namespace weft::inline WEFT_ABI::optim
