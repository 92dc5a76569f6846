// The tape: a list of what was done, walked in reverse. Each record is an op's name, the caller's place and a closure that
// holds only what the gradient needs; it is destroyed right after it ran, so activations are freed as early as they can be.
#pragma once

#include <array>
#include <cmath>
#include <vector>

#include "weft/tape/loss.hpp"

namespace weft::inline WEFT_ABI {

/// What a step's random numbers and normalisers depend on. Micro-batch `micro` of `micros`; `counts[i]` is what term i of the
/// loss runs over in the whole step and over all ranks, such as its labels (0: the loss's own count).
struct Key {
  std::uint64_t seed = 0;
  Index step = 0;
  Index micro = 0;
  Index micros = 1;
  std::array<double, max_loss_terms> counts = {};
};

/// One recorded op, as an audit sees it: what it read that wants a gradient, and what it made.
struct AuditEdge {
  const char* op;
  Where where;
  Scope scope;
  std::vector<Ref<Slot>> inputs, outputs;
};

struct TapeOptions {
  bool check = false;      ///< every op's output and gradient must be finite, else NumericError names the op
  double loss_scale = 1;   ///< gradients are multiplied by it, and AdamW divides by it: what keeps those of f16 in range (optim::LossScale)
  std::vector<AuditEdge>* audit = nullptr;  ///< every record is noted there too
  bool recompute = false;  ///< a checkpoint's own, inside a backward
};

/// Records on this thread while it lives; the innermost of nested tapes records. Runs backward once.
class Tape {
 public:
  explicit Tape(Key key = {}, TapeOptions options = {}, Where where = here())
      : key_(key), options_(options), where_(where), outer_(tape_state().tape), serial_(++serials()) {
    if (tape_state().in_backward && !options.recompute)
      fail<TapeError>("tape", "expected no new tape inside a backward: gradients are first order", where);
    if (!(options.loss_scale > 0 && std::isfinite(options.loss_scale)))
      fail<ValueError>("tape", "expected a finite loss_scale above 0, got " + std::to_string(options.loss_scale), where);
    tape_state().tape = this;
  }
  ~Tape() {
    end();
    while (last_ != nullptr) pop();
    for (Chunk* c = chunks_; c != nullptr;) {
      Chunk* before = c->before;
      Allocator::mine().release(c, chunk_bytes);
      c = before;
    }
  }
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// The tape that records now on this thread, or null.
  static Tape* recording() {
    const TapeState& s = tape_state();
    if (s.paused || s.tape == nullptr || (s.in_backward && !s.tape->options_.recompute)) return nullptr;
    return s.tape;
  }

  const Key& key() const { return key_; }
  const TapeOptions& options() const { return options_; }
  Where where() const { return where_; }
  std::uint64_t serial() const { return serial_; }
  Index records() const { return records_; }
  /// True iff a gradient of x on this tape would arrive.
  bool reaches(const Slot& slot) const { return slot.leaf || slot.tape == serial_ || options_.recompute; }

  /// Adds a record; `backward()` runs in the reverse walk.
  template <class F>
  void record(const char* op, Where where, F&& backward) {
    using R = Closure<std::decay_t<F>>;
    static_assert(sizeof(R) <= chunk_bytes - sizeof(Chunk), "weft: a backward closure holds too much; save tensors, not arrays");
    void* memory = reserve(sizeof(R));
    last_ = ::new (memory) R({last_, op, where, current_scope(), [](Record* self) { static_cast<R*>(self)->backward(); },
                              [](Record* self) { static_cast<R*>(self)->~R(); }, used_before_, chunk_before_},
                             std::forward<F>(backward));
    ++records_;
  }

