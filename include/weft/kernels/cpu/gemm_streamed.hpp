// Products of split floats of more than a few rows. One operand is kept: some of its rows (columns of b), split, stay in the second cache.
// The other one is streamed past them, 32 of its rows at a time: these are fetched and split in between the instructions that multiply those
// before, which leave most of a core idle. So memory is read as it lies, and little is waited for. Processors with tile registers have 2 MiB of
// second cache for each core; what is kept, streamed and summed fills half of it, more than two thirds were slower.
#pragma once

#include <algorithm>
#include <numeric>

#include "weft/core/scratch.hpp"
#include "weft/kernels/cpu/gemm_pack_split.hpp"

namespace weft::inline WEFT_ABI::kernels::gemm {

#if defined(__x86_64__)

/// a by its rows or b by its columns, lines of K here: element k of line i at from[i * line + k * step].
struct Operand {
  const float* from;
  Index line, step;
};

/// Splits lines of an operand, two vectors at a call. Each 16 of them become one after the other tiles for all steps, each in its three parts: rows
/// of tiles or, not `as_rows`, columns. The source is read as it lies in memory, so that the processor fetches ahead of it.
class SplitAhead {
 public:
  /// `count` lines of k elements, filled up with zeros to whole tiles; 16 lines take depth steps.
  void begin(const Operand& of, Index count, Index k, Index depth, bool as_rows, SplitPair* to) {
    of_ = of, count_ = count, k_ = k, tiles_ = depth * 768, rows_ = as_rows, to_all_ = words(to), line_ = at_ = left_ = rounds_ = 0;
  }
  WEFT_TILES WEFT_INLINE void advance(Index calls) {
    for (; calls > 0; --calls) {
      if (left_ == 0) {
        if (rounds_ > 0) --rounds_, left_ = length_, low_ += jump_, to_ += to_jump_;
        else if (!go_on()) return;
      }
      __builtin_prefetch(low_ + ahead_, 0, 2);
      __builtin_prefetch(low_ + second_ + ahead_, 0, 2);
      for (int part = 0; part < 3; ++part) __builtin_prefetch(to_ + to_step_ + 256 * part, 1);
      split<3>(low_, low_ + second_, to_, 256);
      low_ += step_, to_ += to_step_, --left_;
    }
  }
  WEFT_TILES void finish() {
    while (line_ < count_ || left_ > 0 || rounds_ > 0) advance(32);
  }

 private:
  /// Finds what comes next; false: nothing.
  bool go_on() {
    if (line_ >= count_) return false;
    const Index lines = count_ - line_, whole = (k_ - at_) / 32;
    low_ = of_.from + line_ * of_.line + at_ * of_.step;
    to_ = to_all_ + line_ / 16 * tiles_ + at_ / 32 * 768;
    if (rows_ && of_.step == 1 && lines >= 16 && whole > 0) {  // 16 lines, one after the other
      length_ = whole, step_ = 32, second_ = 16, to_step_ = 768, jump_ = of_.line - 32 * whole, to_jump_ = 16 - 768 * whole, rounds_ = 15;
      ahead_ = pieces(1536, k_) * of_.line /* whole lines, 6 KiB or more */, at_ += 32 * whole;
      if (at_ >= k_) at_ = 0, line_ += 16;
    } else if (!rows_ && of_.line == 1 && lines >= 16 && whole > 0) {  // a step of all whole tiles, row by row
      length_ = lines / 16, step_ = 16, second_ = 16 * of_.step, to_step_ = tiles_, jump_ = of_.step - 16 * length_, to_jump_ = 16 - tiles_ * length_, rounds_ = 15;
      ahead_ = 32 * of_.step, line_ += 16 * length_;
      if (line_ >= count_) next_step();
    } else {
      const Index valid = std::min<Index>(32, k_ - at_), some = std::min<Index>(16, lines);
      if (rows_) low_ = straight_(low_, of_.line, of_.step, some, valid, 16, 32, 0), step_ = 32, second_ = 16;
      else low_ = straight_(low_, of_.step, of_.line, valid, some, 32, 16, 0), step_ = 16, second_ = 256;
      length_ = 16, to_step_ = 16, rounds_ = 0, ahead_ = 0;
      if (rows_) {
        if ((at_ += 32) >= k_) at_ = 0, line_ += 16;
      } else if ((line_ += 16) >= count_) next_step();
    }
    left_ = length_;
    return true;
  }
  void next_step() {
    if ((at_ += 32) < k_) line_ = 0;
  }

