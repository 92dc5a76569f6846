// A loss is a list of terms, each a sum, a count and a weight: its value divides each sum by its own count, a tape by the
// count of the whole step, so that cutting a batch into micro-batches changes no normaliser.
#pragma once

#include <span>
#include <type_traits>

#include "weft/tape/grad.hpp"

namespace weft::inline WEFT_ABI {

inline constexpr std::size_t max_loss_terms = 8;

/// What a sum ran over: a number, or one that the GPU has counted, which the host reads where it asks.
template <class D>
class Count {
 public:
  Count(double number) : number_(number) {}
  Count(Tensor<double, D> counted) : counted_(std::move(counted)) {}
  operator double() const { return counted_.defined() ? counted_.item() : number_; }
  /// Undefined where it is a number.
  const Tensor<double, D>& counted() const { return counted_; }

 private:
  double number_ = 0;
  Tensor<double, D> counted_;
};

template <class T, class D>
class Loss {
 public:
  struct Term {
    Tensor<T, D> sum;              // ()
    Count<D> count = 1;            ///< what the sum ran over in this micro-batch, such as labels
    double weight = 1;
    bool per_micro_batch = false;  ///< defined for each micro-batch and averaged over them, such as a load balance
    const char* name = "loss";
  };

  Loss() = default;
  Loss(Tensor<T, D> sum, std::type_identity_t<Count<D>> count, const char* name = "loss") { add({std::move(sum), std::move(count), 1, false, name}); }

  void add(Term term) {
    if (size_ == max_loss_terms) fail<ValueError>("loss", "expected at most 8 terms", here());
    terms_[size_++] = std::move(term);
  }
  std::span<const Term> terms() const { return {terms_, size_}; }

  /// The sum over terms of weight * sum / count.
  double value() const {
    double total = 0;
    for (const Term& t : terms()) {
      const double count = t.count;
      total += t.weight * static_cast<double>(t.sum.item()) / (count > 0 ? count : 1);
    }
    return total;
  }
  friend Loss operator+(Loss a, const Loss& b) {
    for (const Term& t : b.terms()) a.add(t);
    return a;
  }

 private:
  Term terms_[max_loss_terms];
  std::size_t size_ = 0;
};

}  // namespace weft::inline WEFT_ABI