  /// Gradients of a loss: each term's sum is divided by its count of the whole step (the key's, else its own).
  template <class T, class D>
  void backward(const Loss<T, D>& loss, Where where = here()) {
    check_can_run(where);
    bool reached = false;
    for (std::size_t i = 0; i < loss.terms().size(); ++i) {
      const auto& term = loss.terms()[i];
      if (term.count.counted().defined() && !term.per_micro_batch && !(key_.counts[i] > 0)) reached |= seed(term.sum, term.weight * options_.loss_scale, term.count.counted());
      else reached |= seed(term.sum, term.weight * options_.loss_scale / denominator(term, key_.counts[i]));
    }
    if (!reached) nothing_reached(where);
    run();
  }
  /// Gradients of one element. Of f16 a loss_scale from 65,520 on is infinite: cast it to float first. Throws TapeError where it does not depend on anything that wants a gradient, or where this
  /// tape has run already.
  template <class T, class D>
  void backward(const Tensor<T, D>& y, Where where = here()) {
    check_can_run(where);
    if (y.numel() != 1)
      fail<ShapeError>("backward", "expected a loss of one element, got shape " + to_string(y.shape()), where,
                       "reduce it first, for instance mean(loss)");
    if (!seed(y, options_.loss_scale)) nothing_reached(where);
    run();
  }
  /// Gradients of y weighted by dy: the product of dy with the Jacobian. dy holds the loss's scale, which may so be no option.
  template <class T, class D>
  void backward(const Tensor<T, D>& y, const Tensor<T, D>& dy, Where where = here()) {
    check_can_run(where);
    if (!(y.shape() == dy.shape()))
      fail<ShapeError>("backward", "expected dy of y's shape " + to_string(y.shape()) + ", got " + to_string(dy.shape()), where);
    if (options_.loss_scale != 1 && !options_.recompute)
      fail<ValueError>("backward", "expected a loss_scale of 1 where dy is given, got " + std::to_string(options_.loss_scale), where, "multiply dy, and divide the gradients");
    if (!y.slot() || !reaches(y.slot()->base())) nothing_reached(where);
    Grad<T, D>(y.slot()).take(dy);
    run();
  }

  /// How often this module path asked for random numbers on this tape, and counts the call.
  Index next_ordinal(const std::string* path) {
    for (auto& [p, n] : ordinals_)
      if (p == path) return n++;
    ordinals_.emplace_back(path, 1);
    return 0;
  }
  using Ordinals = CachedVector<std::pair<const std::string*, Index>>;
  const Ordinals& ordinals() const { return ordinals_; }
  void set_ordinals(Ordinals ordinals) { ordinals_ = std::move(ordinals); }

  /// An optimizer says that a step ended. Throws TapeError where a tape on this thread recorded through two steps without
  /// running: it would grow for ever.
  static void step_ended() {
    for (Tape* t = tape_state().tape; t != nullptr; t = t->outer_)
      if (t->records_ > 0 && ++t->steps_ > 1)
        fail<TapeError>("tape", "expected a tape to end with its step, but one lives through its second with " +
                                    std::to_string(t->records_) + " records, and grows from step to step", t->where_,
                        "make the tape inside the loop, and run its backward, or delete it");
  }

 private:
  static constexpr std::size_t chunk_bytes = std::size_t{64} << 10;
  struct Chunk {
    Chunk* before;
  };
  struct Record {
    Record* before;
    const char* op;
    Where where;
    Scope scope;
    void (*run)(Record*);
    void (*destroy)(Record*);
    std::size_t used_before;
    Chunk* chunk_before;
  };
  template <class F>
  struct Closure : Record {
    F backward;
    template <class G>
    Closure(const Record& head, G&& f) : Record(head), backward(std::forward<G>(f)) {}
  };

  static std::uint64_t& serials() {
    thread_local std::uint64_t count = 0;
    return count;
  }

  void* reserve(std::size_t bytes) {
    used_before_ = used_;
    chunk_before_ = chunks_;
    bytes = (bytes + 15) / 16 * 16;
    if (chunks_ == nullptr || used_ + bytes > chunk_bytes) {
      chunks_ = ::new (Allocator::mine().allocate(chunk_bytes)) Chunk{chunks_};
      used_ = (sizeof(Chunk) + 15) / 16 * 16;
    }
    void* memory = reinterpret_cast<std::byte*>(chunks_) + used_;
    used_ += bytes;
    return memory;
  }
  void pop() {
    Record* r = last_;
    last_ = r->before;
    const std::size_t used = r->used_before;
    Chunk* chunk = r->chunk_before;
    r->destroy(r);
    while (chunks_ != chunk && chunk != nullptr) {
      Chunk* before = chunks_->before;
      Allocator::mine().release(chunks_, chunk_bytes);
      chunks_ = before;
    }
    used_ = used;
  }

