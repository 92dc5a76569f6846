// The innermost blocks of this process's instruction set.
#pragma once

#include "weft/kernels/cpu/gemm_columns.hpp"
#include "weft/kernels/cpu/gemm_tiles.hpp"
#include "weft/kernels/cpu/gemm_tiles_once.hpp"

namespace weft::inline WEFT_ABI::kernels::gemm {

/// Those of this process's instruction set; of pairs only where bf16_products().
template <class T>
MicroKernels<T> micro_kernels() {
  constexpr Index lanes = 32 / static_cast<Index>(sizeof(T));
#if defined(__x86_64__)
  if constexpr (std::is_same_v<T, Pair>)
    if (bf16_tiles())
      return {32, 16, 2, 128, Into::resume,
              {{micro_tiles<1, 1>, micro_tiles<2, 1>, micro_tiles<4, 1>, micro_tiles<8, 1>, micro_tiles<16, 1>, micro_tiles<32, 1>},
               {micro_tiles<1, 2>, micro_tiles<2, 2>, micro_tiles<4, 2>, micro_tiles<8, 2>, micro_tiles<16, 2>, micro_tiles<32, 2>}}};
  if constexpr (std::is_same_v<T, SplitPair>)
    return {32, 16, 2, 64, Into::resume,
            {{micro_split<1, 1>, micro_split<2, 1>, micro_split<4, 1>, micro_split<8, 1>, micro_split<16, 1>, micro_split<32, 1>},
             {micro_split<1, 2>, micro_split<2, 2>, micro_split<4, 2>, micro_split<8, 2>, micro_split<16, 2>, micro_split<32, 2>}}};
  else if (isa() == Isa::avx512)
    return {8, 2 * lanes, 3, 384, Into::add,
            {{micro_avx512<T, 1, 1>, micro_avx512<T, 2, 1>, micro_avx512<T, 4, 1>, micro_avx512<T, 8, 1>},
             {micro_avx512<T, 1, 2>, micro_avx512<T, 2, 2>, micro_avx512<T, 4, 2>, micro_avx512<T, 8, 2>},
             {micro_avx512<T, 1, 3>, micro_avx512<T, 2, 3>, micro_avx512<T, 4, 3>, micro_avx512<T, 8, 3>}}};
  if constexpr (std::is_arithmetic_v<T>) {
    if (isa() == Isa::avx2)
      return {4, lanes, 3, 384, Into::add,
              {{micro_avx2<T, 1, 1>, micro_avx2<T, 2, 1>, micro_avx2<T, 4, 1>},
               {micro_avx2<T, 1, 2>, micro_avx2<T, 2, 2>, micro_avx2<T, 4, 2>},
               {micro_avx2<T, 1, 3>, micro_avx2<T, 2, 3>, micro_avx2<T, 4, 3>}}};
  }
#endif
  if constexpr (!std::is_arithmetic_v<T>) return {};
  else return {4, lanes, 1, 384, Into::add, {{micro_base<T, 1, 1>, micro_base<T, 2, 1>, micro_base<T, 4, 1>}}};
}

/// That of this process's instruction set for 1 to 8 rows; null where there is none.
template <class T, class S = T>
ColumnsKernel<T, S> columns_kernel([[maybe_unused]] Index rows) {
#if defined(__x86_64__)
  if constexpr (std::is_same_v<T, Pair>)
    if (bf16_tiles()) {
      constexpr ColumnsKernel<T> kernels[] = {columns_tiles<1>, columns_tiles<2>, columns_tiles<3>, columns_tiles<4>,
                                              columns_tiles<5>, columns_tiles<6>, columns_tiles<7>, columns_tiles<8>};
      return kernels[rows - 1];
    }
  if constexpr (sizeof(T) == 4)
    if (isa() == Isa::avx512) {
      constexpr ColumnsKernel<T, S> kernels[] = {columns_avx512<T, S, 1>, columns_avx512<T, S, 2>, columns_avx512<T, S, 3>, columns_avx512<T, S, 4>,
                                                 columns_avx512<T, S, 5>, columns_avx512<T, S, 6>, columns_avx512<T, S, 7>, columns_avx512<T, S, 8>};
      return kernels[rows - 1];
    }
#endif
  return nullptr;
}

/// True iff the blocks for panels of P are of tile registers, which read rows of a that lie one after the other, never interleaved.
template <class P>
bool on_tile_registers() {
  return std::is_same_v<P, SplitPair> || (std::is_same_v<P, Pair> && bf16_tiles());
}

}  // namespace weft::inline WEFT_ABI::kernels::gemm
