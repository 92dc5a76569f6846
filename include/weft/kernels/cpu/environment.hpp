// What this process computes with: the answer to "why do the bits differ" and "why is it slow".
#pragma once

#include <map>
#include <string>

#include "weft/core/gpu.hpp"
#include "weft/core/parallel.hpp"
#include "weft/core/simd.hpp"

#if defined(WEFT_ONEDNN)
#include <dnnl.h>
#endif

namespace weft::inline WEFT_ABI {

/// What the bits of a run depend on: version, compiler, instruction set, libraries.
inline std::map<std::string, std::string> environment() {
  std::map<std::string, std::string> e;
  e["weft"] = std::to_string(WEFT_VERSION_MAJOR) + "." + std::to_string(WEFT_VERSION_MINOR) + "." + std::to_string(WEFT_VERSION_PATCH);
#if defined(__clang__)
  e["compiler"] = "clang " __clang_version__;
#else
  e["compiler"] = "g++ " __VERSION__;
#endif
  e["instruction set"] = std::string(name(isa())) + (bf16_tiles() ? " with bf16 tiles" : bf16_products() ? " with bf16 products" : "");
  if (bf16_tiles()) e["float products"] = "in bf16 parts";
#if defined(WEFT_ONEDNN)
  const dnnl_version_t* v = dnnl_version();
  e["oneDNN"] = std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
#else
  e["oneDNN"] = "off";
#endif
  if constexpr (backend_built<cuda>) e["GPU"] = gpu::environment();
  return e;
}

/// A page for a person: the above, threads, and each backend with the reason where it is off.
inline std::string env_report() {
  std::string text;
  for (const auto& [what, value] : environment()) text += what + ": " + value + "\n";
#if defined(_OPENMP)
  text += "threads: " + std::to_string(threads()) + " (OpenMP)\n";
#else
  text += "threads: 1 (compiled without -fopenmp)\n";
#endif
#if !defined(WEFT_ONEDNN)
  text += "oneDNN is off: weft's own products are used; configure with -DWEFT_ONEDNN=ON for oneDNN's\n";
#endif
  if (isa() != Isa::avx512) {
    text += "the widest vectors are not used: ";
    text += std::getenv("WEFT_ISA") != nullptr ? "WEFT_ISA asks for less\n" : "this processor has no AVX-512 (F, DQ, BW, VL)\n";
  }
  text += "cpu: on\n";
  if constexpr (backend_built<cuda>) text += "cuda: on\n";
  else text += "cuda: off; configure with -DWEFT_CUDA=ON and link weft::cuda\n";
  return text;
}

}  // namespace weft::inline WEFT_ABI