  void run() {
    end();  // nothing records after this, nor from inside
    if (!tape_state().in_backward) tape_state().loss_scale = options_.loss_scale;
    struct Running {
      bool before = std::exchange(tape_state().in_backward, true), whole = false;
      Scope scope = current_scope();
      /// Tells the sinks, unless this is a checkpoint's inside.
      void tell_sinks() {
        while (!before && !tape_state().sinks.empty()) {
          Sink* const sink = tape_state().sinks.back();
          tape_state().sinks.pop_back();
          sink->backward_ended(whole);
        }
      }
      ~Running() {
        if (!whole) tell_sinks();
        tape_state().in_backward = before;
        current_scope() = scope;
      }
    } running;
    while (last_ != nullptr) {
      current_scope() = last_->scope;
      try {
        last_->run(last_);
      } catch (Error& error) {
        const Where line = users_line(last_->where, last_->scope);
        error.append("\n  in the backward of [" + std::string(last_->op) + "], recorded at " + line.file + ":" +
                     std::to_string(line.line) + (last_->scope.path != nullptr ? " in " + *last_->scope.path : ""));
        throw;
      }
      pop();
      if (std::exchange(tape_state().any_ready, false))
        for (Sink* sink : tape_state().sinks) sink->advance();
    }
    running.whole = true;
    running.tell_sinks();
  }

  void end() {
    if (ended_) return;
    ended_ = true;
    for (Tape** t = &tape_state().tape; *t != nullptr; t = &(*t)->outer_)
      if (*t == this) {
        *t = outer_;
        break;
      }
  }

  void check_can_run(Where where) {
    if (ended_)
      throw TapeError(error_text("backward", "expected a tape that has not run yet; this one was made at " +
                                                 std::string(where_.file) + ":" + std::to_string(where_.line) + " and has run", where,
                                 "make one tape a step, inside the loop"));
  }
  [[noreturn]] void nothing_reached(Where where) const {
    fail<TapeError>("backward", "expected a loss that depends, through ops recorded on this tape, on a tensor that wants a gradient; "
                                "this one depends on none (" + std::to_string(records_) + " records)", where,
                    "make the tape before the forward, call require_grad() on leaves, and see audit(model, loss)");
  }
  template <class Term>
  double denominator(const Term& term, double count) const {
    if (term.per_micro_batch) return static_cast<double>(key_.micros);
    if (count > 0) return count;
    const double own = term.count;
    return own > 0 ? own : 1;
  }
  /// y's gradient is value or, where something was counted, value / max(counted, 1).
  template <class T, class D>
  bool seed(const Tensor<T, D>& y, double value, const Tensor<double, D>& counted = {}) {
    if (!y.slot() || !reaches(y.slot()->base())) return false;
    Tensor<T, D> dy(y.shape());
    if (counted.defined()) kernels::map<kernels::DivScalarByCount, T, double>(D{}, {value}, dy, counted);
    else kernels::fill<T>(D{}, static_cast<T>(static_cast<stat_t<T>>(value)), dy);
    Grad<T, D>(y.slot()).take(dy);
    return true;
  }

  Key key_;
  TapeOptions options_;
  Where where_;
  Tape* outer_;
  std::uint64_t serial_;
  bool ended_ = false;
  Record* last_ = nullptr;
  Chunk* chunks_ = nullptr;
  std::size_t used_ = chunk_bytes, used_before_ = 0;
  Chunk* chunk_before_ = nullptr;
  Index records_ = 0;
  Index steps_ = 0;
  Ordinals ordinals_;
};

}  // namespace weft::inline WEFT_ABI
