// The caching allocator and the counted block: a steady loop asks the system for nothing, blocks come back from any thread, and bytes
// are counted.
#include "weft/core/storage.hpp"

#include <algorithm>
#include <random>
#include <thread>

#include "support.hpp"
#include "weft/core/scratch.hpp"

using namespace weft;

namespace {
void* address(Allocator& a, std::size_t bytes) {
  void* block = a.allocate(bytes);
  a.release(block, bytes);
  return block;
}
}  // namespace

TEST_CASE("blocks are aligned, writable, and reused by requests of their class") {
  Allocator& a = Allocator::mine();
  for (std::size_t bytes : {0u, 1u, 63u, 64u, 65u, 1000u, 1024u, 1025u, 4096u, 5000u, 1u << 20, (2u << 20) + 1}) {
    INFO(bytes << " bytes");
    void* block = a.allocate(bytes);
    CHECK(reinterpret_cast<std::uintptr_t>(block) % Allocator::alignment == 0);
    std::memset(block, 0xab, bytes);
    a.release(block, bytes);
    CHECK(address(a, bytes) == block);
  }
  CHECK(address(a, 1) == address(a, 64));
  CHECK(address(a, 1025) == address(a, 1088));  // sixteen classes from 1 to 2 KiB
  CHECK(address(a, 1025) != address(a, 1089));
}

TEST_CASE("at most a sixteenth of a block is wasted") {
  Allocator& a = Allocator::mine();
  for (std::size_t bytes = 1025; bytes < (std::size_t{1} << 26); bytes = bytes * 9 / 8 + 1) {
    const std::size_t before = a.stats().live;
    void* block = a.allocate(bytes);
    const std::size_t size = a.stats().live - before;
    CHECK(size >= bytes);
    CHECK(size <= bytes + bytes / 16 + 64);
    a.release(block, bytes);
  }
}

TEST_CASE("large blocks of other sizes take the same memory, one after the other, and join again whatever the order") {
  Allocator& a = Allocator::mine();
  a.release_cached();
  constexpr std::size_t mb = std::size_t{1} << 20;
  std::vector<std::pair<char*, std::size_t>> blocks;
  std::mt19937 random(1);
  const auto step = [&] {
    for (std::size_t n : {3, 20, 1, 7, 5, 11}) {
      const std::size_t bytes = n * mb + n * 1000;
      blocks.emplace_back(static_cast<char*>(a.allocate(bytes)), bytes);
      std::memset(blocks.back().first, static_cast<int>(n), bytes);
    }
    for (const auto& [p, bytes] : blocks) {
      const int n = static_cast<int>(bytes / mb);
      CHECK((p[0] == n && p[bytes - 1] == n));
    }
    std::shuffle(blocks.begin(), blocks.end(), random);
    for (const auto& [p, bytes] : blocks) a.release(p, bytes);
    blocks.clear();
  };
  step();
  const std::size_t calls = a.stats().system_calls, cached = a.stats().cached;
  CHECK(cached <= 96 * mb);
  for (int i = 0; i < 50; ++i) step();
  CHECK(a.stats().system_calls == calls);
  CHECK(a.stats().cached == cached);
  a.release(a.allocate(cached / 2), cached / 2);  // larger than any of them
  CHECK(a.stats().system_calls <= calls + 1);
  CHECK_THROWS_AS(a.allocate(SIZE_MAX - 1), MemoryError);
  CHECK_THROWS_AS(a.allocate(std::size_t{1} << 60), MemoryError);
}

TEST_CASE("a steady loop makes no system call") {
  const auto step = [] {
    std::vector<Ref<Storage>> blocks;
    for (std::size_t n = 1; n < 200; ++n) blocks.push_back(Ref<Storage>::make(n * 37, true));
    const Scratch<float> s(12345);
    s[12344] = 1;
  };
  step();
  const std::size_t calls = memory_stats().system_calls, live = memory_stats().live;
  for (int i = 0; i < 100; ++i) step();
  CHECK(memory_stats().system_calls == calls);
  CHECK(memory_stats().live == live);
}

