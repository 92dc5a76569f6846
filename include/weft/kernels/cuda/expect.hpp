// Checks of numbers that lie on the GPU, for which the host does not wait: what they find is thrown later (gpu::Fault).
#pragma once

#include "weft/core/gpu.hpp"
#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// Notes in gpu::fault(), unless something stands there, the first number of a contiguous index that is outside [0, wrong.extent) and
/// not *wrong.ignored. count () = how many are not ignored.
void expect_inside(cuda, In<std::int64_t, cuda> index, const weft::gpu::Fault& wrong, Out<double, cuda> count);

/// Notes there where offsets (E + 1) do not rise from 0 to wrong.extent. safe = offsets, or then zeros, so that nobody reads past the end.
void expect_offsets(cuda, In<std::int64_t, cuda> offsets, const weft::gpu::Fault& wrong, Out<std::int64_t, cuda> safe);

/// Notes there the first of contiguous starts (B, wrong.extent) that is neither the one before it in its row nor its own position: 0 for
/// the first of a row.
void expect_starts(cuda, In<std::int32_t, cuda> starts, const weft::gpu::Fault& wrong);

}  // namespace weft::inline WEFT_ABI::kernels
