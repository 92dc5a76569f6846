// Places in source: the caller's line, what lies inside weft, and which line a user is shown.
#include "weft/core/where.hpp"

#include "support.hpp"

using namespace weft;

namespace {
/// A line of one of weft's own headers, which lie in include/weft beside this folder's parent.
Where place_in_header() {
  static const std::string file = [] {
    const std::string self = __FILE__;
    return self.substr(0, self.size() - std::string("tests/core/where.cpp").size()) + "include/weft/ops/add.hpp";
  }();
  return {file.c_str(), 5};
}
}  // namespace

namespace {
Where callers_place(Where where = here()) { return where; }
struct Operand {
  Where where;
  Operand(int, Where place = here()) : where(place) {}
};
Where converted(Operand x) { return x.where; }
}  // namespace

TEST_CASE("a defaulted argument is the caller's line") {
  const Where a = callers_place();
  const Where b = callers_place();
  CHECK(std::string(a.file) == __FILE__);
  CHECK(b.line == a.line + 1);
  CHECK(converted(1).line == a.line + 4);
}

TEST_CASE("what lies inside weft's headers") {
  CHECK_FALSE(inside_weft(here()));
  CHECK_FALSE(inside_weft({"", 0}));
  CHECK_FALSE(inside_weft({"/home/a/weft/mine.cpp", 7}));
  CHECK(inside_weft(place_in_header()));
}

TEST_CASE("the line that a user is shown") {
  const Where user{"train.cpp", 42}, other{"model.cpp", 7}, header = place_in_header();
  const std::string path = "model.mlp";
  CHECK(users_line(other, {user, &path}).line == 7);   // an op in a user's file: its own line
  CHECK(users_line(header, {user, &path}).line == 42); // inside weft: where the user called the module
  CHECK(users_line(header, {}).line == header.line);   // nowhere better
}

TEST_CASE("two words") {
  STATIC_REQUIRE(sizeof(Where) == 2 * sizeof(void*));
  STATIC_REQUIRE(here().line > 0);
}
