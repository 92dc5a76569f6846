// Collectives in flight over a transport: each is an exchange of messages, and what follows it on this rank. A collective moves on
// whenever the rank is in a call of its communicator.
#pragma once

#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <vector>

#include "weft/comm/transport.hpp"
#include "weft/comm/reach.hpp"

namespace weft::inline WEFT_ABI {

namespace comm {

/// One collective in flight on this rank.
struct Operation : FromCache {
  Call call;
  Where where;
  const Reach* reach = nullptr;  ///< of its memory
  Reduce how = Reduce::sum;
  const std::byte* in = nullptr;
  std::byte* out = nullptr;
  std::size_t element = 1;  ///< bytes
  Ref<Storage> scratch;
  std::vector<std::unique_ptr<Transfer>, CachedAllocator<std::unique_ptr<Transfer>>> transfers;
  bool started = false, done = false;
};

/// The collectives of one communicator on this rank.
class Engine {
 public:
  static constexpr std::size_t small = 4096;  ///< bytes that are not worth a second exchange

  explicit Engine(std::unique_ptr<Transport> transport) : transport_(std::move(transport)) {}

  Transport* transport() const { return transport_.get(); }  ///< null: one rank
  int rank() const { return transport_ ? transport_->rank() : 0; }
  int size() const { return transport_ ? transport_->size() : 1; }
  std::size_t received() const { return received_; }

  // What a collective is made of.
  static std::byte* part(Operation& op, int peer, std::size_t each) { return static_cast<std::byte*>(op.scratch->data) + static_cast<std::size_t>(peer) * each; }
  /// Where rank r's part of n elements begins, and its size.
  Index share(Index n) const { return (n + size() - 1) / size(); }
  std::pair<Index, Index> cut(Index n, int r) const {
    const Index begin = std::min(n, share(n) * r);
    return {begin, std::min(n, begin + share(n)) - begin};
  }

  void send(Operation& op, int peer, const std::byte* from, std::size_t n, int channel = 0) {
    Transfer& t = add(op, peer, n, channel);
    t.from = from;
  }
  void receive(Operation& op, int peer, std::byte* to, std::size_t n, int channel = 0) {
    Transfer& t = add(op, peer, n, channel);
    t.to = to != nullptr ? to : &nowhere_;
    received_ += n;
  }

  /// Begins it. Throws CommError.
  void launch(Operation& op) {
    try {
      named(op, [&] {
        if (failed_) throw CommError(*failed_);
        in_flight_.push_back(&op);
        start_those_due();
        progress();
      });
    } catch (...) {
      abandon(op);
      throw;
    }
  }
  /// Returns when it is done. Throws CommError.
  void wait(Operation& op) {
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    named(op, [&] {
      while (!op.done) {
        if (failed_) throw CommError(*failed_);
        if (progress() || op.done) continue;
        if (std::chrono::duration<double>(Clock::now() - begin).count() > transport_->deadline()) throw CommError(late(op));
        transport_->pause();
      }
    });
  }
  /// Nothing touches the operation's memory after this.
  void abandon(const Operation& op) noexcept {
    std::erase(in_flight_, &op);
    for (const auto& t : op.transfers)
      if (!t->done.load(std::memory_order_acquire)) transport_->withdraw(*t);
  }
  /// Lets go of a collective that nobody will wait for.
  void drop(Operation& op) noexcept {
    try {
      if (std::uncaught_exceptions() == 0) wait(op);
      else if (!op.done && !failed_) failed_ = "[ranks] this rank left " + to_string(op.call) + " by an exception";
    } catch (...) {
    }
    abandon(op);
  }

