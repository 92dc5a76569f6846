// What kernels over the rows of a view (..., C) share: the pointer of a row, the threads that work on one together, a row kept in
// registers between passes, or on its way to shared memory. All of them add in an order that the shape fixes.
#pragma once

#include "weft/kernels/cuda/elements.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

/// C of a view (..., C); 1 for a scalar.
inline Index row_width(const Shape& shape) { return shape.rank() == 0 ? 1 : shape.back(); }
/// N: the product of all extents but the last; 1 for a scalar and for one axis.
inline Index row_count(const Shape& shape) {
  Index n = 1;
  for (Index a = 0; a + 1 < shape.rank(); ++a) n *= shape[a];
  return n;
}

/// The rows of a view whose last stride is 1, counted in row-major order of the outer axes, whose strides may be any.
template <class E>
class Rows {
 public:
  Rows(E* data, const Shape& shape, const Strides& strides) : data_(data) {
    assert(data == nullptr || shape.rank() == 0 || shape.back() <= 1 || strides.back() == 1);
    for (Index a = shape.rank() - 2; a >= 0; --a) {
      if (shape[a] == 1) continue;
      if (levels_ > 0 && strides[a] == extent_[levels_ - 1] * stride_[levels_ - 1]) {
        extent_[levels_ - 1] *= shape[a];
      } else {
        extent_[levels_] = shape[a];
        stride_[levels_++] = strides[a];
      }
    }
  }

  __device__ E* operator[](Index n) const {
    if (levels_ <= 1) return data_ + n * stride_[0];
    Index offset = 0;
#pragma unroll 1
    for (int l = 0; l + 1 < levels_; ++l) {
      const Index next = divide(n, extent_[l]);
      offset += (n - next * extent_[l]) * stride_[l];
      n = next;
    }
    return data_ + (offset + n * stride_[levels_ - 1]);
  }
  __host__ __device__ explicit operator bool() const { return data_ != nullptr; }
  /// True iff each row can be read in packs of V, or there are none; of a single row the strides do not count.
  template <int V>
  bool aligned(bool single = false) const {
    if (data_ == nullptr) return true;
    bool all = is_aligned<V>(data_);
    for (int l = 0; l < levels_ && !single; ++l) all = all && stride_[l] % V == 0;
    return all;
  }

 private:
  E* data_;
  int levels_ = 0;
  Index extent_[max_rank - 1] = {}, stride_[max_rank - 1] = {};  // innermost first
};

template <class T>
Rows<const T> rows(const In<T, cuda>& x) {
  return {x.data, x.shape, x.strides};
}
template <class T>
Rows<T> rows(const Out<T, cuda>& y) {
  return {y.data, y.shape, y.strides};
}

/// Elementwise work needs no rows where every view is contiguous: then N = 1 and C is the number of elements.
struct Extents {
  Index N, C;
  Extents(const Shape& shape, bool all_contiguous)
      : N(all_contiguous ? 1 : row_count(shape)), C(all_contiguous ? numel(shape) : row_width(shape)) {}
};

/// A weight or bias of C elements, or none.
template <class W>
struct Affine {
  const W* data;
  Index stride;
  bool packs;

  template <int V>
  static Affine of(const In<W, cuda>& w) {
    const Index stride = w.shape.rank() == 0 ? 1 : w.strides.back();
    return {w.data, stride, w.data != nullptr && stride == 1 && is_aligned<V>(w.data)};
  }
  /// Elements c .. c + V - 1; `absent` where there is none.
  template <int V, class S>
  __device__ void read(Index c, S absent, S (&to)[V]) const {
    if (data == nullptr) {
#pragma unroll
      for (int i = 0; i < V; ++i) to[i] = absent;
    } else if (packs) {
      stat_t<W> wide[V];
      load<V>(data + c, wide);
#pragma unroll
      for (int i = 0; i < V; ++i) to[i] = static_cast<S>(wide[i]);
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) to[i] = static_cast<S>(data[(c + i) * stride]);
    }
  }
  /// The same, kept as they are stored; at most 16 bytes.
  template <int V>
  __device__ Words<W, V> words(Index c, float absent) const {
    if (packs) return Words<W, V>::read(data + c);
    Pack<W, V> pack;
#pragma unroll
    for (int i = 0; i < V; ++i) pack.at[i] = data == nullptr ? static_cast<W>(absent) : data[(c + i) * stride];
    return Words<W, V>::of(pack);
  }
};

