// How bytes get from rank to rank: the little that an engine for processors has to provide. Everything above it, the collectives,
// is the same for all of them, and so are their bits.
#pragma once

#include <atomic>
#include <memory>

#include "weft/comm/call.hpp"
#include "weft/comm/reach.hpp"
#include "weft/core/storage.hpp"

namespace weft::inline WEFT_ABI::comm {

/// What is made and gone in every step lives in the caching allocator.
struct FromCache {
  static void* operator new(std::size_t n) { return Allocator::mine().allocate(n); }
  static void operator delete(void* p, std::size_t n) { Allocator::mine().release(p, n); }
};

/// One message to or from a peer. It meets that of the same pair, channel, number and stage.
struct Transfer : FromCache {
  int peer = 0;
  int channel = 0;  ///< 0: collectives, 1: send and receive
  Call call;
  const std::byte* from = nullptr;  ///< of a message that is sent
  std::byte* to = nullptr;          ///< of one that is received
  std::size_t bytes = 0;
  const Reach* reach = &reach_of<cpu>();  ///< of that memory
  std::atomic<bool> done{false};
  Transfer* next = nullptr;  ///< for the transport's lists
  void* state = nullptr;     ///< for the transport
};

/// Throws CommError where the peer makes another call than this rank.
inline void expect_same(int rank, const Transfer& mine, const Call& theirs) {
  if (theirs == mine.call) return;
  throw CommError("[" + std::string(name(mine.call.kind)) + "] expected every rank to make the same call, but rank " + std::to_string(rank) + " is at " +
                  to_string(mine.call) + " and rank " + std::to_string(mine.peer) + " at " + to_string(theirs) +
                  "\n  hint: all ranks must run the same collectives in the same order, with the same sizes and types");
}

class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// True iff messages may lie in the GPU's memory.
  virtual bool reaches_gpu() const { return false; }
  /// True iff messages in the GPU's memory follow what its stream was asked for before them without the host's waiting, and exchanges of
  /// different collectives have to begin in the same order on all ranks.
  virtual bool in_stream_order() const { return false; }
  /// Start a message; its memory and the Transfer stay where they are until it is done.
  virtual void send(Transfer& transfer) = 0;
  virtual void receive(Transfer& transfer) = 0;
  /// Takes back a message that is not done, after a failure: its memory is not touched from here on.
  virtual void withdraw(Transfer& transfer) noexcept = 0;
  /// Moves what can be moved. True iff something was. Throws CommError where a peer failed or disagrees.
  virtual bool advance() = 0;
  /// Waits until something may have changed, a few milliseconds at most.
  virtual void pause() = 0;
  /// Seconds that an alive peer may let others wait.
  virtual double deadline() const = 0;
  /// Tells the other ranks that this one ends here.
  virtual void fail(const std::string& why) noexcept = 0;
  /// A transport among the ranks `members` (of this one, in order, this rank among them). Every member calls it.
  virtual std::unique_ptr<Transport> among(const int* members, int count) = 0;
};

}  // namespace weft::inline WEFT_ABI::comm
