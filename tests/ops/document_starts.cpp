#include "weft/ops/document_starts.hpp"

#include "support.hpp"

using namespace weft;
using namespace weft::test;

TEST_CASE("document_starts: after each separator, row by row") {
  const auto starts = [](std::vector<std::int64_t> tokens, const Shape& shape) {
    return document_starts(from_vector<std::int64_t>(tokens, shape), 9).to_vector();
  };
  CHECK(starts({1, 9, 2, 3, 9, 4}, {1, 6}) == std::vector<std::int32_t>{0, 0, 2, 2, 2, 5});
  CHECK(starts({9, 9, 1, 1, 1, 9}, {2, 3}) == std::vector<std::int32_t>{0, 1, 2, 0, 0, 0});
  CHECK(starts({1}, {1, 1}) == std::vector<std::int32_t>{0});
  CHECK(starts({}, {0, 4}).empty());
  CHECK(starts({}, {3, 0}).empty());
  const auto columns = from_vector<std::int64_t>({1, 9, 9, 1, 2, 2}, {3, 2});  // transposed: 1 9 2 and 9 1 2
  CHECK(document_starts(transpose(columns), 9).to_vector() == std::vector<std::int32_t>{0, 0, 2, 0, 1, 1});
}

TEST_CASE("document_starts: the same for any number of threads") {
  const auto tokens = from_vector<std::int64_t>([] {
    std::vector<std::int64_t> all;
    for (std::uint64_t i = 0; i < 5 * 3000; ++i) all.push_back(static_cast<std::int64_t>(mix(1, i) % 50));
    return all;
  }(), {5, 3000});
  const auto starts = same_for_any_threads([&] { return document_starts(tokens, 7).to_vector(); });
  for (Index i = 0; i < 5 * 3000; ++i) {
    const Index t = i % 3000;
    const auto at = starts[static_cast<std::size_t>(i)];
    REQUIRE(at == (t == 0 ? 0 : tokens.data()[i - 1] == 7 ? t : starts[static_cast<std::size_t>(i - 1)]));
  }
}

TEST_CASE("document_starts' errors") {
  check_error<ShapeError>([&] { document_starts(from_vector<std::int64_t>({1, 2}, {2}), 9); }, {"[document_starts]", "rank 2", "(2)"});
}
