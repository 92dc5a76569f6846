// A step that looks like the last one asks neither the heap nor the system for memory: forward, backward and AdamW of the three families.
#include <atomic>
#include <cstdlib>
#include <new>

#include "support.hpp"
#include "weft/optim/ema.hpp"

namespace {
std::atomic<long> heap_calls{0};

void* counted(std::size_t bytes, std::size_t alignment = alignof(std::max_align_t)) {
  ++heap_calls;
  void* block = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}
}  // namespace

// noinline: else g++ sees a free of what `new` gave, and warns
[[gnu::noinline]] void* operator new(std::size_t bytes) { return counted(bytes); }
[[gnu::noinline]] void* operator new[](std::size_t bytes) { return counted(bytes); }
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment) { return counted(bytes, static_cast<std::size_t>(alignment)); }
[[gnu::noinline]] void* operator new[](std::size_t bytes, std::align_val_t alignment) { return counted(bytes, static_cast<std::size_t>(alignment)); }
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return counted(bytes); }
[[gnu::noinline]] void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept { return counted(bytes); }
[[gnu::noinline]] void operator delete(void* block) noexcept { std::free(block); }
[[gnu::noinline]] void operator delete[](void* block) noexcept { std::free(block); }
[[gnu::noinline]] void operator delete(void* block, std::size_t) noexcept { std::free(block); }
[[gnu::noinline]] void operator delete[](void* block, std::size_t) noexcept { std::free(block); }
[[gnu::noinline]] void operator delete(void* block, std::align_val_t) noexcept { std::free(block); }
[[gnu::noinline]] void operator delete[](void* block, std::align_val_t) noexcept { std::free(block); }
[[gnu::noinline]] void operator delete(void* block, std::size_t, std::align_val_t) noexcept { std::free(block); }
[[gnu::noinline]] void operator delete[](void* block, std::size_t, std::align_val_t) noexcept { std::free(block); }

using namespace weft;

TEST_CASE("the counter counts") {
  const long before = heap_calls;
  int* volatile kept = new int(1);  // volatile: a pair of new and delete may be left out
  delete kept;
  const long after = heap_calls;
  CHECK(after == before + 1);
}

/// After three steps five more call neither the heap nor the system, and hold no more memory.
template <class F>
void check_steady(F&& step) {
  for (int i = 0; i < 3; ++i) step();
  const long calls = heap_calls;
  const std::size_t system_calls = memory_stats().system_calls, live = memory_stats().live;
  for (int i = 0; i < 5; ++i) step();
  const long made = heap_calls - calls;
  CHECK(made == 0);
  CHECK(memory_stats().system_calls - system_calls == 0);
  CHECK(memory_stats().live == live);
}

TEST_CASE("a steady training step calls neither the heap nor the system") {
  const int before = threads();
  for (const test::Arch arch : test::all_archs)
    for (const bool recompute : {false, true}) {
      INFO(test::name(arch) << (recompute ? " with recompute" : ""));
      set_threads(1);
      nn::TransformerConfig c = test::tiny(arch);
      c.dropout = 0.1;
      c.recompute = recompute;
      const nn::Transformer<float> model(c, 1);
      optim::AdamW adamw(model);
      optim::Ema ema(adamw, 0.9);
      const auto tokens = test::rule_tokens(3, 11, 0), targets = test::rule_tokens(3, 11, 1);
      double last = 0;
      const auto step = [&] {
        for (Index micro = 0; micro < 2; ++micro) {
          Tape tape(Key{1, 0, micro, 2, {66}});
          const auto loss = model.loss(tokens, targets);
          tape.backward(loss);
          last = loss.value();
        }
        last += adamw.step({.lr = 0, .clip = 1});  // the same weights: so a mixture's rows go to the same experts
        ema.update();
      };
      check_steady(step);

      set_threads(2);  // which thread runs which piece differs, so an allocator may still meet a size for the first time
      for (int i = 0; i < 3; ++i) step();
      const long with_two = heap_calls;
      for (int i = 0; i < 5; ++i) step();
      const long made_with_two = heap_calls - with_two;
      CHECK(made_with_two <= 1);  // the second thread's own allocator
      CHECK(std::isfinite(last));
    }
  set_threads(before);
}

TEST_CASE("so does one with bf16 states, and one that updates inside the backward") {
  const int before = threads();
  set_threads(1);
  for (const bool inside : {false, true}) {
    INFO((inside ? "inside the backward" : "a step"));
    const nn::Transformer<bf16> model(test::tiny(test::Arch::llama), 1);
    optim::AdamW adamw(model, {.bf16_states = true});
    const auto tokens = test::rule_tokens(3, 11, 0), targets = test::rule_tokens(3, 11, 1);
    double last = 0;
    const auto step = [&] {
      Tape tape(Key{1, 0, 0, 1, {33}});
      const auto loss = model.loss(tokens, targets);
      if (inside) {
        last = adamw.backward(tape, loss, {.lr = 1e-3});
      } else {
        tape.backward(loss);
        last = adamw.step({.lr = 1e-3, .clip = 1});
      }
    };
    check_steady(step);
    CHECK(std::isfinite(last));
  }
  set_threads(before);
}
