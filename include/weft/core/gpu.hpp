// What host code asks of the GPU: memory, copies and waiting. Declared without CUDA's headers, so that a program stays a plain .cpp;
// the library weft::cuda defines it (kernels/cuda/runtime.cuh). All work of a thread goes to one stream, in order.
#pragma once

#include <cstring>
#include <string>

#include "weft/core/dtype.hpp"
#include "weft/core/storage.hpp"
#include "weft/core/where.hpp"

namespace weft::inline WEFT_ABI::gpu {

/// This thread's allocator of memory on the GPU: what is given back serves the next request, in the order of the stream, so
/// that a step which looks like the last one asks the driver for nothing.
Memory& memory();
/// Bytes held by this thread's tensors on the GPU.
MemoryStats memory_stats();
void reset_peak_memory();
/// Returns what waits to be used again to the driver.
void release_cached();

/// Copies, in the order of the stream. `from` may be used again when it returns.
void to_device(void* to, const void* from, std::size_t bytes);
/// Copies, and waits until it has happened. Throws what kernels found wrong, as synchronize does.
void to_host(void* to, const void* from, std::size_t bytes);
/// Copies within the GPU, in the order of the stream.
void copy(void* to, const void* from, std::size_t bytes);
/// y[i] = x[0][i] + x[1][i] + ..., or with `largest` their maximum, of `count` arrays of n numbers on the GPU: comm::tree_reduce's sums, bit
/// for bit. y may be one of the arrays.
void tree_reduce(Dtype type, bool largest, const void* const* x, Index count, void* y, Index n);
/// Waits until all that this thread asked for has happened. Throws Error where it failed, and what kernels found wrong meanwhile.
void synchronize();
/// What a kernel found wrong, in memory that host and GPU both see, so that no check of values makes the host wait: raise(*this) throws it
/// when this thread next waits for the GPU. The first one counts. Texts live as long as the program.
struct Fault {
  void (*raise)(const Fault&) = nullptr;  ///< null: nothing is wrong
  const char *op = "", *what = "";        ///< who looked at which numbers, such as tokens
  Where line = {};                        ///< the user's
  const std::string* path = nullptr;      ///< of the module
  Index extent = 0;                       ///< numbers belong into [0, extent)
  const Index* ignored = nullptr;         ///< or are this one (never read by the GPU)
  Index position = 0, value = 0;          ///< the first that does not
};
/// Where this thread's kernels note it.
Fault& fault();
/// This thread's cudaStream_t.
void* stream();
/// From now on products take the fastest algorithm instead of the one that cuBLASLt's heuristic names. What `path` holds is taken from
/// there, what it lacks is measured once and added: with the same file a run repeats to the bit. Throws IoError, and ValueError where
/// the file was made on another GPU or by another cuBLASLt. To be called before the first product of any thread.
void tune_products(const std::string& path);
/// Name, memory and compute capability of the device, such as "NVIDIA H200, 139.8 GiB, sm_90".
std::string describe();
/// What the bits of a run on the GPU depend on: the device, the libraries and who does attention; "none" where there is no GPU.
std::string environment();

}  // namespace weft::inline WEFT_ABI::gpu

namespace weft::inline WEFT_ABI {

template <>
inline Memory& memory_of<cuda>() { return gpu::memory(); }

namespace detail {
// What host code writes to and reads from the elements of any device's tensors.
inline void to_device(cpu, void* to, const void* from, std::size_t bytes) { if (bytes > 0) std::memcpy(to, from, bytes); }
inline void to_device(cuda, void* to, const void* from, std::size_t bytes) { if (bytes > 0) gpu::to_device(to, from, bytes); }
inline void to_host(cpu, void* to, const void* from, std::size_t bytes) { if (bytes > 0) std::memcpy(to, from, bytes); }
inline void to_host(cuda, void* to, const void* from, std::size_t bytes) { if (bytes > 0) gpu::to_host(to, from, bytes); }
}  // namespace detail

}  // namespace weft::inline WEFT_ABI
