// Instruction sets are chosen at start-up, so a program compiled with plain -O2 is fast: `simd(body)` runs the body inside
// a function built for the best set that the processor has. The body must be WEFT_INLINE, so that it becomes part of that
// function; its loops carry `#pragma omp simd` (g++ 12 leaves a plain loop scalar at -O2).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string_view>
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "weft/core/error.hpp"

namespace weft::inline WEFT_ABI {

enum class Isa { base, avx2, avx512 };

inline constexpr const char* name(Isa isa) {
  return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "base";
}

namespace detail {
inline Isa find_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  Isa best = has_avx512 ? Isa::avx512 : has_avx2 ? Isa::avx2 : Isa::base;
  if (const char* wish = std::getenv("WEFT_ISA")) {  // lowers it, never raises it
    if (std::string_view(wish) == "base") best = Isa::base;
    else if (std::string_view(wish) == "avx2") best = best == Isa::base ? best : Isa::avx2;
    else if (std::string_view(wish) != "avx512" && std::string_view(wish) != "avx512bf16")
      fail<ValueError>("isa", std::string("expected WEFT_ISA to be base, avx2, avx512 or avx512bf16, got ") + wish, {});
  }
  return best;
#else
  return Isa::base;
#endif
}
}  // namespace detail

/// The instruction set of the kernels in this process; the environment's WEFT_ISA=base|avx2|avx512|avx512bf16 can lower it.
inline Isa isa() {
  static const Isa found = detail::find_isa();
  return found;
}

namespace detail {
inline bool find_bf16_tiles() {
#if defined(__x86_64__) && defined(__linux__)
  if (isa() != Isa::avx512 || std::getenv("WEFT_ISA") != nullptr) return false;
  std::uint32_t a = 7, b, c = 0, d;
  __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  constexpr std::uint32_t bf16 = 1u << 22, tile = 1u << 24;
  constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA: for the whole process
  return (d & bf16) && (d & tile) && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}
}  // namespace detail

/// True iff products of bf16 and float use tile registers (Intel AMX), which the system must permit and is asked for here. Any WEFT_ISA does without.
inline bool bf16_tiles() {
  static const bool found = detail::find_bf16_tiles();
  return found;
}
/// True iff products of bf16 use the processor's own, two elements of K at a time: tiles or AVX512_BF16. The latter only where it gains: Intel's
/// processors with tile registers, permitted or not, run it at half the speed of float multiply-adds (measured on Emerald Rapids; AMD's at
/// twice), so that bf16 is widened there. WEFT_ISA=avx512bf16 takes it wherever it is, WEFT_ISA=avx512 nowhere.
inline bool bf16_products() {
#if defined(__x86_64__)
  static const bool found = [] {
    if (bf16_tiles()) return true;
    if (isa() != Isa::avx512 || !__builtin_cpu_supports("avx512bf16")) return false;
    const char* const wish = std::getenv("WEFT_ISA");
    return wish != nullptr ? std::string_view(wish) == "avx512bf16" : !__builtin_cpu_is("intel") || __builtin_cpu_is("cooperlake");
  }();
  return found;
#else
  return false;
#endif
}

#if defined(__x86_64__)
#define WEFT_AVX512_TARGET "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"
#if defined(__clang__)  // of several target attributes it takes one
#define WEFT_AVX512 __attribute__((target(WEFT_AVX512_TARGET), min_vector_width(512)))
#define WEFT_TILES __attribute__((target(WEFT_AVX512_TARGET ",amx-tile,amx-bf16"), min_vector_width(512)))
#else
#define WEFT_AVX512 __attribute__((target(WEFT_AVX512_TARGET ",prefer-vector-width=512")))
#define WEFT_TILES __attribute__((target(WEFT_AVX512_TARGET ",amx-tile,amx-bf16,prefer-vector-width=512")))
#endif
#define WEFT_AVX2 __attribute__((target("avx2,fma")))
#define WEFT_BASE __attribute__((cold))  // x86 without AVX2 ended about 2013: it must work, and not cost compile time
#else
#define WEFT_BASE
#endif

namespace detail {
// The body comes by value: captured values then live in registers instead of being reloaded after every store.
#if defined(__x86_64__)
template <class Body> WEFT_AVX512 __attribute__((noinline)) void run_avx512(Body body) { body(); }
template <class Body> WEFT_AVX2 __attribute__((noinline)) void run_avx2(Body body) { body(); }
#endif
template <class Body> WEFT_BASE __attribute__((noinline)) void run_base(Body body) { body(); }
}  // namespace detail

/// Runs `body`, a lambda `[=]() WEFT_INLINE { ... }` that captures plain values, at the processor's full vector width.
template <class Body>
void simd(const Body& body) {
#if defined(__x86_64__)
  switch (isa()) {
    case Isa::avx512: return detail::run_avx512(body);
    case Isa::avx2: return detail::run_avx2(body);
    case Isa::base: break;
  }
#endif
  detail::run_base(body);
}

}  // namespace weft::inline WEFT_ABI
