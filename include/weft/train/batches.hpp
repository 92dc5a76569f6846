// Batches of a token stream whose order is a pure function of seed and step, cut into micro-batches.
#pragma once

#include "weft/comm/communicator.hpp"
#include "weft/core/tensor.hpp"
#include "weft/tape/tape.hpp"
#include "weft/train/text.hpp"

namespace weft::inline WEFT_ABI::train {

template <class D = default_device>
struct Batch {
  Tensor<std::int64_t, D> tokens, targets;  // (B, T)
  Key key;
};

struct BatchesConfig {
  Index batch = 12;        ///< sequences of a step
  Index micro_batch = 0;   ///< of these, how many at a time; 0: all
  Index context = 64;
  std::uint64_t seed = 0;
};

/// Random windows of a text. The tokens must outlive it.
class Batches {
 public:
  /// Throws ValueError where the micro-batch does not divide the batch, or the text is shorter than a window.
  Batches(std::span<const std::int64_t> tokens, BatchesConfig config, Where where = here()) : tokens_(tokens), config_(config) {
    if (config_.micro_batch == 0) config_.micro_batch = config_.batch;
    if (config_.batch < 1 || config_.micro_batch < 1 || config_.batch % config_.micro_batch != 0)
      fail<ValueError>("batches", "expected a batch of at least 1 that the micro-batch divides, got " + std::to_string(config_.batch) +
                                      " and " + std::to_string(config_.micro_batch), where);
    sample_offset(config_.seed, 0, 0, config_.context, static_cast<Index>(tokens.size()), where);
  }
  Index micros() const { return config_.batch / config_.micro_batch; }
  Index tokens_a_step() const { return config_.batch * config_.context; }

  /// Micro-batch `micro` of a step.
  template <class D = default_device>
  Batch<D> at(Index step, Index micro = 0) const {
    const std::vector<Index> offsets = batch_offsets(config_.seed, step, config_.micro_batch, config_.context,
                                                     static_cast<Index>(tokens_.size()), micro * config_.micro_batch);
    const TokenBatch b = gather_batch(tokens_, offsets, config_.context);
    const Shape shape{b.samples, b.context};
    return {from_vector<std::int64_t, D>(b.inputs, shape), from_vector<std::int64_t, D>(b.labels, shape),
            {config_.seed, step, micro, micros(), {static_cast<double>(tokens_a_step())}}};
  }

 private:
  std::span<const std::int64_t> tokens_;
  BatchesConfig config_;
};

/// The mean loss over at most `most` windows of a validation split (0: all of it), `batch` at a time; nothing is recorded. With `ranks`
/// each computes its share, and all return the same bits as one would.
template <class M>
double evaluate(const M& model, const Windows& windows, Index batch, Index most = 0, Communicator* ranks = nullptr) {
  const NoGrad no_tape;
  const Index count = most > 0 ? std::min(most, windows.count()) : windows.count(), parts = (count + batch - 1) / batch;
  const Index N = ranks != nullptr ? ranks->size() : 1, rank = ranks != nullptr ? ranks->rank() : 0;
  std::vector<double> sums(static_cast<std::size_t>(2 * parts));  // of losses, and of labels
  for (Index first = 0; first < parts; first += N) {
    const Index mine = first + rank, part = std::min(mine, parts - 1);  // a rank without a part runs along: its modules may be shared
    const TokenBatch b = windows.batch(part * batch, std::min(batch, count - part * batch));
    const Shape shape{b.samples, b.context};
    const auto loss = model.loss(from_vector<std::int64_t>(b.inputs, shape), from_vector<std::int64_t>(b.labels, shape));
    if (mine >= parts) continue;
    sums[static_cast<std::size_t>(2 * part)] = static_cast<double>(loss.terms()[0].sum.item());
    sums[static_cast<std::size_t>(2 * part) + 1] = loss.terms()[0].count;
  }
  if (N > 1) ranks->all_reduce<double>(sums);  // one rank's and zeros: exact
  double sum = 0, labels = 0;
  for (std::size_t part = 0; part < sums.size(); part += 2) sum += sums[part], labels += sums[part + 1];
  return labels > 0 ? sum / labels : 0;
}

}  // namespace weft::inline WEFT_ABI::train
