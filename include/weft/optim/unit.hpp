// Parameters that an optimizer keeps together, such as those of one block: their gradients lie in one block of memory, and ranks share
// them as cut.hpp cuts them.
#pragma once

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <vector>

#include "weft/optim/offload.hpp"
#include "weft/optim/states.hpp"
#include "weft/optim/sum_tree.hpp"
#include "weft/optim/weights.hpp"
#include "weft/tape/grad.hpp"

namespace weft::inline WEFT_ABI::optim {

/// All calls below that move data between ranks are collective.
template <class Weight, class D>
class Unit {
 public:
  using W = Weight;
  using S = stat_t<W>;  // of gradients

  using Place = typename Layout<W, D>::Place;

  Unit() = default;
  Unit(const Unit&) = delete;
  Unit& operator=(const Unit&) = delete;

  // ---- The cut.

  void add(const std::string& path, const nn::Parameter<W, D>& param, Rates rates) { places().push_back({path, param, rates, layout_.cut.add(param.numel())}); }
  /// After the last parameter: cuts the unit, and takes over the parameters' memory where ranks share it.
  void close(const Sharing& sharing, Keeping keeping) {
    layout_.sharing = sharing, keeping_ = keeping;
    layout_.cut.close(sharing, sizeof(S));
    weights_.take_over();
  }
  std::vector<Place>& places() { return layout_.places; }
  const std::vector<Place>& places() const { return layout_.places; }
  const Cut& cut() const { return layout_.cut; }
  Weights<W, D>& weights() { return weights_; }
  Index own_pieces() const { return cut().own_size() / Cut::piece; }

  // ---- Gradients.

  /// Memory for a parameter's gradient, in the unit's block.
  Ref<Storage> place(const Place& p) {
    if (!block_) block_ = new_storage<D>(static_cast<std::size_t>(cut().size()) * sizeof(S));
    return window(block_, p.begin, p.param.numel() * static_cast<Index>(sizeof(S)), sizeof(S));
  }
  void count_ready(Place& p) { if (!std::exchange(p.ready, true)) ++ready_; }
  /// True iff all parameters have their last gradient of this backward.
  bool complete() const { return ready_ == layout_.places.size(); }

