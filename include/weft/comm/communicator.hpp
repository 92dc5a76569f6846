// Collectives among ranks. What is reduced is summed in one fixed tree over ranks, left child first, whatever carries the bytes:
// the same bits on threads and on processes.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "weft/comm/engine.hpp"

namespace weft::inline WEFT_ABI {

/// Ranks that call the same collectives in the same order. Every call exists twice: `all_reduce` returns when it is done,
/// `start_all_reduce` at once, with a Handle. Memory is contiguous. All calls throw CommError: where ranks disagree on a call, where one
/// has failed, or does not arrive before the deadline. `all_reduce<float, cuda>(x)` is one of memory on the GPU.
class Communicator {
 public:
  explicit Communicator(std::unique_ptr<comm::Transport> transport) : engine_(std::move(transport)) {}
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return engine_.rank(); }
  int size() const { return engine_.size(); }
  /// True iff collectives may name memory of the GPU.
  bool reaches_gpu() const { return size() == 1 || engine_.transport()->reaches_gpu(); }
  /// Bytes that this rank received from others.
  std::size_t bytes_received() const { return engine_.received(); }

  /// x on every rank becomes root's.
  template <class T, class D = cpu>
  Handle start_broadcast(std::span<T> x, int root, Where where = here()) {
    check_rank("broadcast", root, where);
    auto op = make<T, D>(Collective::broadcast, x.size(), where);
    op->call.root = root;
    op->in = bytes(x.data()), op->out = bytes(x.data());
    for (int peer = 0; peer < size(); ++peer)
      if (peer != rank() && rank() == root) engine_.send(*op, peer, op->in, x.size_bytes());
    if (rank() != root) engine_.receive(*op, root, op->out, x.size_bytes());
    return launch(std::move(op));
  }
  /// x on every rank becomes the sum (or the maximum) of all ranks'.
  template <class T, class D = cpu>
  Handle start_all_reduce(std::span<T> x, Reduce how = Reduce::sum, Where where = here()) {
    auto op = make<T, D>(Collective::all_reduce, x.size(), where);
    op->how = how;
    op->in = bytes(x.data()), op->out = bytes(x.data());
    if (x.size_bytes() <= comm::Engine::small) {  // one exchange of everything
      op->scratch = room(*op, x.size_bytes());
      for (int peer = 0; peer < size(); ++peer)
        if (peer != rank()) engine_.send(*op, peer, op->in, x.size_bytes()), engine_.receive(*op, peer, engine_.part(*op, peer, x.size_bytes()), x.size_bytes());
    } else {  // each rank sums its part, then all collect the parts
      op->scratch = room(*op, static_cast<std::size_t>(engine_.share(static_cast<Index>(x.size()))) * sizeof(T));
      for (int peer = 0; peer < size(); ++peer) {
        if (peer == rank()) continue;
        const auto [theirs, their_count] = engine_.cut(static_cast<Index>(x.size()), peer);
        const std::size_t mine = static_cast<std::size_t>(engine_.cut(static_cast<Index>(x.size()), rank()).second) * sizeof(T);
        engine_.send(*op, peer, op->in + static_cast<std::size_t>(theirs) * sizeof(T), static_cast<std::size_t>(their_count) * sizeof(T));
        engine_.receive(*op, peer, engine_.part(*op, peer, static_cast<std::size_t>(engine_.share(static_cast<Index>(x.size()))) * sizeof(T)), mine);
      }
    }
    return launch(std::move(op));
  }
  /// mine becomes part `rank` of the sum of all ranks' `all`, which holds one part a rank. mine may lie in all.
  template <class T, class D = cpu>
  Handle start_reduce_scatter(std::span<const T> all, std::span<T> mine, Where where = here()) {
    check_parts("reduce_scatter", all.size(), mine.size(), where);
    auto op = make<T, D>(Collective::reduce_scatter, mine.size(), where);
    op->in = bytes(all.data()), op->out = bytes(mine.data());
    op->scratch = room(*op, mine.size_bytes());
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank()) continue;
      engine_.send(*op, peer, op->in + static_cast<std::size_t>(peer) * mine.size_bytes(), mine.size_bytes());
      engine_.receive(*op, peer, engine_.part(*op, peer, mine.size_bytes()), mine.size_bytes());
    }
    return launch(std::move(op));
  }
  /// all becomes every rank's `mine`, in the order of ranks. mine may be its own part of all.
  template <class T, class D = cpu>
  Handle start_all_gather(std::span<const T> mine, std::span<T> all, Where where = here()) {
    check_parts("all_gather", all.size(), mine.size(), where);
    auto op = make<T, D>(Collective::all_gather, mine.size(), where);
    op->in = bytes(mine.data()), op->out = bytes(all.data());
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank()) continue;
      engine_.send(*op, peer, op->in, mine.size_bytes());
      engine_.receive(*op, peer, op->out + static_cast<std::size_t>(peer) * mine.size_bytes(), mine.size_bytes());
    }
    return launch(std::move(op));
  }
  /// Part r of `out` goes to rank r, part r of `in` comes from it.
  template <class T, class D = cpu>
  Handle start_all_to_all(std::span<const T> out, std::span<T> in, Where where = here()) {
    if (out.size() != in.size() || out.size() % static_cast<std::size_t>(size()) != 0)
      weft::fail<CommError>("all_to_all", "expected two spans of one part a rank, got " + std::to_string(out.size()) + " and " + std::to_string(in.size()) +
                                              " elements on " + std::to_string(size()) + " ranks", where);
    const std::size_t each = out.size_bytes() / static_cast<std::size_t>(size());
    auto op = make<T, D>(Collective::all_to_all, out.size(), where);
    op->in = bytes(out.data()), op->out = bytes(in.data());
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank()) continue;
      engine_.send(*op, peer, op->in + static_cast<std::size_t>(peer) * each, each);
      engine_.receive(*op, peer, op->out + static_cast<std::size_t>(peer) * each, each);
    }
    return launch(std::move(op));
  }
  /// To and from one other rank. A pair's messages arrive in order.
  template <class T, class D = cpu>
  Handle start_send(std::span<const T> x, int to, Where where = here()) {
    check_peer(to, where);
    auto op = make<T, D>(Collective::send, x.size(), where, 1);
    op->call.number = ++sent_[static_cast<std::size_t>(to)];
    engine_.send(*op, to, bytes(x.data()), x.size_bytes(), 1);
    return launch(std::move(op));
  }
  template <class T, class D = cpu>
  Handle start_receive(std::span<T> x, int from, Where where = here()) {
    check_peer(from, where);
    auto op = make<T, D>(Collective::send, x.size(), where, 1);
    op->call.number = ++got_[static_cast<std::size_t>(from)];
    engine_.receive(*op, from, bytes(x.data()), x.size_bytes(), 1);
    return launch(std::move(op));
  }

  template <class T, class D = cpu> void broadcast(std::span<T> x, int root, Where where = here()) { start_broadcast<T, D>(x, root, where).wait(); }
  template <class T, class D = cpu> void all_reduce(std::span<T> x, Reduce how = Reduce::sum, Where where = here()) { start_all_reduce<T, D>(x, how, where).wait(); }
  template <class T, class D = cpu> void reduce_scatter(std::span<const T> all, std::span<T> mine, Where where = here()) { start_reduce_scatter<T, D>(all, mine, where).wait(); }
  template <class T, class D = cpu> void all_gather(std::span<const T> mine, std::span<T> all, Where where = here()) { start_all_gather<T, D>(mine, all, where).wait(); }
  template <class T, class D = cpu> void all_to_all(std::span<const T> out, std::span<T> in, Where where = here()) { start_all_to_all<T, D>(out, in, where).wait(); }
  template <class T, class D = cpu> void send(std::span<const T> x, int to, Where where = here()) { start_send<T, D>(x, to, where).wait(); }
  template <class T, class D = cpu> void receive(std::span<T> x, int from, Where where = here()) { start_receive<T, D>(x, from, where).wait(); }
  /// Returns once every rank has called it.
  void barrier(Where where = here()) {
    auto op = make<std::uint8_t, cpu>(Collective::barrier, 0, where);
    for (int peer = 0; peer < size(); ++peer)
      if (peer != rank()) engine_.send(*op, peer, nullptr, 0), engine_.receive(*op, peer, nullptr, 0);
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
    const bool alone = engine_.transport() == nullptr || members.size() == 1;
    return std::make_unique<Communicator>(alone ? nullptr : engine_.transport()->among(members.data(), static_cast<int>(members.size())));
  }

  /// Another transport among the same ranks, to build a communicator on; null where one rank needs none. Collective.
  std::unique_ptr<comm::Transport> duplicate() {
    std::vector<int> all;
    for (int r = 0; r < size(); ++r) all.push_back(r);
    return engine_.transport() == nullptr ? nullptr : engine_.transport()->among(all.data(), size());
  }

  /// Tells the other ranks that this one cannot go on: each of their collectives throws CommError with this text.
  void fail(const std::string& why) noexcept { if (engine_.transport() != nullptr) engine_.transport()->fail(why); }

 private:
  template <class T, class D>
  std::unique_ptr<comm::Operation> make(Collective kind, std::size_t count, Where where, int channel = 0) {
    static_assert(Element<T>);
    if (!std::is_same_v<D, cpu> && !reaches_gpu())
      weft::fail<CommError>(name(kind), "expected memory of the host, got the GPU's", where, "run the ranks as threads (run_ranks), or the model on the cpu");
    auto op = std::make_unique<comm::Operation>();
    op->call = {kind, dtype_of<T>, 0, -1, static_cast<Index>(count), 0};
    if (channel == 0) op->call.number = ++number_;
    else if (sent_.empty()) sent_.resize(static_cast<std::size_t>(size())), got_.resize(static_cast<std::size_t>(size()));
    op->where = where;
    op->reach = &comm::reach_of<D>();
    op->call.gpu = op->reach->gpu;
    op->element = sizeof(T);
    return op;
  }
  /// Memory for a part from each rank.
  Ref<Storage> room(const comm::Operation& op, std::size_t part) const { return Ref<Storage>::make(std::max<std::size_t>(1, part * static_cast<std::size_t>(size())), true, op.reach->memory); }
  static const std::byte* bytes(const void* p) { return static_cast<const std::byte*>(p); }
  static std::byte* bytes(void* p) { return static_cast<std::byte*>(p); }

  Handle launch(std::unique_ptr<comm::Operation> op) {
    engine_.launch(*op);
    return {&engine_, std::move(op)};
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

  comm::Engine engine_;
  std::vector<std::uint64_t> sent_, got_;
  std::uint64_t number_ = 0;
};

/// A world of one rank.
struct Self : Communicator {
  Self() : Communicator(nullptr) {}
};

}  // namespace weft::inline WEFT_ABI
