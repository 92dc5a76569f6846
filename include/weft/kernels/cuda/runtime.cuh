// Defines weft/core/gpu.hpp: a stream and a caching allocator for each thread. All that a thread asks for runs in the order of its
// stream, so a block that is given back may serve the next request at once: what used it before is ahead in the stream.
#pragma once

#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "weft/kernels/cuda/lanes.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

/// Blocks cut from segments of the driver, and joined with their neighbours when they come back; small and large ones apart, so
/// that what lives long does not split what is large.
class Pool final : public Memory {
 public:
  void* allocate(std::size_t bytes) override {
    const std::lock_guard lock(mutex_);
    const std::size_t size = rounded(bytes);
    std::set<Free>& free = free_[size > small];
    auto best = free.lower_bound({size, nullptr});
    if (best == free.end()) {
      const std::size_t segment = size <= small ? small_segment : std::max((size + large_grain - 1) / large_grain * large_grain, large_segment);
      map(segment, size > small);
      best = free.lower_bound({size, nullptr});
    }
    char* const data = best->data;
    const std::size_t there = best->size;
    free.erase(best);
    Block& block = blocks_.at(data);
    block.free = false;
    if (there - size >= grain) {
      block.size = size;
      blocks_[data + size] = {there - size, block.segment, true};
      free.insert({there - size, data + size});
    }
    stats_.live += block.size, stats_.cached -= block.size;
    stats_.peak = std::max(stats_.peak, stats_.live);
    return data;
  }
  void release(void* data, std::size_t) override {
    if (this != current()) cudaDeviceSynchronize();  // another thread's stream may still use it
    const std::lock_guard lock(mutex_);
    auto block = blocks_.find(static_cast<char*>(data));
    stats_.live -= block->second.size, stats_.cached += block->second.size;
    std::set<Free>& free = free_[segments_.at(block->second.segment).large];
    const auto joins = [](auto first, auto second) {
      return second->second.free && first->second.free && first->second.segment == second->second.segment;
    };
    block->second.free = true;
    if (const auto after = std::next(block); after != blocks_.end() && joins(block, after)) {
      free.erase({after->second.size, after->first});
      block->second.size += after->second.size;
      blocks_.erase(after);
    }
    if (block != blocks_.begin())
      if (const auto before = std::prev(block); joins(before, block)) {
        free.erase({before->second.size, before->first});
        before->second.size += block->second.size;
        blocks_.erase(block);
        block = before;
      }
    free.insert({block->second.size, block->first});
  }
  /// Returns segments of which nothing is held to the driver.
  void release_cached() override {
    const std::lock_guard lock(mutex_);
    unmap_free();
  }
  MemoryStats stats() const {
    const std::lock_guard lock(mutex_);
    return stats_;
  }
  void reset_peak() {
    const std::lock_guard lock(mutex_);
    stats_.peak = stats_.live;
  }
  /// This thread's, or null before it asked for one.
  static Pool*& current() {
    thread_local Pool* pool = nullptr;
    return pool;
  }

 private:
  static constexpr std::size_t grain = 512, small = std::size_t{1} << 20, small_segment = std::size_t{8} << 20,
                               large_segment = std::size_t{64} << 20, large_grain = std::size_t{2} << 20;
  struct Block {
    std::size_t size;
    char* segment;
    bool free;
  };
  struct Free {
    std::size_t size;
    char* data;
    bool operator<(const Free& other) const { return size != other.size ? size < other.size : data < other.data; }
  };
  struct Segment {
    std::size_t size;
    bool large;
  };
  static std::size_t rounded(std::size_t bytes) { return std::max<std::size_t>((bytes + grain - 1) / grain * grain, grain); }

  void map(std::size_t size, bool large) {
    void* data = nullptr;
    ++stats_.system_calls;
    cudaError_t status = cudaMalloc(&data, size);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // forget it
      unmap_free();
      status = cudaMalloc(&data, size);
    }
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      std::size_t free = 0, total = 0;
      cudaMemGetInfo(&free, &total);
      throw MemoryError("[allocate] expected " + std::to_string(size) + " bytes of GPU memory, " + std::to_string(free) + " of " +
                        std::to_string(total) + " are free\n  live: " + std::to_string(stats_.live) +
                        " bytes\n  hint: a smaller micro-batch, or --recompute, needs less");
    }
    check(status, "allocate");
    char* const begin = static_cast<char*>(data);
    segments_[begin] = {size, large};
    blocks_[begin] = {size, begin, true};
    free_[large].insert({size, begin});
    stats_.cached += size;
  }
  void unmap_free() {
    cudaDeviceSynchronize();
    for (auto segment = segments_.begin(); segment != segments_.end();) {
      const auto block = blocks_.find(segment->first);
      if (!block->second.free || block->second.size != segment->second.size) {
        ++segment;
        continue;
      }
      free_[segment->second.large].erase({block->second.size, block->first});
      stats_.cached -= block->second.size;
      blocks_.erase(block);
      cudaFree(segment->first);
      segment = segments_.erase(segment);
    }
  }

  mutable std::mutex mutex_;
  std::map<char*, Segment> segments_;
  std::map<char*, Block> blocks_;  // by address
  std::set<Free> free_[2];         // small, large
  MemoryStats stats_;
};