  /// Brings what the backward wrote into the block, wherever it lies, and notes what is there. `fill`: zeroes what is not.
  void collect(bool fill) {
    // What an op has made ahead of a backward that is still to come lies in this block: it keeps it, and the rest moves.
    if (std::any_of(places().begin(), places().end(), [](const Place& p) { return p.param.slot()->claimed; })) block_ = {};
    for (Place& p : places()) {
      const Tensor<S, D> g = detail::gradient<S, D>(*p.param.slot());
      p.has |= g.defined();
      if (!g.defined() && !fill) continue;
      if (!block_) block_ = new_storage<D>(static_cast<std::size_t>(cut().size()) * sizeof(S));
      S* const to = block() + p.begin;
      const Index n = p.param.numel();
      if (!g.defined()) kernels::fill<S>(D{}, S(0), Out<S, D>{to, {n}, {1}, 0});
      else if (g.data() != to) kernels::map<kernels::Copy, S, S>(D{}, {}, Out<S, D>{to, {n}, {1}, 0}, In<S, D>{g.data(), {n}, {1}});
    }
  }
  /// A micro-batch's gradients as they are, for a sum in the tree's order; the next ones get memory of their own.
  void push_micro_batch() {
    collect(true);
    tree_.push(Tensor<S, D>(std::move(block_), 0, {cut().size()}, {1}));
    end_backward();
  }
  /// The block's sum over ranks, begun: two buckets are under way at a time, the last two still are when it returns.
  void start_reduce(Where where) {
    if (sharing().size() == 1) return;
    if (sharing().stage >= 2) part_ = Tensor<S, D>({cut().own_size()});
    for (std::size_t k = 0; k < cut().buckets().size(); ++k) {
      const std::span<S> all{block() + cut().buckets()[k].begin, static_cast<std::size_t>(cut().buckets()[k].length)};
      const auto share = static_cast<std::size_t>(cut().own()[k].count);
      Handle& handle = flight_[k % 2];
      handle.wait();
      if (sharing().stage == 0) handle = sharing().ranks->template start_all_reduce<S, D>(all, Reduce::sum, where);
      else
        handle = sharing().ranks->template start_reduce_scatter<S, D>(
            std::span<const S>(all), std::span<S>(sharing().stage == 1 ? block() + cut().own()[k].begin : part_.data() + cut().own()[k].kept, share), where);
    }
  }
  void finish_reduce() {
    for (Handle& handle : flight_) handle.wait();
    if (sharing().stage < 2) return;
    if (sharing().size() == 1) part_ = Tensor<S, D>(std::move(block_), 0, {cut().size()}, {1});
    block_ = {};
    if (sharing().exact) {
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
    if (!sharing().exact) return;
    Tensor<S, D> sum = tree_.take();
    if (sharing().stage >= 2) sum_ = std::move(sum);
    else if (sum.defined()) block_ = sum.storage();
  }
  /// What the tape wrote is taken; the next backward begins.
  void end_backward() {
    for (Place& p : places()) {
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
    for (Place& p : places()) p.has = p.bad = false;
  }

  /// Sums of squares of the pieces that this rank owns, 0 for what is not there: own_pieces() of them, on the device.
  void squared_norms(double* pieces) {
    kernels::fill<double>(D{}, 0, Out<double, D>{pieces, {own_pieces()}, {1}, 0});
    CachedVector<kernels::NormPart<S, D>> parts;
    for_pieces([&](Place& p, const Span& s, Index at, Index n) {
      if (p.has) parts.push_back({{gradient_at(s), {s.count}, {1}}, {pieces + at, {n}, {1}, 0}});
    });
    kernels::squared_norm<S>(D{}, std::span<const kernels::NormPart<S, D>>(parts));
  }
  /// Where one rank has all: a factor for each place, by these sums on the device: NaN where its gradient is not finite, and for all where a
  /// check on the GPU has failed, so that a refused batch moves nothing before the host hears of it.
  Tensor<float, D> finite_factors(const double* pieces) {
    const Tensor<float, D> factors({static_cast<Index>(places().size())});
    CachedVector<In<double, D>> sums;
    for (const Place& p : places()) sums.push_back({pieces + p.begin / Cut::piece, {(p.param.numel() + Cut::piece - 1) / Cut::piece}, {1}});
    kernels::finite_factors(D{}, std::span<const In<double, D>>(sums), factors);
    return factors;
  }
  /// Notes by these sums which parameters' gradients are not finite.
  void note_bad(const double* sums) {
    for_pieces([&](Place& p, const Span&, Index at, Index n) {
      for (Index i = 0; i < n; ++i) p.bad |= !std::isfinite(sums[at + i]);
    });
  }

  // ---- States.

  /// Allocates the states where they are not yet.
  void prepare() {
    if (states_.defined() || places().empty()) return;
    states_.allocate(cut().held_size(), keeping_);
    if constexpr (!std::is_same_v<W, S>)
      states_.visit([&](const auto&, const auto&, const Tensor<S, D>& master) {
        if (!master.defined()) return;
        layout_.for_spans(cut().held(), [&](Place& p, const Span& s) {
          kernels::map<kernels::Copy, S, W>(D{}, {}, Out<S, D>{master.data() + s.kept, {s.count}, {1}, 0}, In<W, D>{weights_.at(p, s), {s.count}, {1}});
        });
      });
  }
  /// One step of what has a gradient. `scale` is one for all, or one for each place. States on the host pass through `offload`, whose finish() is
  /// the caller's.
  void update(const kernels::AdamWArgs& common, const Tensor<float, D>& scale, [[maybe_unused]] Offload<D>& offload, Where where) {
    if (std::none_of(places().begin(), places().end(), [](const Place& p) { return p.has && !p.bad; })) return;
    prepare();
    states_.visit([&]<class M>(const Tensor<M, D>& m, const Tensor<M, D>& v, const Tensor<S, D>& master) {
      /// Elements [begin, end) of what this rank holds; the pointers are to the first's.
      const auto step = [&](Index begin, Index end, M* ms, M* vs, S* masters) {
        CachedVector<kernels::AdamWPart<W, S, M, D>> parts;
        layout_.for_spans(cut().held(), [&](Place& p, const Span& whole) {
          const Span s = whole.within(begin, end);
          if (s.count == 0 || !p.has || p.bad) return;
          kernels::AdamWArgs args = common;
          args.lr *= p.rates.lr_scale;
          args.lr_scale = p.rates.lr_scale;
          args.weight_decay = p.rates.weight_decay;
          args.rounding.key = p.rates.rounding;
          args.first = s.first;
          const auto part = [&]<class T>(T* x) { return x != nullptr ? Out<T, D>{x + (s.kept - begin), {s.count}, {1}, 0} : Out<T, D>{}; };
          const float* const factor = scale.defined() ? scale.data() + (scale.rank() > 0 ? &p - places().data() : 0) : nullptr;
          parts.push_back({{weights_.at(p, s), {s.count}, {1}, 0}, part(masters), {gradient_at(s), {s.count}, {1}}, part(ms), part(vs), args, {factor, {}, {}}});
        });
        kernels::adamw_step<W, S, M>(D{}, std::span<const kernels::AdamWPart<W, S, M, D>>(parts));
      };
      if constexpr (std::is_same_v<D, cuda>)
        if (keeping_.on_host) return offload.pass(m, v, master, step);
      step(0, cut().held_size(), m.data(), v.data(), master.defined() ? master.data() : nullptr);
    });
    for (Place& p : places())
      if (p.has && !p.bad) p.param.storage()->touch(where);
  }
  std::size_t norms_at = 0;  ///< where this unit's sums of squares begin among those of all that this rank owns

  /// Calls f(name, tensor, shard) for m, v and, where there is one, master, that this rank owns (`all` false: written by it alone) or holds;
  /// allocated where they are not yet.
  template <class F>
  void for_each_state(bool all, F&& f) {
    prepare();
    states_.visit([&](const auto& m, const auto& v, const auto& master) {
      layout_.for_spans(all ? cut().held() : cut().own(), [&](Place& p, const Span& s) {
        const Shard shard{s.first, s.count, p.param.shape()};
        f("m." + p.path, view_of(m, s.kept, shard), shard);
        f("v." + p.path, view_of(v, s.kept, shard), shard);
        if (master.defined()) f("master." + p.path, view_of(master, s.kept, shard), shard);
      });
    });
  }

 private:
  using Span = Cut::Span;
  /// Calls f(place, span, at, n): the span's n pieces are those from `at` on among this rank's.
  template <class F>
  void for_pieces(F&& f) {
    layout_.for_spans(cut().own(), [&](Place& p, const Span& s) { f(p, s, s.order / Cut::piece, (s.count + Cut::piece - 1) / Cut::piece); });
  }
  const Sharing& sharing() const { return layout_.sharing; }
  static Ref<Storage> window(const Ref<Storage>& block, Index begin, Index bytes, std::size_t element) {
    Ref<Storage> w = new_storage<D>(static_cast<std::size_t>(bytes), false);
    w->lend(block, static_cast<std::size_t>(begin) * element);
    return w;
  }
  S* block() const { return static_cast<S*>(block_->data); }
  const S* gradient_at(const Span& s) const { return sharing().stage < 2 ? block() + s.at : sum_.data() + s.kept; }

  Layout<W, D> layout_;
  Weights<W, D> weights_{layout_};
  Ref<Storage> block_;                  // gradients as the tape writes them
  Tensor<S, D> part_, sum_;             // ZeRO 2-3: this rank's part of one micro-batch's, and of all
  SumTree<S, D> tree_;                  // exact: micro-batches that wait for their sibling
  std::size_t ready_ = 0;
  States<W, D> states_;
  Keeping keeping_;
  std::array<Handle, 2> flight_;        // after the memory that they use, so that they end first
};

}  // namespace weft::inline WEFT_ABI::optim