 private:
  Transfer& add(Operation& op, int peer, std::size_t n, int channel) {
    Transfer& t = *op.transfers.emplace_back(std::make_unique<Transfer>());
    t.peer = peer, t.channel = channel, t.call = op.call, t.bytes = n, t.reach = op.reach;
    return t;
  }
  /// Runs f; a failure names the collective that met it, and ends this communicator.
  template <class F>
  void named(const Operation& op, F&& f) {
    try {
      f();
    } catch (const CommError& error) {
      if (!failed_) failed_ = error.what();
      std::string text = error.what();
      text += "\n  in " + to_string(op.call) + " of rank " + std::to_string(rank());
      if (op.where.line != 0) text += std::string(" at ") + op.where.file + ":" + std::to_string(op.where.line);
      throw CommError(text);
    } catch (const Error& error) {  // of a device
      if (!failed_) failed_ = error.what();
      throw;
    }
  }
  /// True iff nothing of it is still to be started.
  bool last_stage(const Operation& op) const {
    const bool two = op.call.kind == Collective::all_reduce && size() > 1 && static_cast<std::size_t>(op.call.count) * op.element > small;
    return op.started && op.call.stage == (two ? 1 : 0);
  }
  /// In stream order a collective begins after all stages of those before it have; other transports match messages by number.
  void start_those_due() {
    const bool ordered = transport_ && transport_->in_stream_order();
    bool due = true;
    for (Operation* op : in_flight_) {
      const bool pair = op->call.kind == Collective::send;  // in its pair's order alone
      if (!op->started && (due || pair)) start(*op);
      due = due && (!ordered || pair || last_stage(*op));
    }
  }
  void start(Operation& op) {
    op.started = true;
    if (!op.transfers.empty() && !transport_->in_stream_order()) op.reach->settle();
    for (const auto& t : op.transfers)
      if (t->to == nullptr) transport_->send(*t);
      else transport_->receive(*t);
  }
  /// Moves every collective in flight as far as it goes. True iff something moved.
  bool progress() {
    bool moved = transport_ && transport_->advance();
    for (std::size_t i = 0; i < in_flight_.size();) {
      Operation& op = *in_flight_[i];
      bool all = true;
      for (const auto& t : op.transfers) all = all && t->done.load(std::memory_order_acquire);
      if (all && next_stage(op)) {
        in_flight_.erase(in_flight_.begin() + static_cast<std::ptrdiff_t>(i));
        moved = true;
      } else {
        ++i;
      }
    }
    start_those_due();
    return moved;
  }
  /// Does what follows the exchange; true where nothing is left.
  bool next_stage(Operation& op) {
    const auto n = static_cast<std::size_t>(op.call.count) * op.element;
    switch (op.call.kind) {
      case Collective::all_reduce:
        if (op.call.stage == 0) {
          if (n <= small) {
            reduce(op, op.in, n, op.out, op.call.count);
          } else {
            const auto [begin, count] = cut(op.call.count, rank());
            std::byte* const mine = op.out + static_cast<std::size_t>(begin) * op.element;
            reduce(op, mine, static_cast<std::size_t>(share(op.call.count)) * op.element, mine, count);
            if (size() > 1) {
              op.transfers.clear();
              op.call.stage = 1;
              for (int peer = 0; peer < size(); ++peer) {
                if (peer == rank()) continue;
                const auto [theirs, their_count] = cut(op.call.count, peer);
                send(op, peer, mine, static_cast<std::size_t>(count) * op.element);
                receive(op, peer, op.out + static_cast<std::size_t>(theirs) * op.element, static_cast<std::size_t>(their_count) * op.element);
              }
              start(op);
              return false;
            }
          }
        }
        break;
      case Collective::reduce_scatter: reduce(op, op.in + static_cast<std::size_t>(rank()) * n, n, op.out, op.call.count); break;
      case Collective::all_gather: op.reach->copy(op.out + static_cast<std::size_t>(rank()) * n, op.in, n); break;
      case Collective::all_to_all: {
        const std::size_t each = n / static_cast<std::size_t>(size()), own = each * static_cast<std::size_t>(rank());
        op.reach->copy(op.out + own, op.in + own, each);
        break;
      }
      default: break;
    }
    op.done = true;
    return true;
  }

  /// out = the tree over ranks of `mine` and the parts in scratch.
  void reduce(Operation& op, const std::byte* mine, std::size_t each, std::byte* out, Index count) {
    std::vector<const void*, CachedAllocator<const void*>> arrays;
    for (int r = 0; r < size(); ++r) arrays.push_back(r == rank() ? mine : part(op, r, each));
    op.reach->reduce(op.call.dtype, op.how, arrays.data(), size(), out, count);
  }

  std::string late(const Operation& op) const {
    std::string ranks;
    for (int peer = 0; peer < size(); ++peer)
      for (const auto& t : op.transfers)
        if (t->peer == peer && !t->done.load(std::memory_order_acquire)) {
          ranks += (ranks.empty() ? "" : ", ") + std::to_string(peer);
          break;
        }
    return "[" + std::string(name(op.call.kind)) + "] expected every rank to arrive at " + to_string(op.call) + " within " +
           std::to_string(static_cast<long>(transport_->deadline())) + " s, still waiting for rank " + ranks;
  }

  std::unique_ptr<Transport> transport_;
  std::vector<Operation*> in_flight_;
  std::size_t received_ = 0;
  std::byte nowhere_{};
  std::optional<std::string> failed_;
};

}  // namespace comm

/// A collective that runs while its caller goes on. The memory that it reads and writes must stay, and not be touched, until wait().
class [[nodiscard]] Handle {
 public:
  Handle() = default;
  Handle(comm::Engine* owner, std::unique_ptr<comm::Operation> operation) : owner_(owner), operation_(std::move(operation)) {}
  Handle(Handle&&) = default;
  Handle& operator=(Handle&& other) {
    wait();
    owner_ = other.owner_, operation_ = std::move(other.operation_);
    return *this;
  }
  ~Handle() { drop(); }
  /// Waits, but not where an exception is on its way: then the collective is given up, and with it the communicator.
  void drop() noexcept;
  /// Returns when this rank's part is done; throws CommError. Does nothing the second time.
  void wait();

 private:
  comm::Engine* owner_ = nullptr;
  std::unique_ptr<comm::Operation> operation_;
};

inline void Handle::drop() noexcept {
  if (operation_) owner_->drop(*operation_);
  operation_.reset();
}
inline void Handle::wait() {
  if (!operation_) return;
  struct Release {  // an operation that failed is not waited for again
    Handle& handle;
    ~Release() {
      handle.owner_->abandon(*handle.operation_);
      handle.operation_.reset();
    }
  } release{*this};
  owner_->wait(*operation_);
}

}  // namespace weft::inline WEFT_ABI
