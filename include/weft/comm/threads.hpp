// Ranks as threads of one process, so that all parallel code is written, debugged and tested on a laptop. A message is one copy from
// the sender's memory to the receiver's, made by the receiver.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <chrono>
#include <exception>
#include <mutex>
#include <thread>

#include "weft/comm/communicator.hpp"

namespace weft::inline WEFT_ABI {

struct ThreadsOptions {
  double deadline = 600;               ///< seconds that an alive rank may let the others wait for it
  bool end_process_when_stuck = false; ///< a rank that never comes back cannot be joined: name it and exit with 75 instead of waiting
  double stuck_after = 10;             ///< seconds after another's failure
};

namespace comm {

/// What the ranks of one communicator share.
struct ThreadsWorld {
  int size;
  ThreadsOptions options;
  std::mutex mutex;
  std::condition_variable changed;
  std::uint64_t changes = 0;          // counts what may have made somebody's wait end
  std::vector<Transfer*> first;       // messages that wait to be received, a list for each (from, to, channel)
  std::optional<std::string> failure;
  std::shared_ptr<ThreadsWorld> parent;  // a failure in a group is one of the whole

  ThreadsWorld(int n, ThreadsOptions o, std::shared_ptr<ThreadsWorld> p = {})
      : size(n), options(o), first(static_cast<std::size_t>(2 * n * n)), parent(std::move(p)) {}
  std::size_t list(int from, int to, int channel) const { return static_cast<std::size_t>((from * size + to) * 2 + channel); }
};

class ThreadsTransport : public Transport {
 public:
  ThreadsTransport(std::shared_ptr<ThreadsWorld> world, int rank) : world_(std::move(world)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return world_->size; }
  bool reaches_gpu() const override { return true; }
  double deadline() const override { return world_->options.deadline; }

  void send(Transfer& t) override {
    const std::lock_guard lock(world_->mutex);
    t.state = nullptr;
    Transfer*& first = world_->first[world_->list(rank_, t.peer, t.channel)];
    t.next = std::exchange(first, &t);
    announce();
  }
  void receive(Transfer& t) override { receives_.push_back(&t); }

  void withdraw(Transfer& t) noexcept override {
    std::erase(receives_, &t);
    std::unique_lock lock(world_->mutex);
    for (Transfer** link = &world_->first[world_->list(rank_, t.peer, t.channel)]; *link != nullptr; link = &(*link)->next)
      if (*link == &t) {
        *link = t.next;
        return;
      }
    while (t.state != nullptr && !t.done.load()) world_->changed.wait(lock);  // a peer copies it right now
  }

  bool advance() override {
    bool moved = false;
    {
      const std::lock_guard lock(world_->mutex);
      seen_ = world_->changes;
      compare_sends();
    }
    for (ThreadsWorld* w = world_.get(); w != nullptr; w = w->parent.get()) {
      const std::lock_guard lock(w->mutex);
      if (w->failure) throw CommError(*w->failure);
    }
    for (std::size_t i = 0; i < receives_.size();) {
      Transfer& mine = *receives_[i];
      Transfer* const theirs = take(mine);
      if (theirs == nullptr) {
        ++i;
        continue;
      }
      receives_.erase(receives_.begin() + static_cast<std::ptrdiff_t>(i));
      struct GiveBack {  // also where the copy fails: the sender waits for its message
        ThreadsTransport& self;
        Transfer& theirs;
        ~GiveBack() {
          const std::lock_guard lock(self.world_->mutex);
          theirs.done.store(true, std::memory_order_release);
          self.announce();
        }
      } give_back{*this, *theirs};
      mine.reach->copy(mine.to, theirs->from, mine.bytes);
      mine.done.store(true, std::memory_order_release);
      moved = true;
    }
    return moved;
  }

  void pause() override {
    std::unique_lock lock(world_->mutex);
    world_->changed.wait_for(lock, std::chrono::milliseconds(20), [&] { return world_->changes != seen_; });
  }

  void fail(const std::string& why) noexcept override {
    for (ThreadsWorld* w = world_.get(); w != nullptr; w = w->parent.get()) {
      const std::lock_guard lock(w->mutex);
      if (!w->failure) w->failure = why;
      ++w->changes;
      w->changed.notify_all();
    }
  }

