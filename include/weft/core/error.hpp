// Errors that teach: one base class, one class a kind; the text says the op, what was expected, what came, where in the
// user's source, in which module, and where possible what to do. Always an exception, in release builds too.
#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include "weft/core/where.hpp"

namespace weft::inline WEFT_ABI {

/// Base of everything weft throws.
class Error : public std::exception {
 public:
  explicit Error(std::string text) : text_(std::move(text)) {}
  const char* what() const noexcept override { return text_.c_str(); }
  /// Adds what only a caller knows, such as the forward line of a failing backward.
  void append(std::string_view more) { text_ += more; }

 private:
  std::string text_;
};
struct ShapeError : Error { using Error::Error; };    ///< extents or ranks that do not fit
struct TypeError : Error { using Error::Error; };     ///< an element type that does not fit
struct ValueError : Error { using Error::Error; };    ///< an argument out of its range
struct IoError : Error { using Error::Error; };       ///< a file that is missing, short, malformed or cannot be written
struct CommError : Error { using Error::Error; };     ///< a rank or a collective that failed
struct NumericError : Error { using Error::Error; };  ///< a value that is not finite
struct MemoryError : Error { using Error::Error; };   ///< an allocation that failed, a dropped block that was touched
struct TapeError : Error { using Error::Error; };     ///< a tape used against its rules

/// "[op] problem\n  at file:line in module\n  hint: what to do"; the module and the hint only where there are any.
WEFT_OUTLINE inline std::string error_text(std::string_view op, std::string_view problem, Where where, std::string_view hint = {},
                              const Scope& scope = current_scope()) {
  const Where line = users_line(where, scope);
  std::string text = "[";
  text.append(op).append("] ").append(problem);
  if (line.line != 0) text.append("\n  at ").append(line.file).append(":").append(std::to_string(line.line));
  if (line.line != 0 && scope.path != nullptr && !scope.path->empty()) text.append(" in ").append(*scope.path);
  if (!hint.empty()) text.append("\n  hint: ").append(hint);
  return text;
}

/// Throws E with error_text.
template <class E>
[[noreturn, gnu::cold]] WEFT_OUTLINE void fail(std::string_view op, std::string_view problem, Where where, std::string_view hint = {}) {
  throw E(error_text(op, problem, where, hint));
}

}  // namespace weft::inline WEFT_ABI
