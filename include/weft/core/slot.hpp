// A gradient's identity: where the gradient of a tensor gathers. It is not the tensor, so a backward that only writes a
// gradient keeps no activation alive. Views write into their root's buffer; nothing is zeroed that will be assigned.
#pragma once

#include <limits>
#include <memory>

#include "weft/core/dtype.hpp"
#include "weft/core/shape.hpp"
#include "weft/core/storage.hpp"

namespace weft::inline WEFT_ABI {

struct Slot;

/// Who owns the gradients of parameters: an optimizer. It chooses their memory; the tape tells it when a parameter's last gradient
/// of the backward has arrived, and when the backward has ended.
struct Sink {
  virtual ~Sink() = default;
  /// Where a gradient of so many bytes goes that nothing was written to yet; null: anywhere.
  virtual Ref<Storage> place(Slot&, std::size_t) { return {}; }
  virtual void ready(Slot& slot) noexcept = 0;
  /// Called soon after `ready`; here it may act, and throw.
  virtual void advance() {}
  /// Called once after each backward in which `place` was; `whole` is false where it ended with an exception.
  virtual void backward_ended(bool whole) { static_cast<void>(whole); }
};

/// A function that sees a gradient once it is complete.
struct GradientHook {
  GradientHook() = default;
  GradientHook(const GradientHook&) = delete;
  GradientHook& operator=(const GradientHook&) = delete;
  virtual ~GradientHook() { delete next; }
  virtual void run(Slot& root) = 0;
  GradientHook* next = nullptr;  ///< owned
};

/// The disjoint parts that one `split` cut a gradient buffer into; each is assigned once, and what nobody assigned is
/// zeroed when the gradient is needed.
struct Parts : Counted {
  static constexpr Index max = 16;
  struct Part {
    Shape shape;
    Strides strides;
    Index offset = 0;
    bool written = false;
  };
  Index count = 0;
  Part part[max];
};

/// How the output of a cheap op is made again from what its own backward keeps, so that ops which read it in their backward need not
/// keep it (tape/grad.hpp).
struct Recipe {
  const Storage* output = nullptr;  ///< what it makes, and its version as it was made: a later write in place is no part of it
  std::uint64_t version = 0;
  Ref<Storage> again;               ///< made, for all that read it

  Recipe() = default;
  Recipe(const Recipe&) = delete;
  Recipe& operator=(const Recipe&) = delete;
  virtual ~Recipe() = default;
  /// False where an input is not in memory, such as a parameter of another part of the model under ZeRO 3.
  virtual bool possible() const = 0;
  virtual void make() = 0;  ///< fills `again`
  static void* operator new(std::size_t bytes) { return Allocator::mine().allocate(bytes); }
  static void operator delete(void* data, std::size_t bytes) { Allocator::mine().release(data, bytes); }
};

struct Slot : Counted {
  Ref<Slot> root;            ///< of a view; null: this is a root
  Ref<Parts> parts;          ///< the split that this slot is all of one part of
  int part = 0;
  Dtype dtype = Dtype::f32;  ///< of the gradient
  bool covers = true;        ///< true iff every element of the root's gradient is one of this one's

  // Of roots.
  bool leaf = false;         ///< true iff no op made the tensor, so that the gradient stays for a user or an optimizer
  bool inside = false;       ///< true iff a checkpoint's first pass made it
  bool claimed = false;      ///< an op has made a gradient ahead of the backward, in the place that the sink gave
  int pending = 0;           ///< writes that are recorded and have not run
  std::uint64_t tape = 0;    ///< the serial number of the tape that recorded it
  Ref<Storage> buffer;       ///< null: nothing was written yet
  Ref<Parts> assigned;       ///< not null: only these parts of the buffer hold something
  Sink* sink = nullptr;
  const std::string* name = nullptr;  ///< a parameter's path
  GradientHook* hooks = nullptr;      ///< owned
  std::unique_ptr<Recipe> recipe;     ///< of the tensor, until its op's backward has run

  // Where its gradient lies in the root's buffer.
  Index offset = 0;
  Shape shape;
  Strides strides;

  Slot(Dtype type, const Shape& extents, const Strides& layout) : dtype(type), shape(extents), strides(layout) {}
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;
  ~Slot() { delete hooks; }

  Slot& base() { return root ? *root : *this; }
  void clear() {
    buffer = nullptr;
    assigned = nullptr;
  }
};

/// Strides of a new dense block whose axes are in memory in the order of `strides`: every view of the old layout is one of
/// the new.
inline Strides dense_like(const Shape& shape, const Strides& strides) {
  if (is_contiguous(shape, strides)) return row_major(shape);
  Strides dense = strides;
  bool done[max_rank] = {};
  Index step = 1;
  const auto slow = [&](Index a) { return strides[a] > 0 ? strides[a] : std::numeric_limits<Index>::max(); };  // repeated: outermost
  for (Index n = 0; n < shape.rank(); ++n) {
    Index fastest = -1;
    for (Index a = shape.rank() - 1; a >= 0; --a)
      if (!done[a] && (fastest < 0 || slow(a) < slow(fastest))) fastest = a;
    done[fastest] = true;
    dense[fastest] = step;
    step *= shape[fastest] > 0 ? shape[fastest] : 1;
  }
  return dense;
}

}  // namespace weft::inline WEFT_ABI
