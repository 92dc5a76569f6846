// Memory: a caching allocator, one per thread (a rank is a thread) and device. A block that is freed goes to a list of its size class and
// serves the next request of that class, so a training step that looks like the last one calls neither malloc nor the kernel.
#pragma once

#include <bit>
#include <cassert>
#include <cstdlib>
#include <new>
#include <utility>
#include <vector>

#include "weft/core/device.hpp"
#include "weft/core/error.hpp"
#include "weft/core/pages.hpp"
#include "weft/core/spin_lock.hpp"

namespace weft::inline WEFT_ABI {

/// Bytes of one rank's allocator on one device.
struct MemoryStats {
  std::size_t live = 0;    ///< in blocks that are held
  std::size_t peak = 0;    ///< the most that was ever live
  std::size_t cached = 0;  ///< in blocks that wait to be used again
  std::size_t system_calls = 0;
};

/// A source of blocks, one per thread and device.
struct Memory {
  virtual ~Memory() = default;
  /// A block of at least `bytes`, 64-byte aligned, uninitialised. Throws MemoryError.
  virtual void* allocate(std::size_t bytes) = 0;
  /// Gives a block of `bytes` back; from any thread, and also after the memory's own thread has ended.
  virtual void release(void* data, std::size_t bytes) = 0;
  /// Returns every block that waits to be used again to the system.
  virtual void release_cached() = 0;
};

/// Host memory.
class Allocator final : public Memory {
 public:
  static constexpr std::size_t alignment = 64;

  Allocator(const Allocator&) = delete;
  Allocator& operator=(const Allocator&) = delete;

  WEFT_OUTLINE void* allocate(std::size_t bytes) override {
    const std::size_t size = rounded(bytes);
    void* block = from_cache(size);
    if (block == nullptr && foreign_ != nullptr) {
      collect_foreign();
      block = from_cache(size);
    }
    if (block != nullptr) {
      stats_.cached -= size;
    } else {
      ++stats_.system_calls;
      block = from_system(size);
      if (block == nullptr) {
        release_cached();
        block = from_system(size);
      }
      if (block == nullptr)
        throw MemoryError("[allocate] expected " + std::to_string(bytes) + " bytes of memory, the system gave none\n  live: " +
                          std::to_string(stats_.live) + " bytes\n  hint: a smaller micro-batch, or --recompute, needs less");
    }
    stats_.live += size;
    if (stats_.live > stats_.peak) stats_.peak = stats_.live;
    ++blocks_;
    return block;
  }

  WEFT_OUTLINE void release(void* data, std::size_t bytes) override {
    if (this == mine_or_null()) return put_back(data, rounded(bytes));
    bool last = false;
    {
      const SpinLock::Hold lock(foreign_lock_);
      if (orphan_) {
        to_system(data, rounded(bytes));
        last = --blocks_ == 0;
      } else {
        foreign_ = ::new (data) Block{foreign_, bytes};
      }
    }
    if (last) delete this;
  }

  void release_cached() override {
    for (Block*& list : free_)
      while (list != nullptr) std::free(std::exchange(list, list->next));
    pages_.unmap_free();
    stats_.cached = 0;
  }

  const MemoryStats& stats() const { return stats_; }
  void reset_peak() { stats_.peak = stats_.live; }

  /// This thread's allocator of host memory.
  static Allocator& mine() {
    Allocator*& current = mine_or_null();
    if (current == nullptr) {
      thread_local Owner owner;
      current = owner.allocator = new Allocator;
    }
    return *current;
  }

 private:
  struct Block {
    Block* next;
    std::size_t bytes = 0;  ///< set only where another thread gave it back
  };
  /// Ends with its thread; the allocator lives on for as long as a block is held.
  struct Owner {
    Allocator* allocator = nullptr;
    ~Owner() {
      mine_or_null() = nullptr;
      allocator->collect_foreign();
      allocator->release_cached();
      bool last = false;
      {
        const SpinLock::Hold lock(allocator->foreign_lock_);
        allocator->orphan_ = true;
        last = allocator->blocks_ == 0;
      }
      if (last) delete allocator;
    }
  };
  static Allocator*& mine_or_null() {
    thread_local Allocator* current = nullptr;
    return current;
  }

