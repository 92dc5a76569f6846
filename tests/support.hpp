// What many tests need: reproducible random numbers, comparison of bits, and running the same thing with several thread counts.
#pragma once

#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <vector>

#include "weft/core/parallel.hpp"

namespace weft::test {

/// n values, uniform in [low, high), the same for the same seed.
template <class T = float>
std::vector<T> uniform(Index n, double low = -1, double high = 1, std::uint64_t seed = 1) {
  std::mt19937_64 generator(seed);
  std::vector<T> values(static_cast<std::size_t>(n));
  for (T& v : values) v = static_cast<T>(static_cast<float>(low + (high - low) * static_cast<double>(generator() >> 11) * 0x1p-53));
  return values;
}

/// True iff the two hold the same bytes.
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// Runs make() with 1, 2, 3 and 7 threads and requires the same bits each time; returns the result.
template <class Make>
auto same_for_any_threads(Make&& make) {
  const int before = threads();
  set_threads(1);
  auto expected = make();
  for (int count : {2, 3, 7}) {
    set_threads(count);
    INFO("threads " << count);
    CHECK(same_bits(expected, make()));
  }
  set_threads(before);
  return expected;
}

}  // namespace weft::test
