// What every weft file agrees on: the version, the index type, and an inline namespace that encodes the compiler flags
// which change generated code, so that object files compiled differently fail to link instead of mixing silently.
#pragma once

#include <cstddef>
#include <cstdint>

#define WEFT_VERSION_MAJOR 0
#define WEFT_VERSION_MINOR 1
#define WEFT_VERSION_PATCH 0

#if defined(__FAST_MATH__)
#error "weft: compiled with -ffast-math, which breaks its promise of the same bits; remove that flag"
#endif

#if defined(__AVX512F__)
#define WEFT_ABI_ISA avx512
#elif defined(__AVX2__)
#define WEFT_ABI_ISA avx2
#else
#define WEFT_ABI_ISA base
#endif
#if defined(_OPENMP)
#define WEFT_ABI_THREADS omp
#else
#define WEFT_ABI_THREADS serial
#endif
#if defined(WEFT_ONEDNN)
#define WEFT_ABI_GEMM onednn
#else
#define WEFT_ABI_GEMM own
#endif

#define WEFT_JOIN_(a, b, c) v0_##a##_##b##_##c
#define WEFT_JOIN(a, b, c) WEFT_JOIN_(a, b, c)
#define WEFT_ABI WEFT_JOIN(WEFT_ABI_ISA, WEFT_ABI_THREADS, WEFT_ABI_GEMM)

/// Written after a lambda's parameter list, or before a function: its code becomes part of the caller's, and so is built
/// for the instruction set of the function it is called in (core/simd.hpp), or for the GPU.
#if defined(__CUDACC__)
#define WEFT_INLINE __host__ __device__ __attribute__((always_inline))
#else
#define WEFT_INLINE __attribute__((always_inline))
#endif

/// Written before a function that many places call and none is faster for holding: it is compiled once, not in each.
#define WEFT_OUTLINE __attribute__((noinline))

namespace weft::inline WEFT_ABI {

/// Sizes, strides and positions: signed, so that differences and reverse loops are safe.
using Index = std::int64_t;

}  // namespace weft::inline WEFT_ABI
