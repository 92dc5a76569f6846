// What warpgroups that share a grouped product do without multiplying: which tiles a block has, and how operands come to shared memory.
#pragma once

#include "weft/kernels/cuda/attention_bulk.cuh"
#include "weft/kernels/cuda/grouped_place.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu::warpgroups {

inline constexpr int tile_m = 128, depth = 64, stages = 4, computing = 256, copying = 128, most_experts = 1024;
inline constexpr int part_bytes = 128 * depth * 2;  // 128 rows or columns of an operand over a step
inline constexpr int stage_bytes = 3 * part_bytes;  // one part of a, two of b
inline constexpr int barriers_at = stages * stage_bytes, tables_at = barriers_at + 128;
/// For so many experts.
inline int shared_bytes(Index E) { return tables_at + static_cast<int>(3 * E + 1) * 4; }

/// A tile: the expert's rows begin .. begin + count, and the corner in its product.
struct Tile {
  int expert, begin, count, m0, n0;
};

/// All tiles in shared memory: expert e's are first[e] .. first[e + 1].
class Tiles {
 public:
  __device__ Tiles(int* table, int E) : E_(E), first_(table), begin_(table + E + 1), count_(begin_ + E) {}

  /// By one warp; others wait for it. Offsets that do not rise from 0 to rows are cut to what lies inside: wrong, never out of bounds.
  template <Cut cut>
  __device__ void fill(const std::int64_t* offsets, Index rows, int M, int m_tile, int n_tiles) const {
    const int lane = static_cast<int>(threadIdx.x % 32);
    int all = 0;
    for (int e0 = 0; e0 < E_; e0 += 32) {
      const int e = e0 + lane;
      int tiles = 0;
      if (e < E_) {
        const Index begin = min(max(static_cast<Index>(offsets[e]), Index{0}), rows);
        const Index end = min(max(static_cast<Index>(offsets[e + 1]), begin), rows);
        begin_[e] = static_cast<int>(begin);
        count_[e] = static_cast<int>(end - begin);
        tiles = ((cut == Cut::rows ? count_[e] : M) + m_tile - 1) / m_tile * n_tiles;
      }
      int upto = tiles;
      for (int step = 1; step < 32; step *= 2) {
        const int before = __shfl_up_sync(0xffffffffu, upto, step);
        if (lane >= step) upto += before;
      }
      if (e < E_) first_[e] = all + upto - tiles;
      all += __shfl_sync(0xffffffffu, upto, 31);
    }
    if (lane == 0) first_[E_] = all;
  }
  __device__ int all() const { return first_[E_]; }
  template <Cut cut>
  __device__ Tile at(int i, int M, int m_tile, int n_tiles, int n_tile) const {
    int low = 0, high = E_ - 1;  // the first expert whose tiles end after i
    while (low < high) {
      const int middle = (low + high) / 2;
      if (first_[middle + 1] > i) high = middle;
      else low = middle + 1;
    }
    Tile tile{low, begin_[low], count_[low], 0, 0};
    const int m_tiles = ((cut == Cut::rows ? tile.count : M) + m_tile - 1) / m_tile;
    tile_corner(i - first_[low], m_tiles, n_tiles, m_tile, n_tile, tile.m0, tile.n0);
    return tile;
  }

 private:
  int E_;
  int *first_, *begin_, *count_;
};

/// A thread's eight 16-byte pieces of a part of an operand, step after step along K, by 128 threads, in the layout of wgmma's tiles. Along K,
/// a line is a row (column) o of the operand and a step has 64 of its elements, one panel; across it, a line is a k and the part's 128 o's are
/// two panels of 64 lines. What lies outside becomes zero. listed: lines come through a list.
template <bool along_k, bool listed>
class PartCopy {
 public:
  /// data: the operand's element (0, 0); o0: the part's first of `extent`; ld: from line to line; rows: the list.
  __device__ void start(const bf16* data, int ld, const int* rows, int o0, int extent, int K) {
    ld_ = ld, left_ = K;
    const int line = thread() / per_line, piece = thread() % per_line;
    if constexpr (along_k) {
      from_ = data + piece * 8;
      line_ = o0 + line;
      inside_ = min(max((extent - line_ + apart - 1) / apart, 0), 8);  // of the thread's lines
      if constexpr (listed) {
#pragma unroll
        for (int i = 0; i < 8; ++i) index_[i] = i < inside_ ? rows[line_ + i * apart] : 0;
      }
    } else {
      from_ = data + o0 + piece * 8;
      line_ = line;
      inside_ = bytes(extent - o0 - piece * 8);
      if constexpr (listed) rows_ = rows + line, look_up();
    }
  }
  __device__ void copy(unsigned part) {
    const int line = thread() / per_line, piece = thread() % per_line;
    const unsigned to = part + static_cast<unsigned>(piece / 8 * depth * 128 + line * 128 + ((piece % 8 ^ line % 8) << 4));
    const int along = along_k ? bytes(left_ - piece * 8) : 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int row = listed ? index_[i] : line_ + i * apart;
      const int inside = along_k ? (i < inside_ ? along : 0) : (line + i * apart < left_ ? inside_ : 0);
      const bf16* const from = from_ + static_cast<Index>(row) * ld_;
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to + i * apart * 128), "l"(from), "r"(inside) : "memory");
    }
    left_ -= depth;
    if constexpr (along_k) {
      from_ += depth;
    } else if constexpr (listed) {
      rows_ += depth;
      look_up();  // a step ahead
    } else {
      line_ += depth;
    }
  }

 private:
  static constexpr int per_line = along_k ? 8 : 16, apart = copying / per_line;  // a thread's lines are a multiple of 8 apart
  __device__ static int thread() { return static_cast<int>(threadIdx.x) % copying; }
  __device__ static int bytes(int elements) { return min(max(elements, 0), 8) * 2; }
  __device__ void look_up() {
#pragma unroll
    for (int i = 0; i < 8; ++i) index_[i] = thread() / per_line + i * apart < left_ ? rows_[i * apart] : 0;
  }

  const bf16* from_;
  int ld_, left_, line_, inside_;
  int index_[8];     // where listed
  const int* rows_;  // where listed across K
};

}  // namespace weft::inline WEFT_ABI::kernels::gpu::warpgroups
