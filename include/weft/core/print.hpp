// Tensors as text that a person can read: type, shape, and nested rows, of which long ones show their ends.
#pragma once

#include <cmath>
#include <cstdio>
#include <iosfwd>
#include <string>

#include "weft/core/tensor.hpp"

namespace weft::inline WEFT_ABI {

namespace detail {

/// How all numbers of one text are written: as wide, and as exact, as its elements need.
struct NumberFormat {
  bool scientific = false;
  int digits = 0;  ///< after the point
  int width = 0;

  std::string operator()(double x) const {
    char text[64];
    std::snprintf(text, sizeof text, scientific ? "%.*e" : "%.*f", digits, x);
    return text;
  }
};

template <class T>
class Printer {
 public:
  explicit Printer(const Tensor<T, cpu>& x) : x_(x) {
    if constexpr (Real<T>) choose_format();
    visit(0, 0, [this](Index at) { format_.width = std::max(format_.width, static_cast<int>(element(at).size())); });
  }

  std::string text() const {
    if (x_.numel() == 0) return "[]";
    std::string out;
    write(out, 0, 0);
    return out;
  }

 private:
  static constexpr Index edge = 3;  ///< an axis of more than twice as many shows these at each end

  /// Calls f(offset) for each element that is shown.
  template <class F>
  void visit(Index axis, Index at, F&& f) const {
    if (x_.numel() == 0) return;
    if (axis == x_.rank()) return f(at);
    const Index n = x_.shape()[axis];
    for (Index i = 0; i < n; ++i) {
      if (n > 2 * edge && i == edge) i = n - edge;
      visit(axis + 1, at + i * x_.strides()[axis], f);
    }
  }

  /// At most four digits, no more than some element needs; powers of ten where the sizes differ much.
  void choose_format() {
    double largest = 0, smallest = HUGE_VAL;
    visit(0, 0, [&](Index at) {
      const double size = std::fabs(static_cast<double>(x_.data()[at]));
      if (!std::isfinite(size) || size == 0) return;
      largest = std::fmax(largest, size);
      smallest = std::fmin(smallest, size);
    });
    format_.scientific = largest > 0 && (largest >= 1e8 || smallest < 1e-4 || largest / smallest > 1e6);
    format_.digits = 4;
    if (format_.scientific) return;
    format_.digits = 1;
    visit(0, 0, [&](Index at) {
      const std::string exact = NumberFormat{false, 4, 0}(static_cast<double>(x_.data()[at]));
      while (format_.digits < 4 && exact.find('.') != std::string::npos &&
             exact.find_last_not_of('0') > exact.find('.') + static_cast<std::size_t>(format_.digits))
        ++format_.digits;
    });
  }

  std::string element(Index at) const {
    const T value = x_.data()[at];
    if constexpr (std::is_same_v<T, bool>) return value ? "true" : "false";
    else if constexpr (Real<T>) return format_(static_cast<double>(value));
    else return std::to_string(value);
  }

  void write(std::string& out, Index axis, Index at) const {
    if (axis == x_.rank()) {
      const std::string number = element(at);
      out.append(static_cast<std::size_t>(format_.width) - number.size(), ' ').append(number);
      return;
    }
    const bool innermost = axis + 1 == x_.rank();
    const std::string next = innermost ? ", "  // as many line breaks as axes end, then below the bracket
                                       : "," + std::string(static_cast<std::size_t>(x_.rank() - axis - 1), '\n') +
                                             std::string(static_cast<std::size_t>(axis + 1), ' ');
    const Index n = x_.shape()[axis];
    out += '[';
    for (Index i = 0; i < n; ++i) {
      if (i > 0) out += next;
      if (n > 2 * edge && i == edge) {
        out += "..." + next;
        i = n - edge;
      }
      write(out, axis + 1, at + i * x_.strides()[axis]);
    }
    out += ']';
  }

  const Tensor<T, cpu>& x_;
  NumberFormat format_;
};

}  // namespace detail

/// "float (2, 2)\n[[ 1.0, -2.5],\n [ 3.0,  4.0]]": type, shape and rows. Numbers have at most four digits after the point; an axis of
/// more than 6 shows its first and last 3.
template <class T>
std::string to_string(const Tensor<T, cpu>& x) {
  if (!x.defined()) return "tensor without a value";
  const std::string head = std::string(dtype_name<T>) + " " + to_string(x.shape());
  if (!x.storage()->available()) return head + " that is not in memory";
  return head + "\n" + detail::Printer<T>(x).text();
}

/// The same of a tensor that is elsewhere.
template <class T, class D>
std::string to_string(const Tensor<T, D>& x) {
  if (!x.defined() || !x.storage()->available()) return to_string(Tensor<T, cpu>());
  return to_string(from_vector<T, cpu>(x.to_vector(), x.shape()));
}

template <class Traits, class T, class D>
std::basic_ostream<char, Traits>& operator<<(std::basic_ostream<char, Traits>& out, const Tensor<T, D>& x) {
  return out << to_string(x);
}

}  // namespace weft::inline WEFT_ABI
