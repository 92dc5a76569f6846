// What attention does to one block: products of small matrices whose columns lie in vector lanes, and transposes into
// and out of that layout.
#pragma once

#include <type_traits>
#include <utility>

#include "weft/core/simd.hpp"
#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels::attention {

/// Rows (keys) and columns (queries) of a block of scores; scores are stored with this row stride.
inline constexpr Index block = 64;

/// A register of S on an instruction set; Loose is the same at any address. Halves and Bits hold as many lanes, for
/// widening bf16.
template <class S, Isa I>
struct Register;
// clang-format off
#define WEFT_REGISTER(S, I, bytes)                                                                                    \
  template <> struct Register<S, Isa::I> {                                                                            \
    typedef S Vector __attribute__((vector_size(bytes)));                                                             \
    typedef S Loose __attribute__((vector_size(bytes), aligned(sizeof(S)), may_alias));                               \
    typedef std::uint16_t Halves __attribute__((vector_size(2 * (bytes) / sizeof(S)), aligned(2), may_alias));        \
    typedef std::uint32_t Bits __attribute__((vector_size(4 * (bytes) / sizeof(S))));                                 \
    static constexpr Index lanes = (bytes) / sizeof(S);                                                               \
    static constexpr int columns = (bytes) == 64 ? 4 : 2; /* of a tile of 6 rows: its sums fill the registers */      \
  };
// clang-format on
WEFT_REGISTER(float, avx512, 64)
WEFT_REGISTER(float, avx2, 32)
WEFT_REGISTER(float, base, 16)
WEFT_REGISTER(double, avx512, 64)
WEFT_REGISTER(double, avx2, 32)
WEFT_REGISTER(double, base, 16)
#undef WEFT_REGISTER

#if !defined(__clang__) && defined(__x86_64__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"  // the built-ins become part of functions built for their instruction set
#endif
/// c += a b, in one rounding where the instruction set can.
template <class V>
WEFT_INLINE inline void add_product(V& c, const V& a, const V& b) {
#if defined(__clang__)
#pragma clang fp contract(fast)
  c = a * b + c;
#elif defined(__x86_64__)
  constexpr bool single = sizeof(a[0]) == 4;
  if constexpr (sizeof(V) == 64 && single) c = __builtin_ia32_vfmaddps512_mask(a, b, c, -1, 4);
  else if constexpr (sizeof(V) == 64) c = __builtin_ia32_vfmaddpd512_mask(a, b, c, -1, 4);
  else if constexpr (sizeof(V) == 32 && single) c = __builtin_ia32_vfmaddps256(a, b, c);
  else if constexpr (sizeof(V) == 32) c = __builtin_ia32_vfmaddpd256(a, b, c);
  else c = a * b + c;
#else
  c = a * b + c;
#endif
}
#if !defined(__clang__) && defined(__x86_64__)
#pragma GCC diagnostic pop
#endif

/// Runs body(isa) in a function built for the processor's instruction set, which the body knows as a constant.
template <class Body>
void at_isa(const Body& body) {
#if defined(__x86_64__)
  switch (isa()) {
    case Isa::avx512:
      return weft::detail::run_avx512([body]() WEFT_INLINE { body(std::integral_constant<Isa, Isa::avx512>{}); });
    case Isa::avx2:
      return weft::detail::run_avx2([body]() WEFT_INLINE { body(std::integral_constant<Isa, Isa::avx2>{}); });
    case Isa::base: break;
  }
#endif
  weft::detail::run_base([body]() WEFT_INLINE { body(std::integral_constant<Isa, Isa::base>{}); });
}

/// C (rows, columns) = A (rows, depth) B (depth, columns), added to factor * C where `add`. Rows of B and C are
/// contiguous and whole vectors of them are touched; A has any strides. Each element is one chain of fma in the order
/// of depth.
template <class S>
struct Product {
  Index rows, columns, depth;
  const S* a;
  Index a_row, a_depth;
  const S* b;
  Index b_row;
  S* c;
  Index c_row;
  bool add = false;
  const S* factor = nullptr;  ///< (columns), or 1
};

template <class S, Isa I, int R, int N>
WEFT_INLINE inline void multiply_tile(const Product<S>& p, Index row, Index column) {
  using V = typename Register<S, I>::Vector;
  using Loose = typename Register<S, I>::Loose;
  constexpr Index L = Register<S, I>::lanes;
  S* c = p.c + row * p.c_row + column;
  V sum[R][N];
  if (!p.add) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sum[r][n] = V{};
  } else {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sum[r][n] = *reinterpret_cast<const Loose*>(c + r * p.c_row + n * L);
    if (p.factor != nullptr) {
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        const V factor = *reinterpret_cast<const Loose*>(p.factor + column + n * L);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r][n] *= factor;
      }
    }
  }
  const S* a = p.a + row * p.a_row;
  const S* b = p.b + column;
  const Index a_row = p.a_row, a_depth = p.a_depth, b_row = p.b_row;
#pragma GCC unroll 2
  for (Index k = p.depth; k > 0; --k, a += a_depth, b += b_row) {
    V x[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) x[n] = *reinterpret_cast<const Loose*>(b + n * L);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V w = a[r * a_row] - V{};
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) add_product(sum[r][n], w, x[n]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) *reinterpret_cast<Loose*>(c + r * p.c_row + n * L) = sum[r][n];
}

template <class S, Isa I, int N>
WEFT_INLINE inline void multiply_panel(const Product<S>& p, Index column) {
  Index row = 0;
  // Tiles of few rows wait for their own sums, so a rest of two becomes two tiles of four.
  const Index sixes = p.rows % 6 == 2 && p.rows > 6 ? p.rows - 8 : p.rows - p.rows % 6;
  for (; row < sixes; row += 6) multiply_tile<S, I, 6, N>(p, row, column);
  for (; row + 4 <= p.rows; row += 4) multiply_tile<S, I, 4, N>(p, row, column);
  for (; row + 2 <= p.rows; row += 2) multiply_tile<S, I, 2, N>(p, row, column);
  for (; row < p.rows; ++row) multiply_tile<S, I, 1, N>(p, row, column);
}

/// Computes the product.
template <class S>
void multiply(const Product<S>& product) {
  at_isa([product](auto chosen) WEFT_INLINE {
    constexpr Isa I = decltype(chosen)::value;
    constexpr Index L = Register<S, I>::lanes;
    constexpr int N = Register<S, I>::columns;
    const Product<S> p = product;
    Index column = 0;
    for (; column + (N - 1) * L < p.columns; column += N * L) multiply_panel<S, I, N>(p, column);
    if constexpr (N == 4) {
      if (column + 2 * L < p.columns) return multiply_panel<S, I, 3>(p, column);
      if (column + L < p.columns) return multiply_panel<S, I, 2>(p, column);
    }
    if (column < p.columns) multiply_panel<S, I, 1>(p, column);
  });
}

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

/// packed[r * stride + d] = scale * rows[r][d], zero from width up to the stride.
template <class T>
void pack_rows(const Rows<const T>& from, stat_t<T> scale, stat_t<T>* packed, Index stride) {
  using S = stat_t<T>;
  simd([=]() WEFT_INLINE {
    const Index width = from.width;
    for (Index r = 0; r < from.count; ++r) {
      const T* x = from.data + from.at[r];
      S* y = packed + r * stride;
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
