// Where a tensor's elements live: a tag chosen at compile time, so that a wrong mix does not compile.
#pragma once

#include "weft/core/config.hpp"

namespace weft::inline WEFT_ABI {

struct cpu { static constexpr const char* name = "cpu"; };
struct cuda { static constexpr const char* name = "cuda"; };
struct meta { static constexpr const char* name = "meta"; };  ///< shapes alone, no data

/// True iff the backend's kernels are part of this build.
template <class D> inline constexpr bool backend_built = false;
template <> inline constexpr bool backend_built<cpu> = true;
#if defined(WEFT_CUDA)
template <> inline constexpr bool backend_built<cuda> = true;
#endif

#if defined(WEFT_DEVICE)
using default_device = WEFT_DEVICE;
#else
using default_device = cpu;
#endif

}  // namespace weft::inline WEFT_ABI
