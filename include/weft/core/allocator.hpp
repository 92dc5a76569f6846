// Memory: a caching allocator, one per thread (a rank is a thread) and device. A block that is freed goes to a list of its size class and
// serves the next request of that class, so a training step that looks like the last one calls neither malloc nor the kernel.
#pragma once

#include <bit>
#include <cassert>
#include <cstdint>
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
    if (bytes > large) return allocate_anew(bytes);
    const int size_class = class_of(bytes);
    Block* const block = free_[size_class];
    if (block == nullptr) return allocate_anew(bytes);
    free_[size_class] = block->next;
    const auto next = reinterpret_cast<std::uintptr_t>(block->next);  // what the next request of the class gets, and fills
    for (std::uintptr_t line = 0; line < 4; ++line) __builtin_prefetch(reinterpret_cast<const void*>(next + 64 * line), 1);
    return held(block, size_of(size_class));
  }

  WEFT_OUTLINE void release(void* data, std::size_t bytes) override {
    if (this == mine_or_null()) put_back(data, bytes);
    else release_foreign(data, bytes);
  }

  void release_cached() override {
    for (Block*& list : free_)
      while (list != nullptr) std::free(std::exchange(list, list->next));
    pages_.unmap_free();
    owned_ = live_;
  }

  MemoryStats stats() const { return {live_, peak_, owned_ - live_, system_calls_}; }
  void reset_peak() { peak_ = live_; }

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
    std::size_t bytes;  ///< that were asked for
  };
  /// Ends with its thread; the allocator lives on for as long as a block is held.
  struct Owner {
    Allocator* allocator = nullptr;
    ~Owner() {
      mine_or_null() = nullptr;
      allocator->release_cached();  // most of it outside the lock
      bool last = false;
      {
        const SpinLock::Hold lock(allocator->foreign_lock_);
        allocator->put_foreign_back();
        allocator->release_cached();
        allocator->orphan_ = true;
        last = allocator->live_ == 0;
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
  void* held(void* block, std::size_t size) {
    live_ += size;
    if (live_ > peak_) peak_ = live_;
    return block;
  }
  /// What allocate does where no list serves it at once.
  WEFT_OUTLINE void* allocate_anew(std::size_t bytes) {
    const std::size_t size = rounded(bytes);
    void* block = from_cache(size);
    if (block == nullptr && __atomic_load_n(&foreign_, __ATOMIC_RELAXED) != nullptr) {
      {
        const SpinLock::Hold lock(foreign_lock_);
        put_foreign_back();
      }
      block = from_cache(size);
    }
    if (block == nullptr) {
      ++system_calls_;
      block = from_system(size);
      if (block == nullptr) {
        release_cached();
        block = from_system(size);
      }
      if (block == nullptr)
        throw MemoryError("[allocate] expected " + std::to_string(bytes) + " bytes of memory, the system gave none\n  live: " +
                          std::to_string(live_) + " bytes\n  hint: a smaller micro-batch, or --recompute, needs less");
    }
    return held(block, size);
  }
  void* from_system(std::size_t size) {
    if (size <= large) {
      void* const block = std::aligned_alloc(alignment, size);
      if (block != nullptr) owned_ += size;
      return block;
    }
    const std::size_t before = pages_.free_bytes();
    if (!pages_.map(size)) return nullptr;
    owned_ += pages_.free_bytes() - before;
    return pages_.take(size);
  }
  static void to_system(void* data, std::size_t size) {
    if (size > large) Pages::unmap(data, size);
    else std::free(data);
  }
  void put_back(void* data, std::size_t bytes) {
    if (bytes > large) {
      const std::size_t size = Pages::rounded(bytes);
      live_ -= size;
      return pages_.give(data, size);
    }
    const int size_class = class_of(bytes);
    live_ -= size_of(size_class);
    free_[size_class] = ::new (data) Block{free_[size_class], bytes};
  }
  /// What release does on a thread that is not this memory's own.
  WEFT_OUTLINE void release_foreign(void* data, std::size_t bytes) {
    bool last = false;
    {
      const SpinLock::Hold lock(foreign_lock_);
      if (orphan_) {
        to_system(data, rounded(bytes));
        live_ -= rounded(bytes);
        last = live_ == 0;
      } else {
        __atomic_store_n(&foreign_, ::new (data) Block{foreign_, bytes}, __ATOMIC_RELAXED);  // allocate_anew looks without the lock
      }
    }
    if (last) delete this;
  }
  void put_foreign_back() {
    Block* block = foreign_;
    __atomic_store_n(&foreign_, nullptr, __ATOMIC_RELAXED);
    while (block != nullptr) {
      Block* const next = block->next;
      put_back(block, block->bytes);
      block = next;
    }
  }

  Block* free_[classes] = {};
  Pages pages_;
  std::size_t live_ = 0;             // bytes of blocks that are held; 0 iff none is
  std::size_t peak_ = 0;             // the most of them
  std::size_t owned_ = 0;            // bytes got from the system and not given back
  std::size_t system_calls_ = 0;
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
