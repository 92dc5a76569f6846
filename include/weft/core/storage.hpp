// The counted block of memory that tensors share.
#pragma once

#include <cassert>
#include <utility>

#include "weft/core/allocator.hpp"

namespace weft::inline WEFT_ABI {

/// A counting pointer to an object that lives in a block of the caching allocator. The count is plain: a handle lives on
/// its rank's thread.
template <class T>
class Ref {
 public:
  Ref() = default;
  Ref(std::nullptr_t) {}
  Ref(const Ref& other) : object_(other.object_) { if (object_ != nullptr) ++object_->refs; }
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref other) noexcept { std::swap(object_, other.object_); return *this; }
  ~Ref() { if (object_ != nullptr && --object_->refs == 0) destroy(); }

  template <class... Args>
  static Ref make(Args&&... args) {
    Allocator& allocator = Allocator::mine();
    Ref ref;
    void* block = allocator.allocate(sizeof(T));
    try {
      ref.object_ = ::new (block) T(std::forward<Args>(args)...);
    } catch (...) {
      allocator.release(block, sizeof(T));
      throw;
    }
    ref.object_->refs = 1;
    ref.object_->home = &allocator;
    return ref;
  }

  T* get() const { return object_; }
  T* operator->() const { return object_; }
  T& operator*() const { return *object_; }
  explicit operator bool() const { return object_ != nullptr; }
  friend bool operator==(const Ref& a, const Ref& b) { return a.object_ == b.object_; }

 private:
  WEFT_OUTLINE void destroy() {
    Allocator* home = object_->home;
    object_->~T();
    home->release(object_, sizeof(T));
  }
  T* object_ = nullptr;
};

/// What Ref counts with.
struct Counted {
  Index refs = 0;
  Allocator* home = nullptr;
};

struct Storage;

/// Fills a block when somebody first wants its elements.
struct Deferred {
  int depth = 1;  ///< of the longest chain of what is deferred that it reads

  Deferred() = default;
  Deferred(const Deferred&) = delete;
  Deferred& operator=(const Deferred&) = delete;
  virtual ~Deferred() = default;
  virtual void fill(const Ref<Storage>& block) = 0;
  static void* operator new(std::size_t bytes) { return Allocator::mine().allocate(bytes); }
  static void operator delete(void* data, std::size_t bytes) { Allocator::mine().release(data, bytes); }
};

/// A block of memory on one device that handles share. It may be dropped and materialised again while handles live, of its own or as
/// a window of another block.
struct Storage : Counted {
  std::size_t bytes = 0;
  void* data = nullptr;           ///< null while dropped
  Memory& (*source)();            ///< memory_of the device
  Memory* memory = nullptr;       ///< where data came from
  Ref<Storage> whole;             ///< the block that this one is a window of, or null
  Deferred* deferred = nullptr;   ///< what fills it, where its elements were not wanted yet; owned
  std::uint64_t version = 0;      ///< counts writes in place
  Where written;                  ///< the last of them

  Storage(std::size_t size, bool allocate_now, Memory& (*from)() = memory_of<cpu>) : bytes(size), source(from) {
    if (allocate_now) materialise();
  }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  ~Storage() {
    forget();
    drop();
  }

  /// True iff the elements can be had: they are there, or will be when asked for.
  bool available() const { return data != nullptr || deferred != nullptr; }
  /// Makes what was deferred. Where that fails it stays deferred.
  WEFT_OUTLINE static void fill(const Ref<Storage>& block) {
    block->materialise();
    try {
      block->deferred->fill(block);
    } catch (...) {
      block->drop();
      throw;
    }
    block->forget();
  }
  /// Nobody will want what was deferred.
  void forget() { delete std::exchange(deferred, nullptr); }

  void materialise() {
    if (data != nullptr) return;
    memory = &source();
    data = memory->allocate(bytes);
  }
  /// Becomes the window of `block` that begins `offset` bytes into it; what it held is dropped.
  void lend(Ref<Storage> block, std::size_t offset) {
    assert(block->data != nullptr && offset + bytes <= block->bytes);
    drop();
    data = static_cast<std::byte*>(block->data) + offset;
    whole = std::move(block);
  }
  void drop() {
    if (data != nullptr && !whole) memory->release(data, bytes);
    whole = {};
    data = nullptr;
  }
  void touch(Where where) {
    ++version;
    written = where;
  }
};

/// A new block on a device.
template <class D>
Ref<Storage> new_storage(std::size_t bytes, bool allocate_now = true) { return Ref<Storage>::make(bytes, allocate_now, memory_of<D>); }

}  // namespace weft::inline WEFT_ABI
