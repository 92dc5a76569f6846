// Where the weights of a unit lie. With ZeRO 1 and 2 every rank holds all, in one block that ranks collect into; with ZeRO 3 each rank
// holds its part, and all are there only for as long as somebody uses them.
#pragma once

#include <vector>

#include "weft/optim/layout.hpp"

namespace weft::inline WEFT_ABI::optim {

/// All calls that move data between ranks are collective.
template <class W, class D>
class Weights {
 public:
  using Place = typename Layout<W, D>::Place;
  using Span = Cut::Span;

  explicit Weights(Layout<W, D>& layout) : layout_(layout) {}
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  /// Once the unit is cut: takes over the parameters' memory where ranks share it.
  void take_over() {
    if (stage() == 3) take_shards();
    else if (size() > 1 && stage() > 0) take_whole();
  }
  /// Those of a span that this rank holds.
  W* at(const Place& p, const Span& s) const { return stage() == 3 ? own_.data() + s.kept : p.param.data() + s.first; }

  /// Where every rank holds all weights but updates its own, they are collected; the last collectives are under way when it returns.
  void start_publish(Where where) { if (size() > 1 && (stage() == 1 || stage() == 2)) start_gather(where); }
  void finish_publish() { wait_gather(); }

  /// ZeRO-3: the whole weights, for as long as somebody uses them.
  void gather(Where where) {
    if (gathering_.empty() && !whole_) start_gather(where);
    wait_gather();
    for (Place& p : layout_.places)
      if (p.param.storage()->data == nullptr) p.param.storage()->lend(whole_, static_cast<std::size_t>(p.begin) * sizeof(W));
  }
  void prefetch(Where where) { if (gathering_.empty() && !whole_) start_gather(where); }
  void release() {
    for (Handle& handle : gathering_) handle.drop();
    gathering_.clear();
    for (Place& p : layout_.places) p.param.storage()->drop();
    whole_ = {};
  }
  int users = 0;

  void materialise(std::uint64_t seed) {
    allocate();
    layout_.for_spans(layout_.cut.held(), [&](Place& p, const Span& s) { p.param.fill(seed, p.path, s.first, Out<W, D>{at(p, s), {s.count}, {1}, 0}); });
  }
  /// Parameters that are only described get their memory, unless ranks share them.
  void allocate() {
    if (stage() != 3)
      for (Place& p : layout_.places) p.param.storage()->materialise();
  }
  /// Calls f(name, tensor, shard) for the weights that this rank owns (`all` false: written by it alone) or holds.
  template <class F>
  void for_each(bool all, F&& f) {
    layout_.for_spans(all ? layout_.cut.held() : layout_.cut.own(), [&](Place& p, const Span& s) {
      const Shard shard{s.first, s.count, p.param.shape()};
      if (stage() == 3) f(p.path, view_of(own_, s.kept, shard), shard);
      else f(p.path, view_of(static_cast<const Tensor<W, D>&>(p.param), s.first, shard), shard);
    });
  }

 private:
  int stage() const { return layout_.sharing.stage; }
  int size() const { return layout_.sharing.size(); }

  void take_whole() {
    whole_ = new_storage<D>(static_cast<std::size_t>(layout_.cut.size()) * sizeof(W));
    for (Place& p : layout_.places) {
      W* const to = static_cast<W*>(whole_->data) + p.begin;
      const Index n = p.param.numel();
      if (p.param.storage()->data != nullptr)
        kernels::map<kernels::Copy, W, W>(D{}, {}, Out<W, D>{to, {n}, {1}, 0}, In<W, D>{p.param.data(), {n}, {1}});
      p.param.storage()->lend(whole_, static_cast<std::size_t>(p.begin) * sizeof(W));
    }
  }
  /// The rank keeps its part of the weights, and the parameters are dropped.
  void take_shards() {
    own_ = Tensor<W, D>({layout_.cut.own_size()});
    layout_.for_spans(layout_.cut.own(), [&](Place& p, const Span& s) {
      if (p.param.storage()->data != nullptr)
        kernels::map<kernels::Copy, W, W>(D{}, {}, Out<W, D>{own_.data() + s.kept, {s.count}, {1}, 0}, In<W, D>{p.param.data() + s.first, {s.count}, {1}});
    });
    for (Place& p : layout_.places) p.param.storage()->drop();
  }
  void start_gather(Where where) {
    const Cut& cut = layout_.cut;
    if (!whole_) whole_ = new_storage<D>(static_cast<std::size_t>(cut.size()) * sizeof(W));
    W* const all = static_cast<W*>(whole_->data);
    if (size() == 1) {
      if (stage() == 3) kernels::map<kernels::Copy, W, W>(D{}, {}, Out<W, D>{all, {cut.size()}, {1}, 0}, own_);
      return;
    }
    for (std::size_t k = 0; k < cut.buckets().size(); ++k) {
      const W* const mine = stage() == 3 ? own_.data() + cut.own()[k].kept : all + cut.own()[k].begin;
      gathering_.push_back(layout_.sharing.ranks->template start_all_gather<W, D>(std::span<const W>(mine, static_cast<std::size_t>(cut.own()[k].count)),
                                                                 std::span<W>(all + cut.buckets()[k].begin, static_cast<std::size_t>(cut.buckets()[k].length)), where));
    }
  }
  void wait_gather() {
    for (Handle& handle : gathering_) handle.wait();
    gathering_.clear();
  }

  Layout<W, D>& layout_;
  Ref<Storage> whole_;             // all weights, where ranks collect them
  Tensor<W, D> own_;               // ZeRO-3: this rank's
  std::vector<Handle> gathering_;  // after the memory that they use, so that they end first
};

}  // namespace weft::inline WEFT_ABI::optim
