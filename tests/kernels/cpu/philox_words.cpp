// Runs of random words: those of each block alone, whatever the run's length, where it begins and the instruction set.
#include "weft/kernels/cpu/philox_words.hpp"

#include <vector>

#include "support.hpp"

using namespace weft;

TEST_CASE("a run of blocks has the words of each block alone", "[philox]") {
  const RandomKey key{{{0x243f6a88u, 0xfffffff0u}}, 3, 0xffffffffu};
  for (const Index base : {Index{0}, Index{5}, (Index{1} << 32) - 7, (Index{1} << 40) + 1})
    for (Index count = 0; count <= 40; ++count) {
      std::vector<std::uint32_t> words(static_cast<std::size_t>(4 * count + 4), 7u);
      kernels::philox_words(key, base, count, words.data());
      std::size_t wrong = 0;
      for (Index b = 0; b < count; ++b)
        for (int i = 0; i < 4; ++i) wrong += words[static_cast<std::size_t>(4 * b + i)] != philox(key, static_cast<std::uint64_t>(base + b)).w[i];
      for (int i = 0; i < 4; ++i) wrong += words[static_cast<std::size_t>(4 * count + i)] != 7u;
      INFO("from " << base << ", " << count << " blocks");
      CHECK(wrong == 0);
    }
}