/// The threads of one row: a warp, or the whole block.
template <bool warp>
struct Team {
  static __device__ int size() { return warp ? 32 : static_cast<int>(blockDim.x); }
  static __device__ int rank() { return warp ? static_cast<int>(threadIdx.x) % 32 : static_cast<int>(threadIdx.x); }
  /// Which team of the block this is, and how many it has.
  static __device__ int number() { return warp ? static_cast<int>(threadIdx.x) / 32 : 0; }
  static __device__ int count() { return warp ? static_cast<int>(blockDim.x) / 32 : 1; }
  static __device__ Index first_row() { return static_cast<Index>(blockIdx.x) * count() + number(); }
  static __device__ Index row_step() { return static_cast<Index>(gridDim.x) * count(); }

  template <class S>
  static __device__ S sum(S value) {
    if constexpr (warp) {
#pragma unroll
      for (int step = 16; step > 0; step >>= 1) value += shuffle_xor(value, step);
      return value;
    } else {
      __shared__ S shared[32];
      return block_sum(value, shared);
    }
  }
  /// The sums of K values, known to all. Blocks leave them in `shared`, lines of a place for each warp or more, zero where there is no
  /// warp, and meet once: the next call needs other lines.
  template <int K, int places, class S>
  static __device__ void sums(S (&values)[K], S (&shared)[K][places]) {
#pragma unroll
    for (int k = 0; k < K; ++k) values[k] = Team<true>::sum(values[k]);
    if constexpr (!warp) {
      if (threadIdx.x % 32 == 0)
#pragma unroll
        for (int k = 0; k < K; ++k) shared[k][threadIdx.x / 32] = values[k];
      __syncthreads();
#pragma unroll
      for (int k = 0; k < K; ++k) {
        values[k] = shared[k][0];
#pragma unroll
        for (int w = 1; w < places; ++w) values[k] += shared[k][w];
      }
    }
  }
  template <class S>
  static __device__ S max(S value) {
    if constexpr (warp) {
#pragma unroll
      for (int step = 16; step > 0; step >>= 1) {
        const S other = shuffle_xor(value, step);
        value = other > value ? other : value;
      }
      return value;
    } else {
      __shared__ S shared[32];
      return block_max(value, shared);
    }
  }
};

/// Calls f(slot, c) for the packs of V columns from c on that this thread has of a row of C. R > 0: it has at most R, and slot, which
/// counts them, is known to the compiler; R = 0: any number, and slot is 0.
template <int V, int R, bool warp, class F>
__device__ inline void for_columns(Index C, F f) {
  if constexpr (R > 0) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const Index c = static_cast<Index>(Team<warp>::rank() + r * Team<warp>::size()) * V;
      if (c < C) f(r, c);
    }
  } else {
    for (Index c = static_cast<Index>(Team<warp>::rank()) * V; c < C; c += static_cast<Index>(Team<warp>::size()) * V) f(0, c);
  }
}

/// A row that is read more than once: in registers, or, where R is 0, in memory each time.
template <class T, int V, int R, bool warp>
class Held {
 public:
  __device__ Held(const T* row, Index C) : row_(row) {
    if constexpr (R > 0) for_columns<V, R, warp>(C, [&](int r, Index c) { packs_[r] = Pack<T, V>::read(row + c); });
  }
  __device__ void read(int r, Index c, stat_t<T> (&to)[V]) const {
    if constexpr (R > 0) {
#pragma unroll
      for (int i = 0; i < V; ++i) to[i] = static_cast<stat_t<T>>(packs_[r].at[i]);
    } else {
      load<V>(row_ + c, to);
    }
  }

 private:
  const T* row_;
  Pack<T, V> packs_[R > 0 ? R : 1];
};