  // Blocks of up to a megabyte wait in lists of their class: multiples of 64 bytes up to 1 KiB, above that sixteen steps a power of two
  // (at most 6.25 % is wasted). Larger ones are cut from pages.
  static constexpr std::size_t large = std::size_t{1} << 20;
  static constexpr int classes = 16 + 16 * 10;
  static int class_of(std::size_t bytes) {
    if (bytes <= 1024) return bytes == 0 ? 0 : static_cast<int>((bytes - 1) / 64);
    const int power = static_cast<int>(std::bit_width(bytes - 1)) - 1;  // 2^power < bytes <= 2^(power + 1)
    return 16 + 16 * (power - 10) + static_cast<int>(((bytes - 1) >> (power - 4)) & 15);
  }
  static std::size_t size_of(int size_class) {
    if (size_class < 16) return static_cast<std::size_t>(size_class + 1) * 64;
    const int power = 10 + (size_class - 16) / 16, step = (size_class - 16) % 16;
    return static_cast<std::size_t>(17 + step) << (power - 4);
  }
  static std::size_t rounded(std::size_t bytes) { return bytes > large ? Pages::rounded(bytes) : size_of(class_of(bytes)); }

  Allocator() = default;
  ~Allocator() { release_cached(); }

  void* from_cache(std::size_t size) {
    if (size > large) return pages_.take(size);
    Block*& list = free_[class_of(size)];
    return list != nullptr ? std::exchange(list, list->next) : nullptr;
  }
  void* from_system(std::size_t size) {
    if (size <= large) return std::aligned_alloc(alignment, size);
    const std::size_t before = pages_.free_bytes();
    if (!pages_.map(size)) return nullptr;
    stats_.cached += pages_.free_bytes() - before - size;
    return pages_.take(size);
  }
  static void to_system(void* data, std::size_t size) {
    if (size > large) Pages::unmap(data, size);
    else std::free(data);
  }
  void put_back(void* data, std::size_t size) {
    stats_.live -= size;
    stats_.cached += size;
    --blocks_;
    if (size > large) return pages_.give(data, size);
    Block*& list = free_[class_of(size)];
    list = ::new (data) Block{list, 0};
  }
  void collect_foreign() {
    const SpinLock::Hold lock(foreign_lock_);
    while (foreign_ != nullptr) {
      Block* block = std::exchange(foreign_, foreign_->next);
      put_back(block, rounded(block->bytes));
    }
  }

  Block* free_[classes] = {};
  Pages pages_;
  MemoryStats stats_;
  std::size_t blocks_ = 0;
  bool orphan_ = false;
  SpinLock foreign_lock_;
  Block* foreign_ = nullptr;  // blocks that other threads gave back
};

/// This thread's memory on a device.
template <class D>
Memory& memory_of();
template <>
inline Memory& memory_of<cpu>() { return Allocator::mine(); }

/// The caching allocator for standard containers: one that grows and dies in every step makes no heap call. Stays on its thread.
template <class T>
struct CachedAllocator {
  using value_type = T;
  Allocator* home = &Allocator::mine();

  CachedAllocator() = default;
  template <class U>
  CachedAllocator(const CachedAllocator<U>& other) : home(other.home) {}
  T* allocate(std::size_t n) { return static_cast<T*>(home->allocate(n * sizeof(T))); }
  void deallocate(T* data, std::size_t n) { home->release(data, n * sizeof(T)); }
  friend bool operator==(const CachedAllocator& a, const CachedAllocator& b) { return a.home == b.home; }
};
template <class T>
using CachedVector = std::vector<T, CachedAllocator<T>>;

/// Bytes held by this rank's tensors in host memory.
inline MemoryStats memory_stats() { return Allocator::mine().stats(); }
inline void reset_peak_memory() { Allocator::mine().reset_peak(); }

}  // namespace weft::inline WEFT_ABI
