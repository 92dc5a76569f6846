// Shapes: counting without overflow, strides, what is contiguous, and text.
#include "weft/core/shape.hpp"

#include "support.hpp"

using namespace weft;

TEST_CASE("dims hold up to eight axes") {
  Shape s;
  CHECK(s.rank() == 0);
  for (Index a = 0; a < max_rank; ++a) s.push_back(a + 1);
  CHECK(s == Shape{1, 2, 3, 4, 5, 6, 7, 8});
  CHECK(s.back() == 8);
  CHECK_THROWS_AS(s.push_back(9), ShapeError);
  CHECK_THROWS_AS(s.insert(0, 9), ShapeError);
  CHECK_THROWS_AS((Shape{1, 1, 1, 1, 1, 1, 1, 1, 1}), ShapeError);
  CHECK(Shape::filled(3, 7) == Shape{7, 7, 7});
  CHECK_FALSE(Shape{1} == Shape{1, 1});
}

TEST_CASE("axes are inserted and erased anywhere") {
  Shape s{2, 3};
  s.insert(0, 1);
  CHECK(s == Shape{1, 2, 3});
  s.insert(3, 4);
  CHECK(s == Shape{1, 2, 3, 4});
  s.insert(2, 9);
  CHECK(s == Shape{1, 2, 9, 3, 4});
  s.erase(4), s.erase(2), s.erase(0);
  CHECK(s == Shape{2, 3});
}

TEST_CASE("the number of elements never overflows silently") {
  CHECK(numel({}) == 1);
  CHECK(numel({3, 4, 5}) == 60);
  CHECK(numel({3, 0, 5}) == 0);
  const Index big = Index{1} << 32;
  CHECK(numel({big, big / 4}) == Index{1} << 62);
  CHECK_THROWS_AS(numel({big, big}), ShapeError);
  CHECK_THROWS_AS(numel({0, big, big}), ShapeError);  // its strides would overflow
  CHECK_THROWS_AS(numel({2, -1}), ShapeError);
  CHECK(leading({2, 3, 5}) == 6);
  CHECK(leading({5}) == 1);
  CHECK(leading({}) == 1);
}

TEST_CASE("row-major strides, and what is contiguous") {
  CHECK(row_major({2, 3, 4}) == Strides{12, 4, 1});
  CHECK(row_major({2, 0, 4}) == Strides{4, 4, 1});
  CHECK(row_major({}) == Strides{});
  CHECK(is_contiguous({2, 3, 4}, {12, 4, 1}));
  CHECK(is_contiguous({1, 3}, {999, 1}));  // an axis of extent 1 takes no step
  CHECK(is_contiguous({2, 0}, {7, 7}));
  CHECK(is_contiguous({}, {}));
  CHECK_FALSE(is_contiguous({2, 3}, {1, 2}));
  CHECK_FALSE(is_contiguous({2, 3}, {4, 1}));
  CHECK_FALSE(is_contiguous({2, 3}, {0, 1}));
}

TEST_CASE("shapes as text") {
  CHECK(to_string(Shape{}) == "()");
  CHECK(to_string(Shape{5}) == "(5)");
  CHECK(to_string(Shape{2, 3}) == "(2, 3)");
}