  Operand of_{};
  Index count_ = 0, k_ = 0, tiles_ = 0, line_ = 0, at_ = 0;  // what is next
  bool rows_ = true;
  Pair* to_all_ = nullptr;
  // What is at hand: `left_` calls, then `rounds_` times `length_` more.
  const float* low_ = nullptr;
  Pair* to_ = nullptr;
  Index left_ = 0, rounds_ = 0, length_ = 0, step_ = 0, to_step_ = 0, jump_ = 0, to_jump_ = 0, second_ = 0, ahead_ = 0;
  Straightened straight_;
};

/// Lines of an output that is written soon: so many of 128 bytes are fetched each step.
struct FetchAhead {
  const std::byte* at;
  Index row, count;
};

/// c (16 High, 16 Wide), or what it holds, += a b of so many steps, where 16 lines of each lie `tiles` words after the 16 before. In between
/// `next` and `beside` make so many calls a step.
template <int High, int Wide, bool turned>
WEFT_TILES void multiply_beside(Index steps, const SplitPair* a, const SplitPair* b, Index tiles, float* c, bool resume, SplitAhead& next, Index next_calls,
                                SplitAhead& beside, Index beside_calls, FetchAhead fetch) {
  constexpr Index line = 64, c_row = 16 * Wide;
  use_tile_shapes(tile_shapes<16, 16>);
  if (resume) load_sums<High, Wide>(c, c_row);
  else zero_sums<High, Wide>();
  const Pair *x = words(a), *y = words(b);
  for (; steps > 0; --steps, x += 768, y += 768) {
    for (Index l = fetch.count; l > 0; --l, fetch.at += fetch.row) __builtin_prefetch(fetch.at, 1), __builtin_prefetch(fetch.at + 64, 1);
    Index group = 0;
#define WEFT_LOAD_A(part)                  \
  WEFT_TILE_LOAD(4, x + part * 256, line); \
  if constexpr (High == 2) WEFT_TILE_LOAD(5, x + tiles + part * 256, line);
#define WEFT_LOAD_B(part)                  \
  WEFT_TILE_LOAD(6, y + part * 256, line); \
  if constexpr (Wide == 2) WEFT_TILE_LOAD(7, y + tiles + part * 256, line);
#define WEFT_MULTIPLY                                                        \
  multiply_sums<High, Wide>();                                               \
  next.advance(next_calls * (group + 1) / 6 - next_calls * group / 6);       \
  beside.advance(beside_calls * (group + 1) / 6 - beside_calls * group / 6); \
  ++group;
    if constexpr (turned) {
      WEFT_TILE_PARTS(WEFT_LOAD_B, WEFT_LOAD_A, WEFT_MULTIPLY)
    } else {
      WEFT_TILE_PARTS(WEFT_LOAD_A, WEFT_LOAD_B, WEFT_MULTIPLY)
    }
#undef WEFT_LOAD_A
#undef WEFT_LOAD_B
#undef WEFT_MULTIPLY
  }
  store_sums<High, Wide>(c, c_row);
}
using MultiplyBeside = decltype(&multiply_beside<1, 1, false>);
inline MultiplyBeside multiply_beside_of(Index rows, Index columns, bool turned) {
  static constexpr MultiplyBeside kernels[2][2][2] = {
      {{multiply_beside<1, 1, false>, multiply_beside<1, 1, true>}, {multiply_beside<1, 2, false>, multiply_beside<1, 2, true>}},
      {{multiply_beside<2, 1, false>, multiply_beside<2, 1, true>}, {multiply_beside<2, 2, false>, multiply_beside<2, 2, true>}}};
  return kernels[rows > 16][columns > 16][turned];
}

/// One product in tasks. Bits depend on neither their extents nor their number.
class Streamed {
 public:
  /// True iff a product of so many rows and so deep is for this.
  static bool takes(Index M, Index K) { return M > few_rows_most<SplitPair> && K > 0; }

