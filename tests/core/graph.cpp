#include "weft/core/graph.hpp"

#include <catch2/catch.hpp>
#include <vector>

using namespace weft;

TEST_CASE("on the CPU a graph calls its step each time") {
  Graph<cpu> graph;
  std::vector<Index> seen;
  for (Index step = 0; step < 4; ++step) {
    if (step == 2) graph.reset();
    graph.run({.step = step, .lr = 1e-3}, [&] { seen.push_back(step); });
  }
  CHECK(seen == std::vector<Index>{0, 1, 2, 3});
}
