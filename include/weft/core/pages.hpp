// Memory of large blocks: cut from mappings, and joined with its neighbours when it comes back, so that blocks of different sizes
// which are never there together take the same memory. A loop that takes and gives the same sizes in the same order finds them again.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "weft/core/config.hpp"

namespace weft::inline WEFT_ABI {

class Pages {
 public:
  Pages() = default;
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  ~Pages() { unmap_free(); }

  static constexpr std::size_t grain = std::size_t{64} << 10;
  static std::size_t rounded(std::size_t bytes) { return bytes > SIZE_MAX / 2 ? SIZE_MAX / grain * grain : (bytes + grain - 1) / grain * grain; }

  /// A block of `size` bytes, a multiple of grain, from what is free: the smallest that is large enough, else null.
  void* take(std::size_t size) {
    auto best = free_.end();
    for (auto range = free_.begin(); range != free_.end(); ++range)
      if (range->size >= size && (best == free_.end() || range->size < best->size)) best = range;
    if (best == free_.end()) return nullptr;
    best->size -= size;  // from its end: the system maps downwards, so that the next mapping joins what is left
    const std::uintptr_t block = best->begin + best->size;
    if (best->size == 0) free_.erase(best);
    return reinterpret_cast<void*>(block);
  }
  void give(void* block, std::size_t size) {
    const auto begin = reinterpret_cast<std::uintptr_t>(block);
    auto after = std::lower_bound(free_.begin(), free_.end(), begin, [](const Range& r, std::uintptr_t at) { return r.begin < at; });
    const bool joins_after = after != free_.end() && begin + size == after->begin;
    if (after != free_.begin() && std::prev(after)->begin + std::prev(after)->size == begin) {
      const auto before = std::prev(after);
      before->size += size;
      if (joins_after) before->size += after->size, free_.erase(after);
    } else if (joins_after) {
      after->begin = begin, after->size += size;
    } else {
      free_.insert(after, {begin, size});
    }
  }
  /// More from the system, at least `size` bytes in one piece; what nobody touches costs nothing. False where it gives none.
  bool map(std::size_t size) {
    constexpr std::size_t huge = std::size_t{2} << 20, least = std::size_t{32} << 20;
    if (size > SIZE_MAX / 2) return false;
    const std::size_t wanted = std::max((size + huge - 1) / huge * huge, least);
    void* const raw = ::mmap(nullptr, wanted + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) return false;
    const auto begin = reinterpret_cast<std::uintptr_t>(raw), aligned = (begin + huge) / huge * huge;  // as high as can be, next to the last
    ::munmap(raw, aligned - begin);
    if (const std::size_t rest = begin + huge - aligned; rest > 0) ::munmap(reinterpret_cast<void*>(aligned + wanted), rest);
#if defined(MADV_HUGEPAGE)
    (void)::madvise(reinterpret_cast<void*>(aligned), wanted, MADV_HUGEPAGE);  // advice: a kernel without huge pages is no error
#endif
    give(reinterpret_cast<void*>(aligned), wanted);
    return true;
  }
  std::size_t free_bytes() const {
    std::size_t sum = 0;
    for (const Range& range : free_) sum += range.size;
    return sum;
  }
  static void unmap(void* block, std::size_t size) { ::munmap(block, size); }
  /// Returns what is free to the system.
  void unmap_free() {
    for (const Range& range : free_) unmap(reinterpret_cast<void*>(range.begin), range.size);
    free_.clear();
  }

 private:
  struct Range {
    std::uintptr_t begin;
    std::size_t size;
  };
  std::vector<Range> free_;  // by address; none touches the next
};

}  // namespace weft::inline WEFT_ABI
