// Parameters that an optimizer keeps together, such as those of one block: their gradients lie in one block of memory, and what many
// ranks share of them is cut here. Parameters begin at multiples of a norm's piece, and every cut lies at one, so that neither norms
// nor updates depend on the number of ranks.
//
//   unit     | parameter 0 ....|pad| parameter 1 |pad| ... |padding to a multiple of ranks x 4,096 |
//   buckets  | 0                       | 1                     | 2                                 |   one collective each
//   rank 1 keeps   ^^^^^^ 1 of 4 parts       ^^^^^^                  ^^^^^^^^^                          of every bucket
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "weft/comm/communicator.hpp"
#include "weft/kernels/cpu/adamw.hpp"
#include "weft/nn/module.hpp"
#include "weft/tape/grad.hpp"

namespace weft::inline WEFT_ABI::optim {

/// What ZeRO shares among ranks (Rajbhandari et al. 2020): 1 optimizer states, 2 also gradients, 3 also parameters.
struct Sharing {
  Communicator* ranks = nullptr;  ///< null: one rank
  int stage = 0;
  bool exact = false;             ///< micro-batches are summed in one tree, whatever the number of ranks
  std::size_t bucket_bytes = std::size_t{16} << 20;

  int size() const { return ranks != nullptr ? ranks->size() : 1; }
  int rank() const { return ranks != nullptr ? ranks->rank() : 0; }
};

struct Rates {
  double weight_decay, lr_scale;
};

/// The part of a parameter that one rank keeps: `count` elements from `first` on.
struct Shard {
  Index first, count;
  Shape shape;  ///< of the whole parameter
  bool whole() const { return count == numel(shape); }
};

/// The sum of arrays that come one after the other, such as micro-batches' gradients, in the tree of comm::tree_reduce: node (k, j)
/// covers arrays [j 2^k, (j + 1) 2^k), left child first. At most 1 + log2(arrays) of them live.
template <class S, class D>
class SumTree {
 public:
  void push(Tensor<S, D> x) {
    nodes_.push_back(std::move(x));
    for (Index k = count_++; k & 1; k >>= 1) merge();
  }
  /// The sum of all, and begins anew; undefined where nothing came.
  Tensor<S, D> take() {
    while (nodes_.size() > 1) merge();
    Tensor<S, D> sum = nodes_.empty() ? Tensor<S, D>() : nodes_[0];
    clear();
    return sum;
  }
  void clear() {
    nodes_.clear();
    count_ = 0;
  }

 private:
  void merge() {
    const Tensor<S, D> right = nodes_.back();
    nodes_.pop_back();
    const std::array<const S*, 2> pair{nodes_.back().data(), right.data()};
    comm::tree_reduce<S>(Reduce::sum, pair.data(), 2, nodes_.back().data(), right.numel());
  }
  std::vector<Tensor<S, D>> nodes_;
  Index count_ = 0;
};

/// All calls below that move data between ranks are collective.
template <class Weight, class D>
class Unit {
 public:
  using W = Weight;
  using S = stat_t<W>;  // of gradients, moments and masters
  static constexpr Index piece = kernels::norm_piece;

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

  void add(const std::string& path, const nn::Parameter<W, D>& param, Rates rates) {
    places_.push_back({path, param, rates, used_});
    used_ += (param.numel() + piece - 1) / piece * piece;
  }
  /// After the last parameter: cuts the unit, and takes over the parameters' memory where ranks share it.
  void close(const Sharing& sharing) {
    sharing_ = sharing;
    const Index N = sharing.size(), r = sharing.rank(), step = N * piece;
    size_ = (used_ + step - 1) / step * step;
    const Index most = std::max(step, static_cast<Index>(sharing.bucket_bytes / sizeof(S)) / step * step);
    Index kept = 0;
    for (Index begin = 0; begin < size_; begin += most) {
      const Index length = std::min(most, size_ - begin), share = length / N;
      buckets_.push_back({begin, length});
      own_.push_back({begin + r * share, share, sharing.stage == 0 ? begin + r * share : kept, kept});
      kept += share;
    }
    if (N == 1) own_ = {{0, size_, 0, 0}};
    held_ = sharing.stage == 0 ? std::vector<Part>{{0, size_, 0, 0}} : own_;
    if (sharing.stage == 3) take_shards();
    else if (N > 1 && sharing.stage > 0) take_whole();
  }
  std::vector<Place>& places() { return places_; }
  Index size() const { return size_; }              ///< elements, padding counted
  Index own_size() const { return size_ / sharing_.size(); }
  Index own_pieces() const { return own_size() / piece; }
  Index pieces() const { return used_ / piece; }    ///< of which no rank has padding alone

