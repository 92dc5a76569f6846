// What kernels over single elements share: accesses of up to 16 bytes and conversions. A pack of V
// neighbours is read and written as a whole, so its address must be a multiple of its size (16 bytes at most).
#pragma once

#include <cassert>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "weft/kernels/cuda/launch.cuh"
#include "weft/kernels/math.hpp"

namespace weft::inline WEFT_ABI::kernels::gpu {

/// The words that are read and written in one access.
template <int bytes>
struct WordOf;
template <>
struct WordOf<1> {
  using type = std::uint8_t;
};
template <>
struct WordOf<2> {
  using type = std::uint16_t;
};
template <>
struct WordOf<4> {
  using type = std::uint32_t;
};
template <>
struct WordOf<8> {
  using type = uint2;
};
template <>
struct WordOf<16> {
  using type = uint4;
};

/// V neighbours, at most 16 bytes.
template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
  T at[V];
  using Word = typename WordOf<static_cast<int>(sizeof(T)) * V>::type;

  __device__ static Pack read(const void* from) {
    const Word word = *static_cast<const Word*>(from);
    Pack pack;
    std::memcpy(&pack, &word, sizeof(Word));
    return pack;
  }
  __device__ void write(void* to) const {
    Word word;
    std::memcpy(&word, this, sizeof(Word));
#if defined(__CUDA_ARCH__)
    if constexpr (sizeof(Word) == 16) {  // written as an assignment, the compiler may store four words apart
      asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(word.x), "r"(word.y), "r"(word.z),
                   "r"(word.w)
                   : "memory");
      return;
    }
#endif
    *static_cast<Word*>(to) = word;
  }
};

/// Neighbours of T that make 16 bytes.
template <class T>
inline constexpr int pack_of = 16 / static_cast<int>(sizeof(T));

/// Elements of T in one access where V are wanted.
template <class T, int V>
inline constexpr int access_of = V < pack_of<T> ? V : pack_of<T>;

/// True iff V elements at `data` can be read as packs.
template <int V, class T>
__host__ __device__ inline bool is_aligned(const T* data) {
  return reinterpret_cast<std::uintptr_t>(data) % (sizeof(T) * access_of<std::remove_const_t<T>, V>) == 0;
}

/// Multiprocessors of a large GPU: a constant, since the order of sums must not follow from the device at hand.
inline constexpr Index multiprocessors = 132;

__device__ inline Index thread_index() { return static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline Index thread_count() { return static_cast<Index>(gridDim.x) * blockDim.x; }

/// a / b for a >= 0 and b > 0, in 32 bits where both fit: several times faster.
__device__ inline Index divide(Index a, Index b) {
  if ((static_cast<std::uint64_t>(a | b) >> 32) != 0) return a / b;
  return static_cast<Index>(static_cast<std::uint32_t>(a) / static_cast<std::uint32_t>(b));
}

/// What instructions call a type of 16 bits.
template <class T>
struct NameInPtx;
template <>
struct NameInPtx<bf16> {
  static constexpr char text[] = "bf16";
};
template <>
struct NameInPtx<f16> {
  static constexpr char text[] = "f16";
};

/// Two floats as two of a type of 16 bits, the first in the lower half.
template <class T>
__device__ inline std::uint32_t narrow_pair(float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  std::uint32_t both;
  asm("cvt.rn.%3x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first), "C"(NameInPtx<T>::text));
  return both;
#else
  return static_cast<std::uint32_t>(T(first).bits) | static_cast<std::uint32_t>(T(second).bits) << 16;
#endif
}

/// A pack that stays packed until it is used, however far that is: of a Pack's elements the compiler may give each its own register.
template <class T, int V>
struct Words {
  using Word = typename Pack<T, V>::Word;
  Word word;

  __device__ static Words read(const void* from) { return {*static_cast<const Word*>(from)}; }
  __device__ static Words of(const Pack<T, V>& pack) {
    Words words;
    std::memcpy(&words, &pack, sizeof(pack));
    return words;
  }
  __device__ void widen(stat_t<T> (&to)[V]) const {
    if constexpr (std::is_same_v<T, bf16> && V > 1) {
      std::uint32_t pairs[V / 2];
      std::memcpy(pairs, &word, sizeof(word));
#pragma unroll
      for (int i = 0; i < V; i += 2) {
        to[i] = __uint_as_float(pairs[i / 2] << 16);
        to[i + 1] = __uint_as_float(pairs[i / 2] & 0xffff0000u);
      }
    } else {
      T at[V];
      std::memcpy(at, &word, sizeof(word));
#pragma unroll
      for (int i = 0; i < V; ++i) to[i] = static_cast<stat_t<T>>(at[i]);
    }
  }
  /// The same, of which the compiler thinks that it is new: else it keeps what a pack widens to for the length of a loop.
  __device__ Words anew() const {
    Words here = *this;
    if constexpr (sizeof(Word) == 16) asm volatile("" : "+r"(here.word.x), "+r"(here.word.y), "+r"(here.word.z), "+r"(here.word.w));
    if constexpr (sizeof(Word) == 8) asm volatile("" : "+r"(here.word.x), "+r"(here.word.y));
    return here;
  }
};

template <int V, class T>
__device__ inline void load(const T* from, stat_t<T> (&to)[V]) {
  constexpr int part = access_of<T, V>;
#pragma unroll
  for (int i = 0; i < V; i += part) {
    const auto words = Words<T, part>::read(from + i);
    stat_t<T> wide[part];
    words.widen(wide);
#pragma unroll
    for (int j = 0; j < part; ++j) to[i + j] = wide[j];
  }
}

/// Stores or adds, as beta says, rounding once.
template <int V, class T>
__device__ inline void store(T* to, const stat_t<T> (&value)[V], int beta) {
  constexpr int part = access_of<T, V>;
  stat_t<T> sum[V];
  if (beta) {
    load<V>(to, sum);
#pragma unroll
    for (int i = 0; i < V; ++i) sum[i] = static_cast<stat_t<T>>(sum[i] + value[i]);
  } else {
#pragma unroll
    for (int i = 0; i < V; ++i) sum[i] = value[i];
  }
#pragma unroll
  for (int i = 0; i < V; i += part) {
    if constexpr (Narrow<T> && part > 1) {
      Pack<std::uint32_t, part / 2> pack;
#pragma unroll
      for (int j = 0; j < part; j += 2) pack.at[j / 2] = narrow_pair<T>(sum[i + j], sum[i + j + 1]);
      pack.write(to + i);
    } else {
      Pack<T, part> pack;
#pragma unroll
      for (int j = 0; j < part; ++j) pack.at[j] = static_cast<T>(sum[i + j]);
      pack.write(to + i);
    }
  }
}

/// Stands in place of an element whose index lies outside: NaN, or 0 where there is none.
template <class T>
__device__ inline stat_t<T> absent_element() {
  if constexpr (std::is_floating_point_v<stat_t<T>>) return static_cast<stat_t<T>>(__builtin_nanf(""));
  else return stat_t<T>(0);
}

template <class S>
__device__ inline S shuffle_xor(S value, int step) {
  if constexpr (sizeof(S) < 4) return static_cast<S>(__shfl_xor_sync(0xffffffffu, static_cast<int>(value), step));
  else if constexpr (std::is_same_v<S, Index>) return static_cast<Index>(__shfl_xor_sync(0xffffffffu, static_cast<long long>(value), step));
  else return __shfl_xor_sync(0xffffffffu, value, step);
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu
