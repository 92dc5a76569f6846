// The caching allocator of GPU memory: all that a thread asks for runs in the order of its stream, so a block that is given back may serve
// the next request at once: what used it before is ahead in the stream.
#pragma once

#include <map>
#include <mutex>
#include <set>
#include <vector>

#include "weft/kernels/cuda/launch.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

/// Blocks cut from segments of the driver, and joined with their neighbours when they come back; small and large ones apart, so
/// that what lives long does not split what is large.
class Pool final : public Memory {
 public:
  /// The memory of recorded steps names the thread's own as its home.
  explicit Pool(const Pool* home = nullptr) : home_(home != nullptr ? home : this) {}
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
    if (home_ != current()) cudaDeviceSynchronize();  // another thread's stream may still use it
    const std::lock_guard lock(mutex_);
    if (held_ != nullptr) return held_->push_back(data);
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
  /// From now on what comes back goes to this list and serves nobody, until it is null.
  void hold(std::vector<void*>* list) {
    const std::lock_guard lock(mutex_);
    held_ = list;
  }
  /// While steps are recorded, nothing may go back to the driver.
  void record(bool on) {
    const std::lock_guard lock(mutex_);
    recording_ = on;
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
    if (recording_) return;
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
  const Pool* home_;
  std::vector<void*>* held_ = nullptr;
  bool recording_ = false;
  std::map<char*, Segment> segments_;
  std::map<char*, Block> blocks_;  // by address
  std::set<Free> free_[2];         // small, large
  MemoryStats stats_;
};

}  // namespace weft::inline WEFT_ABI::kernels::gpu
