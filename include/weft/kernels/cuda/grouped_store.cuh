// How the warpgroups of grouped_wgmma.cuh write their sums: whole packs where rows allow it, and both halves of a gated product.
#pragma once

#include "weft/kernels/cuda/elements.cuh"
#include "weft/kernels/cuda/hardware_math.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

namespace warpgroups {

/// one: c = or += a b. two_terms: c = a b + a' b', summed before it is rounded. gated: c = a b, c' = a b', hidden = scale silu(c) c'.
enum class Form { one, two_terms, gated };

/// The primed operands, which have the strides of the others, and a scale for each row of all experts.
struct Beside {
  const bf16* a = nullptr;
  const bf16* b = nullptr;
  bf16* c = nullptr;
  bf16* hidden = nullptr;
  const float* scales = nullptr;
};

/// How rows of c may be written: element by element, in aligned pairs, or eight at a time.
enum class Lines { any, pairs, packs };

/// A word of each of four lanes' four chunks of 8 columns becomes a chunk a lane: lane q of four has words p[i], the q-th of chunk i, and gets
/// chunk q.
__device__ inline void turn_words(unsigned (&p)[4], int q) {
  const bool odd = q & 1, high = q & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const unsigned other = __shfl_xor_sync(0xffffffffu, odd ? p[i] : p[i + 1], 1);
    if (odd) p[i] = other;
    else p[i + 1] = other;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const unsigned other = __shfl_xor_sync(0xffffffffu, high ? p[i] : p[i + 2], 2);
    if (high) p[i] = other;
    else p[i + 2] = other;
  }
}

/// Four chunks of 8 columns of a row, from the words that this lane has of them, to columns n .. n + 31, of which `left` are there. All lanes
/// of a warp call it; those without a row have no `row`.
__device__ inline void put_words(bf16* row, unsigned (&p)[4], int n, int left, Lines lines) {
  const int q = static_cast<int>(threadIdx.x % 4);
  if (lines == Lines::packs && left >= 32) {
    turn_words(p, q);
    if (row != nullptr) *reinterpret_cast<uint4*>(row + n + 8 * q) = make_uint4(p[0], p[1], p[2], p[3]);
    return;
  }
  if (row == nullptr) return;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int at = 8 * i + 2 * q;
    if (at + 1 < left && lines != Lines::any) {
      *reinterpret_cast<unsigned*>(row + n + at) = p[i];
    } else {
      if (at < left) row[n + at].bits = static_cast<std::uint16_t>(p[i] & 0xffff);
      if (at + 1 < left) row[n + at + 1].bits = static_cast<std::uint16_t>(p[i] >> 16);
    }
  }
}

/// The same for two chunks of floats, which may be added to what is there.
__device__ inline void put_floats(float* row, float (&p)[2][2], int n, int left, Lines lines, int beta) {
  const int q = static_cast<int>(threadIdx.x % 4);
  if (lines == Lines::packs && left >= 16) {  // even lanes get four columns of the first chunk, odd ones of the second
    const bool odd = q & 1;
    const float other[2] = {__shfl_xor_sync(0xffffffffu, odd ? p[0][0] : p[1][0], 1), __shfl_xor_sync(0xffffffffu, odd ? p[0][1] : p[1][1], 1)};
    if (row == nullptr) return;
    float4 sum = odd ? make_float4(other[0], other[1], p[1][0], p[1][1]) : make_float4(p[0][0], p[0][1], other[0], other[1]);
    auto* const to = reinterpret_cast<float4*>(row + n + (odd ? 8 : 0) + q / 2 * 4);
    if (beta) {
      const float4 before = *to;
      sum.x += before.x, sum.y += before.y, sum.z += before.z, sum.w += before.w;
    }
    *to = sum;
    return;
  }
  if (row == nullptr) return;
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int e = 0; e < 2; ++e)
      if (const int at = 8 * i + 2 * q + e; at < left) put(row[n + at], p[i][e], beta);
}

/// Sums of 64 x 256, of a warpgroup's 64 rows; m: this lane's first row, its second is 8 further. Sums of bf16 are not added to any.
template <class TC>
__device__ inline void put_sums(const float (&sums)[32][4], TC* c, Index c_m, int m, int M, int n0, int N, Lines lines, int beta) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    TC* const row = m + 8 * half < M ? c + (m + 8 * half) * c_m : nullptr;
    if constexpr (std::is_same_v<TC, bf16>) {
#pragma unroll
      for (int j = 0; j < 32; j += 4) {
        unsigned p[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) p[i] = narrow_pair<bf16>(sums[j + i][2 * half], sums[j + i][2 * half + 1]);
        put_words(row, p, n0 + 8 * j, N - n0 - 8 * j, lines);
      }
    } else {
#pragma unroll
      for (int j = 0; j < 32; j += 2) {
        float p[2][2] = {{sums[j][2 * half], sums[j][2 * half + 1]}, {sums[j + 1][2 * half], sums[j + 1][2 * half + 1]}};
        put_floats(row, p, n0 + 8 * j, N - n0 - 8 * j, lines, beta);
      }
    }
  }
}

/// The first 16 chunks of sums are the gate's, the others what it gates. hidden is made of both as they were rounded.
__device__ inline void put_gated(const float (&sums)[32][4], bf16* gate, const Beside& beside, Index begin, Index c_m, int m, int M, int n0, int N,
                                 Lines lines) {
  const auto low = [](unsigned word) { return __uint_as_float(word << 16); };
  const auto high = [](unsigned word) { return __uint_as_float(word & 0xffff0000u); };
  const auto gated = [](float scale, float g, float u) { return scale * (g * sigmoid_for<bf16>(g) * u); };
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const bool there = m + 8 * half < M;
    const Index row = begin + m + 8 * half, at = row * c_m;
    const float scale = there ? beside.scales[row] : 0;
#pragma unroll
    for (int j = 0; j < 16; j += 4) {
      unsigned g[4], u[4], h[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        g[i] = narrow_pair<bf16>(sums[j + i][2 * half], sums[j + i][2 * half + 1]);
        u[i] = narrow_pair<bf16>(sums[16 + j + i][2 * half], sums[16 + j + i][2 * half + 1]);
        h[i] = narrow_pair<bf16>(gated(scale, low(g[i]), low(u[i])), gated(scale, high(g[i]), high(u[i])));
      }
      const int n = n0 + 8 * j, left = N - n;
      put_words(there ? gate + at : nullptr, g, n, left, lines);
      put_words(there ? beside.c + at : nullptr, u, n, left, lines);
      put_words(there ? beside.hidden + at : nullptr, h, n, left, lines);
    }
  }
}

}  // namespace warpgroups

}  // namespace weft::inline WEFT_ABI::kernels::gpu
