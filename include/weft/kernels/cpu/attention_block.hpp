// Attention's blocks on their way between tensors and the layout of attention_product.hpp: packed, transposed, scaled.
#pragma once

#include <utility>

#include "weft/core/view.hpp"
#include "weft/kernels/cpu/attention_product.hpp"

namespace weft::inline WEFT_ABI::kernels::attention {

/// Rows of a tensor in T that a block works on: row r starts at data + at[r].
template <class T>
struct Rows {
  T* data;
  const Index* at;
  Index count;
  Index width;
};

/// Transposes L rows of L in registers: log2(L) perfect shuffles.
template <class V, std::size_t... i>
WEFT_INLINE inline void transpose(V* rows, std::index_sequence<i...>) {
  constexpr int L = sizeof...(i);
#pragma GCC unroll 4
  for (int step = 1; step < L; step *= 2) {
    V mixed[L];
#pragma GCC unroll 16
    for (int r = 0; r < L / 2; ++r) {
      mixed[2 * r] = __builtin_shufflevector(rows[r], rows[r + L / 2], (i / 2 + i % 2 * L)...);
      mixed[2 * r + 1] = __builtin_shufflevector(rows[r], rows[r + L / 2], (L / 2 + i / 2 + i % 2 * L)...);
    }
#pragma GCC unroll 16
    for (int r = 0; r < L; ++r) rows[r] = mixed[r];
  }
}

/// A register full of elements from x.
template <Isa I, class T>
WEFT_INLINE inline void load(const T* x, typename Register<stat_t<T>, I>::Vector& v) {
  using R = Register<stat_t<T>, I>;
  if constexpr (std::is_same_v<T, bf16>) {
    const auto halves = *reinterpret_cast<const typename R::Halves*>(x);
    const typename R::Bits bits = __builtin_convertvector(halves, typename R::Bits) << 16;
    v = reinterpret_cast<typename R::Vector>(bits);  // the same bits
  } else if constexpr (std::is_same_v<T, f16>) {
    for (Index i = 0; i < R::lanes; ++i) v[i] = static_cast<float>(x[i]);
  } else {
    v = *reinterpret_cast<const typename R::Loose*>(x);
  }
}

/// columns[d * block + r] = scale * rows[r][d]; columns from count up to a multiple of 16 are zero. Fetches what lies `ahead` of the rows.
template <class T>
void pack_columns(const Rows<const T>& from, stat_t<T> scale, stat_t<T>* columns, Index ahead = 0) {
  using S = stat_t<T>;
  at_isa([=](auto chosen) WEFT_INLINE {
    constexpr Isa I = decltype(chosen)::value;
    using V = typename Register<S, I>::Vector;
    using Loose = typename Register<S, I>::Loose;
    constexpr Index L = Register<S, I>::lanes;
    for (Index r0 = 0; r0 < (from.count + 15) / 16 * 16; r0 += L)
      for (Index d0 = 0; d0 < from.width; d0 += L) {
        V rows[L];
        const Index width = from.width - d0;
#pragma GCC unroll 16
        for (Index r = 0; r < L; ++r) {
          rows[r] = V{};
          if (r0 + r >= from.count) continue;
          const T* x = from.data + from.at[r0 + r] + d0;
          __builtin_prefetch(x + ahead, 0, 2);
          if (width >= L) {
            load<I>(x, rows[r]);
          } else {
            S wide[L] = {};
            for (Index l = 0; l < width; ++l) wide[l] = static_cast<S>(x[l]);
            rows[r] = *reinterpret_cast<const Loose*>(wide);
          }
          rows[r] *= scale - V{};
        }
        transpose(rows, std::make_index_sequence<static_cast<std::size_t>(L)>());
        const Index count = width < L ? width : L;
#pragma GCC unroll 16
        for (Index d = 0; d < L; ++d)
          if (d < count) *reinterpret_cast<Loose*>(columns + (d0 + d) * block + r0) = rows[d];
      }
  });
}

/// rows[r][d] = scale[r] * columns[d * block + r], or added where beta is 1.
template <class T>
void unpack_columns(const stat_t<T>* columns, const stat_t<T>* scale, const Rows<T>& to, int beta) {
  using S = stat_t<T>;
  at_isa([=](auto chosen) WEFT_INLINE {
    constexpr Isa I = decltype(chosen)::value;
    using V = typename Register<S, I>::Vector;
    using Loose = typename Register<S, I>::Loose;
    constexpr Index L = Register<S, I>::lanes;
    for (Index r0 = 0; r0 < to.count; r0 += L)
      for (Index d0 = 0; d0 < to.width; d0 += L) {
        V rows[L];
        const V factor = *reinterpret_cast<const Loose*>(scale + r0);
        const Index width = to.width - d0 < L ? to.width - d0 : L;
#pragma GCC unroll 16
        for (Index d = 0; d < L; ++d)
          rows[d] = d < width ? *reinterpret_cast<const Loose*>(columns + (d0 + d) * block + r0) * factor : V{};
        transpose(rows, std::make_index_sequence<static_cast<std::size_t>(L)>());
#pragma GCC unroll 16
        for (Index r = 0; r < L; ++r) {
          if (r0 + r >= to.count) continue;
          T* y = to.data + to.at[r0 + r] + d0;
          if (std::is_same_v<T, S> && width == L) {
            Loose& slot = *reinterpret_cast<Loose*>(y);
            slot = beta ? slot + rows[r] : rows[r];
          } else {
            S wide[L];
            *reinterpret_cast<Loose*>(wide) = rows[r];
            if (width == L) {
#pragma omp simd
              for (Index l = 0; l < L; ++l) put(y[l], wide[l], beta);
            } else {
              for (Index l = 0; l < width; ++l) put(y[l], wide[l], beta);
            }
          }
        }
      }
  });
}

/// packed[r * stride + d] = scale * rows[r][d], zero from width up to the stride. Fetches what lies `ahead` of the rows.
template <class T>
void pack_rows(const Rows<const T>& from, stat_t<T> scale, stat_t<T>* packed, Index stride, Index ahead = 0) {
  using S = stat_t<T>;
  simd([=]() WEFT_INLINE {
    const Index width = from.width;
    for (Index r = 0; r < from.count; ++r) {
      const T* x = from.data + from.at[r];
      S* y = packed + r * stride;
      if (ahead != 0)
        for (Index d = 0; d < width; d += 64 / static_cast<Index>(sizeof(T))) __builtin_prefetch(x + ahead + d, 0, 2);
#pragma omp simd
      for (Index d = 0; d < width; ++d) y[d] = scale * static_cast<S>(x[d]);
      for (Index d = width; d < stride; ++d) y[d] = 0;
    }
  });
}

/// rows[r] *= factor[r].
template <class S>
void scale_rows(S* rows, Index count, Index width, const S* factor) {
  simd([=]() WEFT_INLINE {
    for (Index r = 0; r < count; ++r) {
      S* row = rows + r * width;
      const S by = factor[r];
#pragma omp simd
      for (Index d = 0; d < width; ++d) row[d] *= by;
    }
  });
}

/// rows[r][d] = scale[r] * packed[r * stride + d], or added where beta is 1.
template <class T>
void unpack_rows(const stat_t<T>* packed, Index stride, const stat_t<T>* scale, const Rows<T>& to, int beta) {
  using S = stat_t<T>;
  simd([=]() WEFT_INLINE {
    const Index width = to.width;
    for (Index r = 0; r < to.count; ++r) {
      T* y = to.data + to.at[r];
      const S* x = packed + r * stride;
      const S by = scale[r];
#pragma omp simd
      for (Index d = 0; d < width; ++d) put(y[d], by * x[d], beta);
    }
  });
}

}  // namespace weft::inline WEFT_ABI::kernels::attention
