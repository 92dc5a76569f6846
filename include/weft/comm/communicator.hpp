// Collectives among ranks. What is reduced is summed in one fixed tree over ranks, left child first, whatever carries the bytes:
// the same bits on threads and on processes.
#pragma once

#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "weft/comm/transport.hpp"
#include "weft/comm/tree_reduce.hpp"
#include "weft/core/scratch.hpp"

namespace weft::inline WEFT_ABI {

namespace comm {

/// One collective in flight on this rank.
struct Operation : FromCache {
  Call call;
  Where where;
  Reduce how = Reduce::sum;
  const std::byte* in = nullptr;
  std::byte* out = nullptr;
  std::size_t element = 1;  ///< bytes
  std::optional<Scratch<std::byte>> scratch;
  std::vector<std::unique_ptr<Transfer>, CachedAllocator<std::unique_ptr<Transfer>>> transfers;
  bool done = false;
};

}  // namespace comm

class Communicator;

/// A collective that runs while its caller goes on. The memory that it reads and writes must stay, and not be touched, until wait().
class [[nodiscard]] Handle {
 public:
  Handle() = default;
  Handle(Communicator* owner, std::unique_ptr<comm::Operation> operation) : owner_(owner), operation_(std::move(operation)) {}
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
  Communicator* owner_ = nullptr;
  std::unique_ptr<comm::Operation> operation_;
};

/// Ranks that call the same collectives in the same order. Every call exists twice: `all_reduce` returns when it is done,
/// `start_all_reduce` at once, with a Handle. Memory is contiguous. All calls throw CommError: where ranks disagree on a call, where one
/// has failed, or does not arrive before the deadline.
class Communicator {
 public:
  explicit Communicator(std::unique_ptr<comm::Transport> transport) : transport_(std::move(transport)) {}
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return transport_ ? transport_->rank() : 0; }
  int size() const { return transport_ ? transport_->size() : 1; }
  /// Bytes that this rank received from others.
  std::size_t bytes_received() const { return received_; }

