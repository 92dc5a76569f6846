// How a unit of parameters is cut among ranks. Parameters begin at multiples of a norm's piece, and every cut lies at one, so that
// neither norms nor updates depend on the number of ranks.
//
//   unit     | parameter 0 ....|pad| parameter 1 |pad| ... |padding to a multiple of ranks x 4,096 |
//   buckets  | 0                       | 1                     | 2                                 |   one collective each
//   rank 1 keeps   ^^^^^^ 1 of 4 parts       ^^^^^^                  ^^^^^^^^^                          of every bucket
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "weft/comm/communicator.hpp"
#include "weft/kernels/cpu/adamw.hpp"
#include "weft/kernels/cuda/adamw.hpp"

namespace weft::inline WEFT_ABI::optim {

/// What ZeRO shares among ranks (Rajbhandari et al. 2020): 1 optimizer states, 2 also gradients, 3 also parameters.
struct Sharing {
  Communicator* ranks = nullptr;  ///< null: one rank
  int stage = 0;
  bool exact = false;             ///< micro-batches are summed in one tree, whatever the number of ranks
  std::size_t bucket_bytes = std::size_t{8} << 20;

  int size() const { return ranks != nullptr ? ranks->size() : 1; }
  int rank() const { return ranks != nullptr ? ranks->rank() : 0; }
  bool reaches_gpu() const { return ranks == nullptr || ranks->reaches_gpu(); }
};

/// The part of a parameter that one rank keeps: `count` elements from `first` on.
struct Shard {
  Index first, count;
  Shape shape;  ///< of the whole parameter
  bool whole() const { return count == numel(shape); }
};

class Cut {
 public:
  static constexpr Index piece = kernels::norm_piece;
  struct Bucket {
    Index begin, length;
  };
  struct Part {
    Index begin, count;  ///< in the unit
    Index kept;          ///< where it begins in what this rank keeps
    Index order;         ///< where it begins among what this rank owns
  };
  /// Elements of one parameter in one part.
  struct Span {
    Index first, count;  ///< in the parameter
    Index at;            ///< in the unit
    Index kept, order;

    /// Those of them that lie in [begin, end) of what this rank keeps.
    Span within(Index begin, Index end) const {
      const Index skipped = std::max(begin - kept, Index{0}), stop = std::min(count, end - kept);
      return {first + skipped, std::max(stop - skipped, Index{0}), at + skipped, kept + skipped, order + skipped};
    }
  };

  /// Makes room for a parameter and returns where it begins.
  Index add(Index numel) { return std::exchange(used_, used_ + (numel + piece - 1) / piece * piece); }
  /// After the last: cuts at buckets, of elements of so many bytes.
  void close(const Sharing& sharing, std::size_t element) {
    const Index N = sharing.size(), r = sharing.rank(), step = N * piece;
    ranks_ = N;
    size_ = (used_ + step - 1) / step * step;
    const Index most = std::max(step, static_cast<Index>(sharing.bucket_bytes / element) / step * step);
    for (Index begin = 0, order = 0; begin < size_; begin += most) {
      const Index length = std::min(most, size_ - begin), share = length / N;
      buckets_.push_back({begin, length});
      own_.push_back({begin + r * share, share, sharing.stage == 0 ? begin + r * share : order, order});
      order += share;
    }
    if (N == 1) own_ = {{0, size_, 0, 0}};
    held_ = sharing.stage == 0 ? std::vector<Part>{{0, size_, 0, 0}} : own_;
    held_size_ = sharing.stage == 0 ? size_ : own_size();
  }

  Index size() const { return size_; }            ///< elements, padding counted
  Index own_size() const { return size_ / ranks_; }
  Index held_size() const { return held_size_; }
  Index pieces() const { return used_ / piece; }  ///< those that are not padding alone
  const std::vector<Bucket>& buckets() const { return buckets_; }
  /// What this rank alone writes to a checkpoint: with several ranks, a part of each bucket.
  const std::vector<Part>& own() const { return own_; }
  /// What it holds states of: with ZeRO 0 all.
  const std::vector<Part>& held() const { return held_; }

  /// Calls f(span) for the elements of a parameter in each of the parts.
  template <class F>
  static void for_spans(const std::vector<Part>& parts, Index begin, Index numel, F&& f) {
    for (const Part& part : parts) {
      const Index from = std::max(begin, part.begin), to = std::min(begin + numel, part.begin + part.count);
      if (from < to) f(Span{from - begin, to - from, from, part.kept + from - part.begin, part.order + from - part.begin});
    }
  }
  /// Puts what rank r has of each piece that it owns where it belongs among all pieces.
  void order_pieces(int r, const double* own, double* all) const {
    for (const Bucket& b : buckets_) {
      const Index share = b.length / ranks_ / piece, begin = b.begin / piece + r * share;
      for (Index i = 0; i < share; ++i)
        if (begin + i < pieces()) all[begin + i] = own[i];
      own += share;
    }
  }

 private:
  Index used_ = 0, size_ = 0, held_size_ = 0, ranks_ = 1;
  std::vector<Bucket> buckets_;
  std::vector<Part> own_, held_;
};

}  // namespace weft::inline WEFT_ABI::optim