/// Pinned memory through which small things go to the GPU, so that the copy runs beside the host's work; a slot is used again when its
/// copy has happened.
class Staging {
 public:
  static constexpr std::size_t slot_bytes = std::size_t{1} << 20;

  void to_device(void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
    Slot& slot = slots_[next_++ % slots];
    if (slot.data == nullptr) {
      check(cudaMallocHost(&slot.data, slot_bytes), "to_device");
      check(cudaEventCreateWithFlags(&slot.copied, cudaEventDisableTiming), "to_device");
    } else {
      check(cudaEventSynchronize(slot.copied), "to_device");
    }
    std::memcpy(slot.data, from, bytes);
    check(cudaMemcpyAsync(to, slot.data, bytes, cudaMemcpyHostToDevice, stream), "to_device");
    check(cudaEventRecord(slot.copied, stream), "to_device");
  }

 private:
  static constexpr std::size_t slots = 8;
  struct Slot {
    void* data = nullptr;
    cudaEvent_t copied = nullptr;
  };
  Slot slots_[slots];
  std::size_t next_ = 0;
};

/// What a thread has on the GPU. One that ends leaves it to the next that comes; nothing is freed at the program's end.
struct Context {
  Pool pool;
  Staging staging;
  Lanes lanes;
  cudaStream_t stream = nullptr;
  int device = 0;  ///< the thread's when it first asked

  static Context& mine() {
    thread_local Owner owner;
    return *owner.context;
  }

 private:
  static std::vector<Context*>& waiting() {
    static auto* const list = new std::vector<Context*>;
    return *list;
  }
  static std::mutex& waiting_mutex() {
    static auto* const mutex = new std::mutex;
    return *mutex;
  }
  struct Owner {
    Context* context = nullptr;
    Owner() {
      int device = 0;
      check(cudaGetDevice(&device), "stream");
      {
        const std::lock_guard lock(waiting_mutex());
        const auto same = std::find_if(waiting().begin(), waiting().end(), [device](const Context* c) { return c->device == device; });
        if (same != waiting().end()) context = *same, waiting().erase(same);
      }
      if (context == nullptr) {
        auto fresh = std::make_unique<Context>();
        fresh->device = device;
        check(cudaStreamCreateWithFlags(&fresh->stream, cudaStreamNonBlocking), "stream");
        context = fresh.release();
      }
      Pool::current() = &context->pool;
    }
    ~Owner() {
      Pool::current() = nullptr;
      const std::lock_guard lock(waiting_mutex());
      waiting().push_back(context);
    }
  };
};

}  // namespace weft::inline WEFT_ABI::kernels::gpu

namespace weft::inline WEFT_ABI::gpu {

Memory& memory() { return kernels::gpu::Context::mine().pool; }
MemoryStats memory_stats() { return kernels::gpu::Context::mine().pool.stats(); }
void reset_peak_memory() { kernels::gpu::Context::mine().pool.reset_peak(); }
void release_cached() { kernels::gpu::Context::mine().pool.release_cached(); }
void* stream() { return kernels::gpu::Context::mine().stream; }

Memory& host_memory() { return kernels::gpu::Pinned::all(); }
void order(Lane earlier, Lane later) { kernels::gpu::Context::mine().lanes.order(earlier, later); }
void copy(Lane lane, void* to, const void* from, std::size_t bytes) { kernels::gpu::Context::mine().lanes.copy(lane, to, from, bytes); }

void to_device(void* to, const void* from, std::size_t bytes) {
  if (kernels::gpu::Pinned::all().holds(to)) {
    synchronize();
    std::memcpy(to, from, bytes);
    return;
  }
  auto& mine = kernels::gpu::Context::mine();
  if (bytes <= kernels::gpu::Staging::slot_bytes) return mine.staging.to_device(to, from, bytes, mine.stream);
  kernels::gpu::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, mine.stream), "to_device");  // the driver's own staging
}
void to_host(void* to, const void* from, std::size_t bytes) {
  if (kernels::gpu::Pinned::all().holds(from)) {
    synchronize();
    std::memcpy(to, from, bytes);
    return;
  }
  kernels::gpu::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, kernels::gpu::stream()), "to_host");
  synchronize();
}
void copy(void* to, const void* from, std::size_t bytes) {
  kernels::gpu::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, kernels::gpu::stream()), "copy");
}
void synchronize() { kernels::gpu::check(cudaStreamSynchronize(kernels::gpu::stream()), "synchronize"); }

std::string describe() {
  int device = 0;
  cudaDeviceProp properties{};
  kernels::gpu::check(cudaGetDevice(&device), "describe");
  kernels::gpu::check(cudaGetDeviceProperties(&properties, device), "describe");
  char text[160];
  std::snprintf(text, sizeof text, "%.100s, %.1f GiB, sm_%d%d", properties.name, static_cast<double>(properties.totalGlobalMem) / 1073741824.0,
                properties.major, properties.minor);
  return text;
}

}  // namespace weft::inline WEFT_ABI::gpu