  /// This product in so many tasks or a multiple of them, if they can be as large as they should be.
  template <class TC>
  Streamed(const Problem<float, float, TC>& p, Index wanted) : b_streams_(b_should_stream(p)), as_rows_((b_streams_ ? p.b_k : p.a_k) == 1), turned_(b_streams_ == as_rows_) {
    const Index kept = b_streams_ ? p.M : p.N, lines = b_streams_ ? p.N : p.M;
    steps_ = pieces(p.K, 32), depth_ = pieces(steps_, pieces(steps_, as_rows_ ? 24 : 8));
    // 192 bytes for each line and step that is kept: 576 KiB, or 384 beside sums of 384 lines.
    kept_ = round_up(pieces(kept, pieces(kept, (as_rows_ ? 3072 : 2048) / depth_)), 32);
    const Index blocks = pieces(kept, kept_), even = wanted / std::gcd(wanted, blocks), shares = std::min(pieces(lines, blocks < wanted ? 64 : 256), even);
    lines_ = round_up(pieces(lines, depth_ < steps_ ? round_up(pieces(lines, 384), shares) : shares), 32);
    m_ = b_streams_ ? kept_ : lines_, n_ = b_streams_ ? lines_ : kept_, m_tasks_ = pieces(p.M, m_), n_tasks_ = pieces(p.N, n_);
  }
  Index tasks() const { return m_tasks_ * n_tasks_; }

  /// Its i-th task: those that keep the same lines one after the other.
  template <class TC>
  void multiply(const Problem<float, float, TC>& p, Index i) const {
    const Index m0 = (b_streams_ ? i / n_tasks_ : i % m_tasks_) * m_, n0 = (b_streams_ ? i % n_tasks_ : i / m_tasks_) * n_;
    multiply_part(p, m0, n0, std::min(m_, p.M - m0), std::min(n_, p.N - n0));
  }