  // ---- Gradients.

  /// Memory for a parameter's gradient, in the unit's block.
  Ref<Storage> place(const Place& p) {
    if (!block_) block_ = Ref<Storage>::make(static_cast<std::size_t>(size_) * sizeof(S), true);
    return window(block_, p.begin, p.param.numel() * static_cast<Index>(sizeof(S)), sizeof(S));
  }
  void count_ready(Place& p) { if (!std::exchange(p.ready, true)) ++ready_; }
  /// True iff all parameters have their last gradient of this backward.
  bool complete() const { return ready_ == places_.size(); }

  /// Brings what the backward wrote into the block, wherever it lies, and notes what is there. `fill`: zeroes what is not.
  void collect(bool fill) {
    for (Place& p : places_) {
      const Tensor<S, D> g = detail::gradient<S, D>(*p.param.slot());
      p.has |= g.defined();
      if (!g.defined() && !fill) continue;
      if (!block_) block_ = Ref<Storage>::make(static_cast<std::size_t>(size_) * sizeof(S), true);
      S* const to = block() + p.begin;
      const Index n = p.param.numel();
      if (!g.defined()) kernels::fill<S>(D{}, S(0), Out<S, D>{to, {n}, {1}, 0});
      else if (g.data() != to) kernels::map<kernels::Copy, S, S>(D{}, {}, Out<S, D>{to, {n}, {1}, 0}, In<S, D>{g.data(), {n}, {1}});
    }
  }
  /// A micro-batch's gradients as they are, for a sum in the tree's order; the next ones get memory of their own.
  void push_micro_batch() {
    collect(true);
    tree_.push(Tensor<S, D>(std::move(block_), 0, {size_}, {1}));
    end_backward();
  }
  /// The block's sum over ranks, begun: two buckets are under way at a time, the last two still are when it returns.
  void start_reduce(Where where) {
    if (sharing_.size() == 1) return;
    if (sharing_.stage >= 2) part_ = Tensor<S, D>({own_size()});
    for (std::size_t k = 0; k < buckets_.size(); ++k) {
      const std::span<S> all{block() + buckets_[k].begin, static_cast<std::size_t>(buckets_[k].length)};
      const auto share = static_cast<std::size_t>(own_[k].count);
      Handle& handle = flight_[k % 2];
      handle.wait();
      if (sharing_.stage == 0) handle = sharing_.ranks->start_all_reduce(all, Reduce::sum, where);
      else
        handle = sharing_.ranks->start_reduce_scatter(
            std::span<const S>(all), std::span<S>(sharing_.stage == 1 ? block() + own_[k].begin : part_.data() + own_[k].kept, share), where);
    }
  }
  void finish_reduce() {
    for (Handle& handle : flight_) handle.wait();
    if (sharing_.stage < 2) return;
    if (sharing_.size() == 1) part_ = Tensor<S, D>(std::move(block_), 0, {size_}, {1});
    block_ = {};
    if (sharing_.exact) {
      tree_.push(std::move(part_));
    } else if (!sum_.defined()) {
      sum_ = std::move(part_);
    } else {
      const std::array<const S*, 2> pair{sum_.data(), part_.data()};
      comm::tree_reduce<S>(Reduce::sum, pair.data(), 2, sum_.data(), sum_.numel());
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

  /// Sums of squares of the pieces that this rank owns, 0 for what is not there: own_pieces() of them.
  void squared_norms(double* sums) {
    std::fill(sums, sums + own_pieces(), 0.0);
    for_spans(own_, [&](Place& p, const Span& s) {
      if (!p.has) return;
      double* const at = sums + s.order / piece;
      const Index n = (s.count + piece - 1) / piece;
      kernels::squared_norm<S>(D{}, In<S, D>{gradient_at(s), {s.count}, {1}}, Out<double, D>{at, {n}, {1}, 0});
      for (Index i = 0; i < n; ++i) p.bad |= !std::isfinite(at[i]);
    });
  }
  /// Puts rank r's sums where they belong among all of this unit's pieces.
  void order_norms(int r, const double* own, double* all) const {
    for (const Bucket& b : buckets_) {
      const Index share = b.length / sharing_.size() / piece, begin = b.begin / piece + r * share;
      for (Index i = 0; i < share; ++i)
        if (begin + i < pieces()) all[begin + i] = own[i];
      own += share;
    }
  }

  // ---- Weights and states.

  void update(const kernels::AdamWArgs& common, const Tensor<float, D>& scale, Where where) {
    prepare();
    for_spans(held_, [&](Place& p, const Span& s) {
      if (!p.has || p.bad) return;
      kernels::AdamWArgs args = common;
      args.lr *= p.rates.lr_scale;
      args.weight_decay = p.rates.weight_decay;
      const auto state = [&](const Tensor<S, D>& x) { return x.defined() ? Out<S, D>{x.data() + s.kept, {s.count}, {1}, 0} : Out<S, D>{}; };
      kernels::adamw_step<W, S>(D{}, Out<W, D>{weight_at(p, s), {s.count}, {1}, 0}, state(master_), In<S, D>{gradient_at(s), {s.count}, {1}},
                                state(m_), state(v_), args, scale);
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

  void materialise(std::uint64_t seed) {
    allocate_weights();
    for_spans(held_, [&](Place& p, const Span& s) { p.param.fill(seed, p.path, s.first, Out<W, D>{weight_at(p, s), {s.count}, {1}, 0}); });
  }
  /// Parameters that are only described get their memory, unless ranks share them.
  void allocate_weights() {
    if (sharing_.stage != 3)
      for (Place& p : places_) p.param.storage()->materialise();
  }
  /// Calls f(name, tensor, shard) for the weights that this rank owns (`all` false: written by it alone) or holds.
  template <class F>
  void for_each_weight(bool all, F&& f) {
    for_spans(all ? held_ : own_, [&](Place& p, const Span& s) {
      const Shard shard{s.first, s.count, p.param.shape()};
      if (sharing_.stage == 3) f(p.path, view(weights_, s.kept, shard), shard);
      else f(p.path, view(static_cast<const Tensor<W, D>&>(p.param), s.first, shard), shard);
    });
  }
  /// The same for m, v and, where weights are narrow, master; allocated where they are not yet.
  template <class F>
  void for_each_state(bool all, F&& f) {
    prepare();
    for_spans(all ? held_ : own_, [&](Place& p, const Span& s) {
      const Shard shard{s.first, s.count, p.param.shape()};
      f("m." + p.path, view(m_, s.kept, shard), shard);
      f("v." + p.path, view(v_, s.kept, shard), shard);
      if (master_.defined()) f("master." + p.path, view(master_, s.kept, shard), shard);
    });
  }

 private:
  struct Bucket {
    Index begin, length;
  };
  struct Part {
    Index begin, count;
    Index kept;   ///< where it begins in what this rank keeps
    Index order;  ///< where it begins among what this rank owns
  };
  struct Span {
    Index first;  ///< in the parameter
    Index count;
    Index at;     ///< in the unit
    Index kept, order;
  };
  template <class F>
  void for_spans(const std::vector<Part>& parts, F&& f) {
    for (Place& p : places_)
      for (const Part& part : parts) {
        const Index begin = std::max(p.begin, part.begin), end = std::min(p.begin + p.param.numel(), part.begin + part.count);
        if (begin < end) f(p, Span{begin - p.begin, end - begin, begin, part.kept + begin - part.begin, part.order + begin - part.begin});
      }
  }

  static Ref<Storage> window(const Ref<Storage>& block, Index begin, Index bytes, std::size_t element) {
    Ref<Storage> w = Ref<Storage>::make(static_cast<std::size_t>(bytes), false);
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

  void prepare() {
    if (m_.defined() || places_.empty()) return;
    const Shape held{sharing_.stage == 0 ? size_ : own_size()};
    for (Tensor<S, D>* x : {&m_, &v_}) {
      *x = Tensor<S, D>(held);
      kernels::fill<S>(D{}, S(0), *x);
    }
    if constexpr (!std::is_same_v<W, S>) {
      master_ = Tensor<S, D>(held);
      for_spans(held_, [&](Place& p, const Span& s) {
        kernels::map<kernels::Copy, S, W>(D{}, {}, Out<S, D>{master_.data() + s.kept, {s.count}, {1}, 0}, In<W, D>{weight_at(p, s), {s.count}, {1}});
      });
    }
  }

  /// The weights move into one block that ranks can collect into.
  void take_whole() {
    whole_ = Ref<Storage>::make(static_cast<std::size_t>(size_) * sizeof(W), true);
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
    weights_ = Tensor<W, D>({own_size()});
    for_spans(own_, [&](Place& p, const Span& s) {
      if (p.param.storage()->data != nullptr)
        kernels::map<kernels::Copy, W, W>(D{}, {}, Out<W, D>{weights_.data() + s.kept, {s.count}, {1}, 0}, In<W, D>{p.param.data() + s.first, {s.count}, {1}});
    });
    for (Place& p : places_) p.param.storage()->drop();
  }
  void start_gather(Where where) {
    if (!whole_) whole_ = Ref<Storage>::make(static_cast<std::size_t>(size_) * sizeof(W), true);
    W* const all = static_cast<W*>(whole_->data);
    if (sharing_.size() == 1) {
      if (sharing_.stage == 3) std::copy(weights_.data(), weights_.data() + size_, all);
      return;
    }
    for (std::size_t k = 0; k < buckets_.size(); ++k) {
      const W* const mine = sharing_.stage == 3 ? weights_.data() + own_[k].kept : all + own_[k].begin;
      gathering_.push_back(sharing_.ranks->start_all_gather(std::span<const W>(mine, static_cast<std::size_t>(own_[k].count)),
                                                           std::span<W>(all + buckets_[k].begin, static_cast<std::size_t>(buckets_[k].length)), where));
    }
  }
  void wait_gather() {
    for (Handle& handle : gathering_) handle.wait();
    gathering_.clear();
  }

  std::vector<Place> places_;
  Index used_ = 0, size_ = 0;
  Sharing sharing_;
  std::vector<Bucket> buckets_;
  std::vector<Part> own_, held_;

  Ref<Storage> block_;                  // gradients as the tape writes them
  Tensor<S, D> part_, sum_;             // ZeRO 2-3: this rank's part of one micro-batch's, and of all
  SumTree<S, D> tree_;                  // exact: micro-batches that wait for their sibling
  std::size_t ready_ = 0;
  Tensor<S, D> m_, v_, master_;
  Ref<Storage> whole_;                  // all weights, where ranks collect them
  Tensor<W, D> weights_;                // ZeRO-3: this rank's
  std::array<Handle, 2> flight_;        // after the memory that they use, so that they end first
  std::vector<Handle> gathering_;
};

}  // namespace weft::inline WEFT_ABI::optim
