// Pinned memory, and a thread's streams for copies: what weft/core/lanes.hpp needs.
#pragma once

#include <map>
#include <mutex>

#include "weft/core/lanes.hpp"
#include "weft/kernels/cuda/launch.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

using weft::gpu::Lane;

/// Memory of the host for what lives long: a block that comes back goes to the driver at once.
class Pinned final : public Memory {
 public:
  /// Every thread's; not freed at the program's end, when the driver is gone.
  static Pinned& all() {
    static auto* const pinned = new Pinned;
    return *pinned;
  }
  void* allocate(std::size_t bytes) override {
    void* data = nullptr;
    const cudaError_t status = cudaHostAlloc(&data, std::max<std::size_t>(bytes, 1), cudaHostAllocPortable);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // forget it
      throw MemoryError("[allocate] expected " + std::to_string(bytes) +
                        " bytes of pinned memory on the host, the system gave none\n  hint: offload needs the optimizer's states there; more ranks share them (zero 1 to 3)");
    }
    check(status, "allocate");
    const std::lock_guard lock(mutex_);
    blocks_[static_cast<const char*>(data)] = bytes;
    return data;
  }
  void release(void* data, std::size_t) override {
    cudaDeviceSynchronize();  // any stream may still use it
    {
      const std::lock_guard lock(mutex_);
      blocks_.erase(static_cast<const char*>(data));
    }
    cudaFreeHost(data);
  }
  void release_cached() override {}
  bool holds(const void* data) const {
    const std::lock_guard lock(mutex_);
    const auto after = blocks_.upper_bound(static_cast<const char*>(data));
    return after != blocks_.begin() && static_cast<const char*>(data) < std::prev(after)->first + std::prev(after)->second;
  }

 private:
  mutable std::mutex mutex_;
  std::map<const char*, std::size_t> blocks_;
};

class Lanes {
 public:
  void order(Lane earlier, Lane later) {
    if (event_ == nullptr) check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "order");
    check(cudaEventRecord(event_, of(earlier)), "order");
    check(cudaStreamWaitEvent(of(later), event_, 0), "order");  // for this record, whatever the event records later
  }
  void copy(Lane lane, void* to, const void* from, std::size_t bytes) {
    check(cudaMemcpyAsync(to, from, bytes, lane == Lane::in ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost, of(lane)), "copy");
  }

 private:
  cudaStream_t of(Lane lane) {
    if (lane == Lane::compute) return stream();
    cudaStream_t& mine = beside_[lane == Lane::out];
    if (mine == nullptr) check(cudaStreamCreateWithFlags(&mine, cudaStreamNonBlocking), "stream");
    return mine;
  }
  cudaStream_t beside_[2] = {};
  cudaEvent_t event_ = nullptr;
};

}  // namespace weft::inline WEFT_ABI::kernels::gpu