TEST_CASE("live, peak and cached bytes") {
  Allocator& a = Allocator::mine();
  a.release_cached();
  reset_peak_memory();
  const MemoryStats before = memory_stats();
  CHECK(before.cached == 0);
  CHECK(before.peak == before.live);
  void* first = a.allocate(4096);
  void* second = a.allocate(8192);
  a.release(first, 4096);
  void* third = a.allocate(4096);
  CHECK(memory_stats().live - before.live == 12288);
  CHECK(memory_stats().peak - before.live == 12288);
  a.release(second, 8192);
  a.release(third, 4096);
  CHECK(memory_stats().live == before.live);
  CHECK(memory_stats().cached == 12288);
  CHECK(memory_stats().peak - before.live == 12288);
  a.release_cached();
  CHECK(memory_stats().cached == 0);
}

TEST_CASE("another thread gives blocks back, and their own thread uses them again") {
  Allocator& a = Allocator::mine();
  constexpr std::size_t bytes = 77777;
  std::vector<void*> blocks;
  for (int i = 0; i < 10; ++i) blocks.push_back(a.allocate(bytes));
  const std::size_t live = a.stats().live, calls = a.stats().system_calls;
  std::thread([&] { for (void* b : blocks) a.release(b, bytes); }).join();
  for (void*& b : blocks) b = a.allocate(bytes);
  CHECK(a.stats().system_calls == calls);
  CHECK(a.stats().live == live);
  for (void* b : blocks) a.release(b, bytes);
}

TEST_CASE("a block outlives the thread that made it") {
  Ref<Storage> block;
  std::thread([&] { block = Ref<Storage>::make(std::size_t{1000}, true); }).join();
  std::memset(block->data, 1, 1000);
  block = nullptr;  // the last one: its allocator goes with it (the sanitizers' run would see a leak or a second release)
}

TEST_CASE("each thread has an allocator of its own") {
  Allocator* other = nullptr;
  std::thread([&] { other = &Allocator::mine(); }).join();
  CHECK(other != &Allocator::mine());
  CHECK(&Allocator::mine() == &Allocator::mine());
}

TEST_CASE("a container on the caching allocator") {
  const auto step = [] {
    std::vector<int, CachedAllocator<int>> v;
    for (int i = 0; i < 1000; ++i) v.push_back(i);
    return v[999];
  };
  CHECK(step() == 999);
  const MemoryStats before = memory_stats();
  CHECK(step() == 999);
  CHECK(memory_stats().system_calls == before.system_calls);
  CHECK(memory_stats().live == before.live);
}

TEST_CASE("a counting pointer destroys with its last copy") {
  struct Probe : Counted {
    explicit Probe(int& n) : alive(n) { ++alive; }
    ~Probe() { --alive; }
    int& alive;
  };
  int alive = 0;
  Ref<Probe> a = Ref<Probe>::make(alive);
  {
    const Ref<Probe> b = a, c = std::move(a);
    CHECK_FALSE(static_cast<bool>(a));
    CHECK(b == c);
    CHECK(b->refs == 2);
    a = b;
  }
  CHECK(alive == 1);
  Ref<Probe>& self = a;
  a = self;
  CHECK(alive == 1);
  a = nullptr;
  CHECK(alive == 0);

  struct Throws : Counted {
    Throws() { throw ValueError("no"); }
  };
  const std::size_t live = memory_stats().live;
  CHECK_THROWS_AS(Ref<Throws>::make(), ValueError);
  CHECK(memory_stats().live == live);
}

TEST_CASE("a block is dropped and materialised while handles live") {
  const Ref<Storage> s = Ref<Storage>::make(std::size_t{5000}, false);
  CHECK(s->data == nullptr);
  const std::size_t live = memory_stats().live;
  s->materialise();
  CHECK(s->data != nullptr);
  CHECK(memory_stats().live > live);
  s->materialise();
  s->drop();
  s->drop();
  CHECK(memory_stats().live == live);
  s->touch({"f.cpp", 3});
  CHECK(s->version == 1);
  CHECK(s->written.line == 3);
}

#if !defined(__SANITIZE_ADDRESS__)  // it ends the program instead of giving null
TEST_CASE("an impossible request throws and changes no count") {
  const std::size_t live = memory_stats().live;
  CHECK_THROWS_AS(Allocator::mine().allocate(std::size_t{1} << 60), MemoryError);
  CHECK(memory_stats().live == live);
}
#endif