  /// x on every rank becomes root's.
  template <class T>
  Handle start_broadcast(std::span<T> x, int root, Where where = here()) {
    check_rank("broadcast", root, where);
    auto op = make<T>(Collective::broadcast, x.size(), where);
    op->call.root = root;
    op->in = bytes(x.data()), op->out = bytes(x.data());
    for (int peer = 0; peer < size(); ++peer)
      if (peer != rank() && rank() == root) send(*op, peer, op->in, x.size_bytes());
    if (rank() != root) receive(*op, root, op->out, x.size_bytes());
    return launch(std::move(op));
  }
  /// x on every rank becomes the sum (or the maximum) of all ranks'.
  template <class T>
  Handle start_all_reduce(std::span<T> x, Reduce how = Reduce::sum, Where where = here()) {
    auto op = make<T>(Collective::all_reduce, x.size(), where);
    op->how = how;
    op->in = bytes(x.data()), op->out = bytes(x.data());
    if (x.size_bytes() <= small) {  // one exchange of everything
      op->scratch.emplace(static_cast<Index>(x.size_bytes()) * size());
      for (int peer = 0; peer < size(); ++peer)
        if (peer != rank()) send(*op, peer, op->in, x.size_bytes()), receive(*op, peer, part(*op, peer, x.size_bytes()), x.size_bytes());
    } else {  // each rank sums its part, then all collect the parts
      op->scratch.emplace(static_cast<Index>(share(static_cast<Index>(x.size())) * sizeof(T)) * size());
      for (int peer = 0; peer < size(); ++peer) {
        if (peer == rank()) continue;
        const auto [theirs, their_count] = cut(static_cast<Index>(x.size()), peer);
        const std::size_t mine = static_cast<std::size_t>(cut(static_cast<Index>(x.size()), rank()).second) * sizeof(T);
        send(*op, peer, op->in + static_cast<std::size_t>(theirs) * sizeof(T), static_cast<std::size_t>(their_count) * sizeof(T));
        receive(*op, peer, part(*op, peer, static_cast<std::size_t>(share(static_cast<Index>(x.size()))) * sizeof(T)), mine);
      }
    }
    return launch(std::move(op));
  }
  /// mine becomes part `rank` of the sum of all ranks' `all`, which holds one part a rank. mine may lie in all.
  template <class T>
  Handle start_reduce_scatter(std::span<const T> all, std::span<T> mine, Where where = here()) {
    check_parts("reduce_scatter", all.size(), mine.size(), where);
    auto op = make<T>(Collective::reduce_scatter, mine.size(), where);
    op->in = bytes(all.data()), op->out = bytes(mine.data());
    op->scratch.emplace(static_cast<Index>(mine.size_bytes()) * size());
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank()) continue;
      send(*op, peer, op->in + static_cast<std::size_t>(peer) * mine.size_bytes(), mine.size_bytes());
      receive(*op, peer, part(*op, peer, mine.size_bytes()), mine.size_bytes());
    }
    return launch(std::move(op));
  }
  /// all becomes every rank's `mine`, in the order of ranks. mine may be its own part of all.
  template <class T>
  Handle start_all_gather(std::span<const T> mine, std::span<T> all, Where where = here()) {
    check_parts("all_gather", all.size(), mine.size(), where);
    auto op = make<T>(Collective::all_gather, mine.size(), where);
    op->in = bytes(mine.data()), op->out = bytes(all.data());
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank()) continue;
      send(*op, peer, op->in, mine.size_bytes());
      receive(*op, peer, op->out + static_cast<std::size_t>(peer) * mine.size_bytes(), mine.size_bytes());
    }
    return launch(std::move(op));
  }
  /// Part r of `out` goes to rank r, part r of `in` comes from it.
  template <class T>
  Handle start_all_to_all(std::span<const T> out, std::span<T> in, Where where = here()) {
    if (out.size() != in.size() || out.size() % static_cast<std::size_t>(size()) != 0)
      weft::fail<CommError>("all_to_all", "expected two spans of one part a rank, got " + std::to_string(out.size()) + " and " + std::to_string(in.size()) +
                                              " elements on " + std::to_string(size()) + " ranks", where);
    const std::size_t each = out.size_bytes() / static_cast<std::size_t>(size());
    auto op = make<T>(Collective::all_to_all, out.size(), where);
    op->in = bytes(out.data()), op->out = bytes(in.data());
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank()) continue;
      send(*op, peer, op->in + static_cast<std::size_t>(peer) * each, each);
      receive(*op, peer, op->out + static_cast<std::size_t>(peer) * each, each);
    }
    return launch(std::move(op));
  }
  /// To and from one other rank. A pair's messages arrive in order.
  template <class T>
  Handle start_send(std::span<const T> x, int to, Where where = here()) {
    check_peer(to, where);
    auto op = make<T>(Collective::send, x.size(), where, 1);
    op->call.number = ++sent_[static_cast<std::size_t>(to)];
    send(*op, to, bytes(x.data()), x.size_bytes(), 1);
    return launch(std::move(op));
  }
  template <class T>
  Handle start_receive(std::span<T> x, int from, Where where = here()) {
    check_peer(from, where);
    auto op = make<T>(Collective::send, x.size(), where, 1);
    op->call.number = ++got_[static_cast<std::size_t>(from)];
    receive(*op, from, bytes(x.data()), x.size_bytes(), 1);
    return launch(std::move(op));
  }

  template <class T> void broadcast(std::span<T> x, int root, Where where = here()) { start_broadcast(x, root, where).wait(); }
  template <class T> void all_reduce(std::span<T> x, Reduce how = Reduce::sum, Where where = here()) { start_all_reduce(x, how, where).wait(); }
  template <class T> void reduce_scatter(std::span<const T> all, std::span<T> mine, Where where = here()) { start_reduce_scatter(all, mine, where).wait(); }
  template <class T> void all_gather(std::span<const T> mine, std::span<T> all, Where where = here()) { start_all_gather(mine, all, where).wait(); }
  template <class T> void all_to_all(std::span<const T> out, std::span<T> in, Where where = here()) { start_all_to_all(out, in, where).wait(); }
  template <class T> void send(std::span<const T> x, int to, Where where = here()) { start_send(x, to, where).wait(); }
  template <class T> void receive(std::span<T> x, int from, Where where = here()) { start_receive(x, from, where).wait(); }
  /// Returns once every rank has called it.
  void barrier(Where where = here()) {
    auto op = make<std::uint8_t>(Collective::barrier, 0, where);
    for (int peer = 0; peer < size(); ++peer)
      if (peer != rank()) send(*op, peer, nullptr, 0), receive(*op, peer, nullptr, 0);
    launch(std::move(op)).wait();
  }

  /// Ranks that give the same colour form a communicator of their own, ordered by rank here; for grids of parallelism. Collective.
  std::unique_ptr<Communicator> split(int colour, Where where = here()) {
    std::vector<std::int32_t> colours(static_cast<std::size_t>(size()));
    const std::int32_t mine = colour;
    all_gather<std::int32_t>({&mine, 1}, colours, where);
    std::vector<int> members;
    for (int r = 0; r < size(); ++r)
      if (colours[static_cast<std::size_t>(r)] == colour) members.push_back(r);
    auto group = std::make_unique<Communicator>(transport_ && members.size() > 1 ? transport_->among(members.data(), static_cast<int>(members.size())) : nullptr);
    return group;
  }

  /// Tells the other ranks that this one cannot go on: each of their collectives throws CommError with this text.
  void fail(const std::string& why) noexcept { if (transport_) transport_->fail(why); }

 private:
  friend class Handle;
  static constexpr std::size_t small = 4096;  // bytes that are not worth a second exchange

  template <class T>
  std::unique_ptr<comm::Operation> make(Collective kind, std::size_t count, Where where, int channel = 0) {
    static_assert(Element<T>);
    auto op = std::make_unique<comm::Operation>();
    op->call = {kind, dtype_of<T>, 0, -1, static_cast<Index>(count), 0};
    if (channel == 0) op->call.number = ++number_;
    else if (sent_.empty()) sent_.resize(static_cast<std::size_t>(size())), got_.resize(static_cast<std::size_t>(size()));
    op->where = where;
    op->element = sizeof(T);
    return op;
  }
  static const std::byte* bytes(const void* p) { return static_cast<const std::byte*>(p); }
  static std::byte* bytes(void* p) { return static_cast<std::byte*>(p); }
  static std::byte* part(comm::Operation& op, int peer, std::size_t each) { return op.scratch->data() + static_cast<std::size_t>(peer) * each; }
  /// Where rank r's part of n elements begins, and its size.
  Index share(Index n) const { return (n + size() - 1) / size(); }
  std::pair<Index, Index> cut(Index n, int r) const {
    const Index begin = std::min(n, share(n) * r);
    return {begin, std::min(n, begin + share(n)) - begin};
  }

  void send(comm::Operation& op, int peer, const std::byte* from, std::size_t n, int channel = 0) {
    comm::Transfer& t = add(op, peer, n, channel);
    t.from = from;
  }
  void receive(comm::Operation& op, int peer, std::byte* to, std::size_t n, int channel = 0) {
    comm::Transfer& t = add(op, peer, n, channel);
    t.to = to != nullptr ? to : bytes(static_cast<void*>(&nowhere_));
    received_ += n;
  }
  comm::Transfer& add(comm::Operation& op, int peer, std::size_t n, int channel) {
    comm::Transfer& t = *op.transfers.emplace_back(std::make_unique<comm::Transfer>());
    t.peer = peer, t.channel = channel, t.call = op.call, t.bytes = n;
    return t;
  }

  Handle launch(std::unique_ptr<comm::Operation> op) {
    try {
      named(*op, [&] {
        if (failed_) throw CommError(*failed_);
        start(*op);
        in_flight_.push_back(op.get());
        progress();
      });
    } catch (...) {
      abandon(*op);
      throw;
    }
    return {this, std::move(op)};
  }
  /// Runs f; a failure names the collective that met it, and ends this communicator.
  template <class F>
  void named(const comm::Operation& op, F&& f) {
    try {
      f();
    } catch (const CommError& error) {
      if (!failed_) failed_ = error.what();
      std::string text = error.what();
      text += "\n  in " + comm::to_string(op.call) + " of rank " + std::to_string(rank());
      if (op.where.line != 0) text += std::string(" at ") + op.where.file + ":" + std::to_string(op.where.line);
      throw CommError(text);
    }
  }
  void start(comm::Operation& op) {
    for (const auto& t : op.transfers)
      if (t->to == nullptr) transport_->send(*t);
      else transport_->receive(*t);
  }
  /// Nothing touches the operation's memory after this.
  void abandon(const comm::Operation& op) noexcept {
    std::erase(in_flight_, &op);
    for (const auto& t : op.transfers)
      if (!t->done.load(std::memory_order_acquire)) transport_->withdraw(*t);
  }

  /// Moves every collective in flight as far as it goes. True iff something moved.
  bool progress() {
    bool moved = transport_ && transport_->advance();
    for (std::size_t i = 0; i < in_flight_.size();) {
      comm::Operation& op = *in_flight_[i];
      bool all = true;
      for (const auto& t : op.transfers) all = all && t->done.load(std::memory_order_acquire);
      if (all && next_stage(op)) {
        in_flight_.erase(in_flight_.begin() + static_cast<std::ptrdiff_t>(i));
        moved = true;
      } else {
        ++i;
      }
    }
    return moved;
  }
  /// Does what follows the exchange; true where nothing is left.
  bool next_stage(comm::Operation& op) {
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
      case Collective::all_gather: copy_own(op.out + static_cast<std::size_t>(rank()) * n, op.in, n); break;
      case Collective::all_to_all: {
        const std::size_t each = n / static_cast<std::size_t>(size()), own = each * static_cast<std::size_t>(rank());
        copy_own(op.out + own, op.in + own, each);
        break;
      }
      default: break;
    }
    op.done = true;
    return true;
  }
  static void copy_own(std::byte* to, const std::byte* from, std::size_t n) { if (to != from && n > 0) std::memmove(to, from, n); }

  /// out = the tree over ranks of `mine` and the parts in scratch.
  void reduce(comm::Operation& op, const std::byte* mine, std::size_t each, std::byte* out, Index count) {
    switch (op.call.dtype) {
      case Dtype::f32: return reduce_as<float>(op, mine, each, out, count);
      case Dtype::f64: return reduce_as<double>(op, mine, each, out, count);
      case Dtype::bf16: return reduce_as<bf16>(op, mine, each, out, count);
      case Dtype::i32: return reduce_as<std::int32_t>(op, mine, each, out, count);
      case Dtype::i64: return reduce_as<std::int64_t>(op, mine, each, out, count);
      case Dtype::u8: return reduce_as<std::uint8_t>(op, mine, each, out, count);
      case Dtype::boolean: weft::fail<CommError>(name(op.call.kind), "expected numbers, got bool", op.where, "cast to uint8");
    }
  }
  template <class T>
  void reduce_as(comm::Operation& op, const std::byte* mine, std::size_t each, std::byte* out, Index count) {
    std::vector<const T*, CachedAllocator<const T*>> arrays;
    for (int r = 0; r < size(); ++r) arrays.push_back(reinterpret_cast<const T*>(r == rank() ? mine : part(op, r, each)));
    comm::tree_reduce<T>(op.how, arrays.data(), size(), reinterpret_cast<T*>(out), count);
  }

  void wait(comm::Operation& op) {
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
  std::string late(const comm::Operation& op) const {
    std::string ranks;
    for (int peer = 0; peer < size(); ++peer)
      for (const auto& t : op.transfers)
        if (t->peer == peer && !t->done.load(std::memory_order_acquire)) {
          ranks += (ranks.empty() ? "" : ", ") + std::to_string(peer);
          break;
        }
    return "[" + std::string(name(op.call.kind)) + "] expected every rank to arrive at " + comm::to_string(op.call) + " within " +
           std::to_string(static_cast<long>(transport_->deadline())) + " s, still waiting for rank " + ranks;
  }
  /// Lets go of a collective that nobody will wait for.
  void drop(comm::Operation& op) noexcept {
    try {
      if (std::uncaught_exceptions() == 0) wait(op);
      else if (!op.done && !failed_) failed_ = "[ranks] this rank left " + comm::to_string(op.call) + " by an exception";
    } catch (...) {
    }
    abandon(op);
  }

  void check_rank(const char* what, int r, Where where) const {
    if (r < 0 || r >= size()) weft::fail<CommError>(what, "expected a rank in [0, " + std::to_string(size()) + "), got " + std::to_string(r), where);
  }
  void check_peer(int r, Where where) const {
    check_rank("send and receive", r, where);
    if (r == rank()) weft::fail<CommError>("send and receive", "expected another rank than this one, " + std::to_string(r), where, "copy instead");
  }
  void check_parts(const char* what, std::size_t all, std::size_t mine, Where where) const {
    if (all != mine * static_cast<std::size_t>(size()))
      weft::fail<CommError>(what, "expected " + std::to_string(size()) + " parts of " + std::to_string(mine) + " elements, got " + std::to_string(all) + " elements", where,
                            "pad to a multiple of the number of ranks");
  }

  std::unique_ptr<comm::Transport> transport_;  // null: one rank
  std::vector<comm::Operation*> in_flight_;
  std::vector<std::uint64_t> sent_, got_;
  std::uint64_t number_ = 0;
  std::size_t received_ = 0;
  std::byte nowhere_{};
  std::optional<std::string> failed_;
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

/// A world of one rank.
struct Self : Communicator {
  Self() : Communicator(nullptr) {}
};

}  // namespace weft::inline WEFT_ABI
