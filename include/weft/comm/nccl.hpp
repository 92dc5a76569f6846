// Messages in the GPU's memory through NCCL, beside an engine of the host (threads or MPI) that carries everything else: memory of the
// host, who is at which call, and who has failed. NCCL only moves bytes: sums are weft's own tree, the same bits as on every engine.
//
// NCCL matches messages by the order in which a rank asks for them, and a rank that waits for another cannot be called back. So:
//   - an exchange is asked of NCCL only when the host's engine has said that the peers are at the same call: ranks that disagree are named;
//   - exchanges are asked for in the order of calls, a collective's second stage before the next collective's first (in_stream_order): the
//     same on all ranks, so that none waits for another in a circle;
//   - send and receive, of which ranks share no order, go through the host's memory, and so does what groups (split) say: of two groups
//     whose ranks ask NCCL in different orders, each could wait for the other in a call of the driver.
// Include it in a program that links weft::nccl.
#pragma once

#if defined(WEFT_NCCL)

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <chrono>
#include <thread>

#include "weft/comm/threads.hpp"

namespace weft::inline WEFT_ABI::comm {

inline void expect_cuda(cudaError_t code, const char* call) {
  if (code != cudaSuccess) throw CommError("[ranks] " + std::string(call) + " failed: " + cudaGetErrorString(code));
}

/// This thread's GPU, before it first asks for one: of those that the process sees the one at its place among the ranks of its machine.
/// Throws CommError where there is none.
inline void choose_gpu(int place) {
  int count = 0;
  expect_cuda(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  if (count == 0) throw CommError("[ranks] expected a GPU for each rank, got none\n  hint: a program without GPUs does not link weft::nccl");
  expect_cuda(cudaSetDevice(place % count), "cudaSetDevice");
}

class NcclTransport : public Transport {
 public:
  /// `host` has the same ranks. Without `direct` all messages pass through the host's memory. Collective; throws CommError.
  explicit NcclTransport(std::unique_ptr<Transport> host, bool direct = true) : host_(std::move(host)), direct_(direct) {
    if (!direct) return;
    try {
      ncclUniqueId id{};
      if (rank() == 0) expect_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
      share(id);
      expect_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
      ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
      config.blocking = 0;  // what waits for a peer is polled, so that a deadline and a peer's failure end it
      finish(ncclCommInitRankConfig(&nccl_, size(), id, rank(), &config), "ncclCommInitRankConfig");
    } catch (...) {
      give_up();
      throw;
    }
  }
  ~NcclTransport() override {
    try {
      if (nccl_ != nullptr && std::uncaught_exceptions() == 0) {
        finish(ncclCommFinalize(nccl_), "ncclCommFinalize");
        ncclCommDestroy(std::exchange(nccl_, nullptr));
      }
    } catch (const Error&) {  // who waits for this rank has heard of it from the host's engine
    }
    give_up();
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  bool reaches_gpu() const override { return true; }
  bool in_stream_order() const override { return direct_; }
  double deadline() const override { return host_->deadline(); }
  void fail(const std::string& why) noexcept override { host_->fail(why); }
  std::unique_ptr<Transport> among(const int* members, int count) override { return std::make_unique<NcclTransport>(host_->among(members, count), false); }

  void send(Transfer& t) override { begin(t); }
  void receive(Transfer& t) override { begin(t); }
  void withdraw(Transfer& t) noexcept override {
    if (!t.reach->gpu) return host_->withdraw(t);
    std::erase_if(copies_, [&](const auto& c) {
      if (c->mine != &t) return false;
      if (!c->host.done.load()) host_->withdraw(c->host);
      return true;
    });
    std::erase_if(exchanges_, [&](const auto& x) {
      if (std::find(x->messages.begin(), x->messages.end(), &t) == x->messages.end()) return false;
      for (const auto& word : x->words)
        if (!word->done.load()) host_->withdraw(*word);
      if (x->asked) give_up();  // NCCL may still write there
      events_.push_back(x->ready), events_.push_back(x->ended);
      return true;
    });
  }

  bool advance() override {
    bool moved = host_->advance();
    if (nccl_ != nullptr && !exchanges_.empty()) {
      ncclResult_t state = ncclSuccess;
      expect_nccl(ncclCommGetAsyncError(nccl_, &state), "ncclCommGetAsyncError");
      expect_nccl(state, "an exchange");
    }
    for (const auto& x : exchanges_) {
      if (x->asked) continue;
      if (!std::all_of(x->words.begin(), x->words.end(), [](const auto& w) { return w->done.load(std::memory_order_acquire); })) break;
      ask(*x);
      moved = true;
    }
    while (!exchanges_.empty() && exchanges_.front()->asked && ended(*exchanges_.front())) {
      Exchange& x = *exchanges_.front();
      for (Transfer* t : x.messages) t->done.store(true, std::memory_order_release);
      events_.push_back(x.ready), events_.push_back(x.ended);
      exchanges_.erase(exchanges_.begin());
      moved = true;
    }
    std::erase_if(copies_, [&](const auto& c) {
      if (!c->host.done.load(std::memory_order_acquire)) return false;
      if (c->mine->to != nullptr && c->mine->bytes > 0) gpu::to_device(c->mine->to, c->host.to, c->mine->bytes);
      c->mine->done.store(true, std::memory_order_release);
      return moved = true;
    });
    return moved;
  }
  void pause() override {
    if (exchanges_.empty() || !exchanges_.front()->asked) host_->pause();
    else std::this_thread::yield();  // only the GPU knows
  }

 private:
  template <class T>
  using List = std::vector<T, CachedAllocator<T>>;
  /// The messages of one stage of a collective.
  struct Exchange : FromCache {
    Call call;
    List<Transfer*> messages;
    List<std::unique_ptr<Transfer>> words;  // without bytes: each peer is at this call
    cudaEvent_t ready = nullptr, ended = nullptr;
    bool asked = false;                     // of NCCL
  };
  /// A message between two ranks, in the host's memory.
  struct HostCopy : FromCache {
    Transfer* mine;
    Transfer host;
    Ref<Storage> room;
  };

  void expect_nccl(ncclResult_t result, const char* call) const {
    if (result != ncclSuccess && result != ncclInProgress)
      throw CommError("[ranks] NCCL: " + std::string(call) + " failed: " + ncclGetErrorString(result) + ", " + ncclGetLastError(nccl_) +
                      "\n  hint: each rank needs a GPU of its own; NCCL_DEBUG=WARN in the environment says more");
  }
  /// Waits for what NCCL has begun.
  void finish(ncclResult_t result, const char* call) {
    const auto begin = std::chrono::steady_clock::now();
    while (result == ncclInProgress) {
      host_->advance();  // throws where a peer has failed
      expect_in_time(begin, call);
      std::this_thread::yield();
      expect_nccl(ncclCommGetAsyncError(nccl_, &result), call);
    }
    expect_nccl(result, call);
  }
  void expect_in_time(std::chrono::steady_clock::time_point begin, const char* call) const {
    if (std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() > deadline())
      throw CommError("[ranks] expected every rank to arrive at " + std::string(call) + " within " + std::to_string(static_cast<long>(deadline())) + " s");
  }
  /// Ends what NCCL does, wherever it is.
  void give_up() noexcept {
    if (nccl_ == nullptr) return;
    ncclCommAbort(std::exchange(nccl_, nullptr));
    cudaStreamSynchronize(stream_);
  }

  /// Rank 0's id, on all.
  void share(ncclUniqueId& id) {
    List<std::unique_ptr<Transfer>> messages;
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank() || (rank() != 0 && peer != 0)) continue;
      Transfer& t = *messages.emplace_back(std::make_unique<Transfer>());
      t.peer = peer, t.call = {.kind = Collective::broadcast, .root = 0, .count = sizeof id}, t.bytes = sizeof id;
      if (rank() == 0) t.from = reinterpret_cast<const std::byte*>(&id), host_->send(t);
      else t.to = reinterpret_cast<std::byte*>(&id), host_->receive(t);
    }
    const auto begin = std::chrono::steady_clock::now();
    try {
      for (const auto& t : messages)
        while (!t->done.load(std::memory_order_acquire)) {
          expect_in_time(begin, "the start of NCCL");
          if (!host_->advance()) host_->pause();
        }
    } catch (...) {
      for (const auto& t : messages)
        if (!t->done.load()) host_->withdraw(*t);
      throw;
    }
  }

  void begin(Transfer& t) {
    if (!t.reach->gpu) return on_host(t);
    if (!direct_ || t.channel != 0) return through_host(t);
    if (exchanges_.empty() || exchanges_.back()->asked || exchanges_.back()->call.number != t.call.number || exchanges_.back()->call.stage != t.call.stage) {
      Exchange& fresh = *exchanges_.emplace_back(std::make_unique<Exchange>());
      fresh.call = t.call, fresh.ready = event(), fresh.ended = event();
      expect_cuda(cudaEventRecord(fresh.ready, static_cast<cudaStream_t>(gpu::stream())), "cudaEventRecord");
    }
    Exchange& x = *exchanges_.back();
    x.messages.push_back(&t);
    Transfer& word = *x.words.emplace_back(std::make_unique<Transfer>());
    word.peer = t.peer, word.call = t.call;
    if (t.to != nullptr) word.to = &nothing_;
    else word.from = &nothing_;
    on_host(word);
  }
  void on_host(Transfer& t) {
    if (t.to == nullptr) host_->send(t);
    else host_->receive(t);
  }
  void through_host(Transfer& t) {
    HostCopy& c = *copies_.emplace_back(std::make_unique<HostCopy>());
    c.mine = &t, c.room = new_storage<cpu>(t.bytes);
    c.host.peer = t.peer, c.host.channel = t.channel, c.host.call = t.call, c.host.bytes = t.bytes;
    auto* const room = static_cast<std::byte*>(c.room->data);
    if (t.to != nullptr) c.host.to = room;
    else c.host.from = room;
    if (t.to == nullptr && t.bytes > 0) gpu::to_host(room, t.from, t.bytes);
    on_host(c.host);
  }
  /// All messages at once, after what this thread's stream was asked for before them.
  void ask(Exchange& x) {
    if (nccl_ == nullptr) throw CommError("[ranks] expected a communicator that works, got one that was given up after a failure");
    x.asked = true;
    expect_cuda(cudaStreamWaitEvent(stream_, x.ready, 0), "cudaStreamWaitEvent");
    expect_nccl(ncclGroupStart(), "ncclGroupStart");
    ncclResult_t result = ncclSuccess;
    for (const Transfer* t : x.messages) {
      if (t->bytes == 0 || (result != ncclSuccess && result != ncclInProgress)) continue;
      result = t->to == nullptr ? ncclSend(t->from, t->bytes, ncclInt8, t->peer, nccl_, stream_) : ncclRecv(t->to, t->bytes, ncclInt8, t->peer, nccl_, stream_);
    }
    const ncclResult_t whole = ncclGroupEnd();
    expect_nccl(result, "ncclSend and ncclRecv");
    finish(whole, "ncclGroupEnd");
    expect_cuda(cudaEventRecord(x.ended, stream_), "cudaEventRecord");
  }
  static bool ended(const Exchange& x) {
    const cudaError_t state = cudaEventQuery(x.ended);
    if (state == cudaErrorNotReady) return false;
    expect_cuda(state, "an exchange");
    return true;
  }
  cudaEvent_t event() {
    cudaEvent_t event = nullptr;
    if (events_.empty()) {
      expect_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
    } else {
      event = events_.back();
      events_.pop_back();
    }
    return event;
  }

  std::unique_ptr<Transport> host_;
  bool direct_;
  ncclComm_t nccl_ = nullptr;
  cudaStream_t stream_ = nullptr;
  List<std::unique_ptr<Exchange>> exchanges_;  // in the order of calls
  List<std::unique_ptr<HostCopy>> copies_;
  List<cudaEvent_t> events_;                   // that nobody uses
  std::byte nothing_{};
};

/// The ranks of another communicator, of which each has a GPU of its own: messages in their memory go through NCCL. One at a time.
/// Collective; throws CommError.
struct Nccl : Communicator {
  explicit Nccl(Communicator& ranks) : Communicator(std::make_unique<NcclTransport>(host_of(ranks))) {}

 private:
  static std::unique_ptr<Transport> host_of(Communicator& ranks) {
    if (std::unique_ptr<Transport> same = ranks.duplicate()) return same;
    return std::make_unique<ThreadsTransport>(std::make_shared<ThreadsWorld>(1, ThreadsOptions{}), 0);
  }
};

}  // namespace weft::inline WEFT_ABI::comm

#endif
