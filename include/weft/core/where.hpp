// The place in the user's source that an error names: the caller's line, captured by a defaulted last argument.
#pragma once

#include <source_location>
#include <string>
#include <string_view>

#include "weft/core/config.hpp"

namespace weft::inline WEFT_ABI {

/// A line of source. Two words, so that every record of a tape can afford one.
struct Where {
  const char* file = "";
  unsigned line = 0;
};

/// The caller's place when used as a default argument: `void f(Where where = here())`. constexpr and not consteval: with
/// the latter g++ 12 and nvcc 13 give the declaration's line.
constexpr Where here(std::source_location place = std::source_location::current()) {
  return {place.file_name(), static_cast<unsigned>(place.line())};
}

/// True iff the place lies in one of weft's own headers.
inline bool inside_weft(Where where) {
  constexpr std::string_view self = __FILE__;
  constexpr std::string_view root = self.substr(0, self.size() - std::string_view("core/where.hpp").size());
  return std::string_view(where.file).starts_with(root);
}

/// Where the running code was entered: the outermost module call's place and the innermost module's path. Ops that are
/// called from weft's own modules report this place; ops in a user's file report their own.
struct Scope {
  Where where;
  const std::string* path = nullptr;  ///< interned, lives as long as the program
};

inline Scope& current_scope() {
  thread_local Scope scope;
  return scope;
}

/// The line to show a user for an op called at `where` in `scope`.
inline Where users_line(Where where, const Scope& scope) {
  return scope.where.line != 0 && inside_weft(where) ? scope.where : where;
}

}  // namespace weft::inline WEFT_ABI