  std::unique_ptr<Transport> among(const int* members, int count) override {
    const int leader = members[0];
    int place = 0;
    for (int i = 0; i < count; ++i)
      if (members[i] == rank_) place = i;
    std::shared_ptr<ThreadsWorld> group;
    std::shared_ptr<ThreadsWorld>* shared = &group;
    if (rank_ == leader) {
      group = std::make_shared<ThreadsWorld>(count, world_->options, world_);
      std::vector<std::unique_ptr<Transfer>> sends;
      for (int i = 1; i < count; ++i) {
        Transfer& t = *sends.emplace_back(std::make_unique<Transfer>());
        t.peer = members[i], t.from = reinterpret_cast<const std::byte*>(&shared), t.bytes = sizeof shared;
        send(t);
      }
      finish(sends);
      std::vector<std::unique_ptr<Transfer>> thanks;  // the members have copied the pointer
      for (int i = 1; i < count; ++i) {
        Transfer& t = *thanks.emplace_back(std::make_unique<Transfer>());
        t.peer = members[i];
        receive(t);
      }
      finish(thanks);
    } else {
      std::vector<std::unique_ptr<Transfer>> one;
      one.push_back(std::make_unique<Transfer>());
      one[0]->peer = leader, one[0]->to = reinterpret_cast<std::byte*>(&shared), one[0]->bytes = sizeof shared;
      receive(*one[0]);
      finish(one);
      group = *shared;
      one[0] = std::make_unique<Transfer>();
      one[0]->peer = leader;
      send(*one[0]);
      finish(one);
    }
    return std::make_unique<ThreadsTransport>(group, place);
  }

 private:
  void announce() {  // with the lock held
    ++world_->changes;
    world_->changed.notify_all();
  }
  /// The link to the peer's message of the same collective; to null where it is not there yet. With the lock held.
  Transfer*& find(const Transfer& mine) {
    Transfer** link = &world_->first[world_->list(mine.peer, rank_, mine.channel)];
    while (*link != nullptr && ((*link)->call.number != mine.call.number || (*link)->call.stage != mine.call.stage)) link = &(*link)->next;
    return *link;
  }
  /// Takes the peer's message out of its list, if it is there; the peer cannot withdraw it until it is done.
  Transfer* take(const Transfer& mine) {
    const std::lock_guard lock(world_->mutex);
    Transfer*& link = find(mine);
    Transfer* const theirs = link;
    if (theirs == nullptr) return nullptr;
    expect_same(rank_, mine, theirs->call);
    link = theirs->next;
    theirs->state = theirs;
    return theirs;
  }
  /// Throws CommError where a peer sends in a collective in which it should receive. With the lock held.
  void compare_sends() {
    for (int peer = 0; peer < size(); ++peer)
      for (const Transfer* mine = world_->first[world_->list(rank_, peer, 0)]; mine != nullptr; mine = mine->next)
        if (const Transfer* const theirs = find(*mine)) expect_same(rank_, *mine, theirs->call);
  }
  void finish(const std::vector<std::unique_ptr<Transfer>>& transfers) {
    for (const auto& t : transfers)
      while (!t->done.load(std::memory_order_acquire))
        if (!advance()) pause();
  }

  std::shared_ptr<ThreadsWorld> world_;
  int rank_;
  std::uint64_t seen_ = 0;
  std::vector<Transfer*> receives_;
};

}  // namespace comm

/// Runs fn(Communicator&) on n ranks, each a thread with its share of the cores, its own allocator and tapes. Returns when all have
/// ended. An exception on one rank ends the others at their next collective, and is thrown here. Throws ValueError where n < 1.
template <class F>
void run_ranks(int n, F&& fn, ThreadsOptions options = {}, Where where = here()) {
  if (n < 1) fail<ValueError>("run_ranks", "expected at least 1 rank, got " + std::to_string(n), where);
  const auto world = std::make_shared<comm::ThreadsWorld>(n, options);
  const int each = std::max(1, threads() / n);
  std::mutex mutex;
  std::condition_variable ended;
  std::exception_ptr first;
  std::vector<char> finished(static_cast<std::size_t>(n), 0);
  std::vector<std::thread> ranks;
  for (int r = 0; r < n; ++r)
    ranks.emplace_back([&, r] {
      set_threads(each);
      Communicator ranks_own(std::make_unique<comm::ThreadsTransport>(world, r));
      try {
        fn(ranks_own);
      } catch (const std::exception& error) {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
        ranks_own.fail("[ranks] rank " + std::to_string(r) + " of " + std::to_string(n) + " ended with an error: " + error.what());
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
        ranks_own.fail("[ranks] rank " + std::to_string(r) + " of " + std::to_string(n) + " ended with an exception");
      }
      const std::lock_guard lock(mutex);
      finished[static_cast<std::size_t>(r)] = 1;
      ended.notify_all();
    });
  {
    std::unique_lock lock(mutex);
    const auto all = [&] { return std::find(finished.begin(), finished.end(), 0) == finished.end(); };
    while (!all()) {
      if (first && options.end_process_when_stuck && !ended.wait_for(lock, std::chrono::duration<double>(options.stuck_after), all)) {
        for (int r = 0; r < n; ++r)
          if (finished[static_cast<std::size_t>(r)] == 0) std::fprintf(stderr, "weft: rank %d of %d is stuck; the others have ended\n", r, n);
        try {
          std::rethrow_exception(first);
        } catch (const std::exception& error) {
          std::fprintf(stderr, "%s\n", error.what());
        } catch (...) {
        }
        std::_Exit(75);
      }
      ended.wait_for(lock, std::chrono::milliseconds(200));
    }
  }
  for (std::thread& t : ranks) t.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace weft::inline WEFT_ABI