/// The coming rows of some tensors, K at most, on their way to shared memory: many bytes in flight without a register for them. A thread
/// copies just the packs that it will read, hence no barrier. `stages` rows have a place: one is worked on, the others are under way.
template <class T, int V, int R, bool warp, int K, int stages>
class Ahead {
 public:
  /// Packs of a row of C that fall to one of `threads` which share it.
  static __host__ __device__ int packs(Index C, int threads) { return static_cast<int>((C / V + threads - 1) / threads); }
  static std::size_t bytes(Index C, int tensors, int threads) {
    return static_cast<std::size_t>(16 * stages * tensors) * static_cast<std::size_t>(packs(C, warp ? 32 : threads) * threads);
  }

  __device__ Ahead(uint4* shared, Index C, int tensors)
      : mine_(static_cast<unsigned>(__cvta_generic_to_shared(shared + threadIdx.x))),
        slot_(16 * blockDim.x),
        tensor_(slot_ * static_cast<unsigned>(packs(C, Team<warp>::size()))),
        stage_(tensor_ * static_cast<unsigned>(tensors)),
        here_((stages - 1) * stage_),
        tensors_(tensors),
        C_(C) {}
  /// Sends for row n of each tensor, or for nothing. To be called for stages - 1 rows at first, then once after each wait.
  template <class... Of>
  __device__ void fetch(bool there, Index n, const Of&... rows) {
    static_assert(sizeof...(Of) == K);
    int k = 0;
    if (there) ((k < tensors_ ? fetch_row(rows[n], k++) : void()), ...);
    asm volatile("cp.async.commit_group;" ::: "memory");
    sent_ = after(sent_);
  }
  /// Until the next row is there.
  __device__ void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(stages - 2) : "memory");
    here_ = after(here_);
  }
  /// Pack r of tensor k in the row waited for.
  __device__ Words<T, V> words(int k, int r) const {
    uint4 word;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(word.x), "=r"(word.y), "=r"(word.z), "=r"(word.w)
                 : "r"(mine_ + here_ + static_cast<unsigned>(k) * tensor_ + static_cast<unsigned>(r) * slot_));
    return {word};
  }

 private:
  unsigned mine_, slot_, tensor_, stage_, here_, sent_ = 0;  // bytes: an address, the distances of places, the stages in use
  int tensors_;
  Index C_;

  __device__ void fetch_row(const T* row, int k) {
    for_columns<V, R, warp>(C_, [&](int r, Index c) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(mine_ + sent_ + static_cast<unsigned>(k) * tensor_ +
                                                                     static_cast<unsigned>(r) * slot_),
                   "l"(row + c)
                   : "memory");
    });
  }
  __device__ unsigned after(unsigned stage) const { return stage == (stages - 1) * stage_ ? 0 : stage + stage_; }
};

/// How many packs of a row a thread keeps, and how many threads share one at most.
inline constexpr int row_packs = 4, row_threads = 512;
/// The most threads of a block of a kernel over rows.
template <int V, bool warp>
inline constexpr int row_bounds = warp || V == 1 ? 256 : row_threads;

/// Who works on rows of C elements: warps where a row fits in their registers, else blocks, which keep a row too if it can be read
/// in packs and fits.
struct RowPlan {
  bool warp, held;
  unsigned threads;

  /// `V` elements a pack; `packs`: C and all rows go in packs.
  RowPlan(Index C, int V, bool packs, int kept = row_packs) {
    const Index n = C / V;
    warp = packs && n <= 32 * kept;
    held = packs && n <= row_threads * kept;
    threads = warp || !held ? 256 : static_cast<unsigned>((n + 32 * kept - 1) / (32 * kept) * 32);
  }
  unsigned blocks(Index N) const { return blocks_for(N, warp ? threads / 32 : 1); }

  /// Calls f with V, R and warp as types.
  template <int V, int kept = row_packs, class F>
  void choose(F f) const {
    using std::integral_constant;
    if (warp) f(integral_constant<int, V>{}, integral_constant<int, kept>{}, std::true_type{});
    else if (held) f(integral_constant<int, V>{}, integral_constant<int, kept>{}, std::false_type{});
    else f(integral_constant<int, 1>{}, integral_constant<int, 0>{}, std::false_type{});
  }
};

}  // namespace weft::inline WEFT_ABI::kernels::gpu