 private:
  /// The longer operand streams, so that what is kept was split for many lines. Where both lie along M and N, as for a gradient of weights, the
  /// shorter one does, if it is no less than 256 long: it stays near, and the longer one is read once. Of equal ones a is kept as it lies best.
  template <class TC>
  static bool b_should_stream(const Problem<float, float, TC>& p) {
    if (p.a_k != 1 && p.b_k != 1 && std::min(p.M, p.N) >= 256) return p.N <= p.M;
    return p.N > p.M || (p.N == p.M && p.a_m != 1);
  }
  /// The part of c at (m0, n0), of (m, n).
  template <class TC>
  void multiply_part(const Problem<float, float, TC>& p, Index m0, Index n0, Index m, Index n) const {
    const TileShapesInUse shapes;
    const Operand a{p.a + m0 * p.a_m, p.a_m, p.a_k}, b{p.b + n0 * p.b_n, p.b_n, p.b_k};
    const Operand kept = b_streams_ ? a : b, streamed = b_streams_ ? b : a;
    const Index kept_lines = b_streams_ ? m : n, lines = b_streams_ ? n : m, blocks = pieces(kept_lines, 32), strips = pieces(lines, 32);
    const Index depths = pieces(steps_, depth_), part = depth_ * 512;
    const Scratch<SplitPair> kept_parts(blocks * part), strip_parts(2 * part);
    const Scratch<float> sums(depths > 1 ? blocks * strips * 1024 : 0);
    alignas(64) float own[1024];
    SplitAhead next, beside;
    const auto begin = [&](SplitAhead& job, const Operand& of, Index first, Index count, Index piece, bool as_rows, SplitPair* to) {
      const Index k = 32 * depth_ * piece;
      job.begin({of.from + first * of.line + k * of.step, of.line, of.step}, count, std::min(32 * depth_, p.K - k), depth_, as_rows, to);
    };
    const auto begin_strip = [&](Index at) {
      const Index first = at % strips * 32;
      begin(next, streamed, first, std::min<Index>(32, lines - first), at / strips, as_rows_, strip_parts.data() + at % 2 * part);
    };
    const auto begin_block = [&](Index i, Index piece) {
      begin(beside, kept, 32 * i, std::min<Index>(32, kept_lines - 32 * i), piece, !as_rows_, kept_parts.data() + i * part);
    };
    begin_strip(0);
    next.finish();
    for (Index at = 0; at < depths * strips; ++at) {
      const Index piece = at / strips, strip = at % strips, k_steps = std::min(depth_, steps_ - piece * depth_);
      const SplitPair* const of_strip = strip_parts.data() + at % 2 * part;
      const bool last = piece + 1 == depths;
      if (strip == 0) begin_block(0, piece), beside.finish();
      if (at + 1 < depths * strips) begin_strip(at + 1);
      for (Index i = 0; i < blocks; ++i) {
        const bool splits = strip == 0 && i + 1 < blocks;  // the kept operand's next block
        if (splits) begin_block(i + 1, piece);
        const Index m1 = 32 * (b_streams_ ? i : strip), n1 = 32 * (b_streams_ ? strip : i);
        const Index rows = std::min<Index>(32, m - m1), columns = std::min<Index>(32, n - n1);
        const SplitPair* const of_block = kept_parts.data() + i * part;
        float* const c = depths > 1 ? sums.data() + (strip * blocks + i) * 1024 : own;
        TC* const to = p.c + (m0 + m1) * p.c_m + n0 + n1;
        multiply_beside_of(turned_ ? columns : rows, turned_ ? rows : columns, turned_)(
            k_steps, as_rows_ ? of_strip : of_block, as_rows_ ? of_block : of_strip, depth_ * 768, c, piece > 0, next, pieces(32, blocks), beside,
            splits ? 32 : 0, {reinterpret_cast<const std::byte*>(to), p.c_m * static_cast<Index>(sizeof(TC)), last ? pieces(rows, k_steps) : 0});
        if (splits) beside.finish();
        if (last) store(c, rows, columns, to, p.c_m, p.bias ? p.bias + n0 + n1 : nullptr, p.beta);
      }
      next.finish();
    }
  }
  /// Sums as they were multiplied go to c.
  template <class TC>
  void store(const float* sums, Index rows, Index columns, TC* c, Index c_m, const float* bias, int beta) const {
    const Index row = (turned_ ? rows : columns) > 16 ? 32 : 16;
    if (!turned_) return finish(c, c_m, sums, row, rows, columns, bias, beta);
    alignas(64) float straight[1024];
    simd([to = straight, sums, row, rows, columns]() WEFT_INLINE { copy_block(to, 32, sums, 1, row, rows, columns); });
    finish(c, c_m, straight, 32, rows, columns, bias, beta);
  }

  bool b_streams_;      ///< else a does
  bool as_rows_;        ///< the streamed operand lies as rows of tiles, the kept one as columns; else the other way round
  bool turned_;         ///< b lies as rows of tiles, so that sums are turned
  Index steps_, depth_;  ///< along K, of these at a time
  Index kept_, lines_;   ///< of a task, of the kept operand and of the streamed one
  Index m_, n_, m_tasks_, n_tasks_;
};

#endif

}  // namespace weft::inline WEFT_ABI::kernels::gemm
