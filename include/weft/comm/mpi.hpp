// Ranks as processes, on one machine or many: messages go through MPI's point-to-point calls, from the rank's own thread alone. A
// heartbeat beside it tells of ranks that died. Include weft/comm/world.hpp and link weft::mpi.
#pragma once

#if defined(WEFT_MPI)

#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#include <unistd.h>

#include <memory>
#include <random>

#include "weft/comm/communicator.hpp"
#include "weft/comm/heartbeat.hpp"

namespace weft::inline WEFT_ABI::comm {

inline void expect_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw CommError("[ranks] " + std::string(call) + " failed: " + std::string(text, static_cast<std::size_t>(length)));
}

/// MPI, from its start to its end, and the heartbeat.
struct MpiWorld {
  double deadline;
  std::unique_ptr<Heartbeat> heartbeat;
  int rank = 0, size = 1;
  int place = 0;  ///< among the processes of this machine

  MpiWorld(double deadline_s, double silence_s) : deadline(deadline_s) {
    int running = 0, provided = 0;
    MPI_Initialized(&running);
    if (!running) expect_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Comm machine = MPI_COMM_NULL;
    int neighbours = 1;
    expect_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &machine), "MPI_Comm_split_type");
    MPI_Comm_size(machine, &neighbours);
    MPI_Comm_rank(machine, &place);
    MPI_Comm_free(&machine);
    int all_near = neighbours == size;
    expect_mpi(MPI_Allreduce(MPI_IN_PLACE, &all_near, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD), "MPI_Allreduce");
    if (std::getenv("OMP_NUM_THREADS") == nullptr)  // a launcher may have bound the process to fewer cores than there are
      set_threads(std::max(1, std::min(threads(), static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN)) / neighbours)));

    heartbeat = std::make_unique<Heartbeat>(all_near);
    std::vector<Heartbeat::Address> all(static_cast<std::size_t>(size));
    const Heartbeat::Address mine = heartbeat->address();
    expect_mpi(MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all.data(), sizeof mine, MPI_BYTE, MPI_COMM_WORLD), "MPI_Allgather");
    std::uint64_t job = std::random_device()();
    expect_mpi(MPI_Bcast(&job, sizeof job, MPI_BYTE, 0, MPI_COMM_WORLD), "MPI_Bcast");
    heartbeat->start(rank, std::move(all), job, silence_s);
  }
  MpiWorld(const MpiWorld&) = delete;
  MpiWorld& operator=(const MpiWorld&) = delete;
  ~MpiWorld() {
    std::string why;
    if (std::uncaught_exceptions() > 0) heartbeat->fail("[ranks] rank " + std::to_string(rank) + " of " + std::to_string(size) + " ended with an exception");
    if (heartbeat->failure(why)) return;  // MPI_Finalize would wait for those that are gone
    MPI_Finalize();
  }
};

class MpiTransport : public Transport {
 public:
  MpiTransport(std::shared_ptr<MpiWorld> world, MPI_Comm comm) : world_(std::move(world)), comm_(comm) {
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
  }
  ~MpiTransport() override {
    std::string why;
    if (!world_->heartbeat->failure(why) && std::uncaught_exceptions() == 0) MPI_Comm_free(&comm_);
  }
  static std::unique_ptr<MpiTransport> open(double deadline, double silence) {
    auto world = std::make_shared<MpiWorld>(deadline, silence);
    MPI_Comm comm = MPI_COMM_NULL;
    expect_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup");
    return std::make_unique<MpiTransport>(std::move(world), comm);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int place() const { return world_->place; }
  double deadline() const override { return world_->deadline; }

  // A message is its Call, then its bytes, in pieces that an int can count; the receiver asks for these once it has compared the Calls.
  void send(Transfer& t) override {
    Flight* const flight = begin(t);
    expect_mpi(MPI_Isend(&t.call, sizeof t.call, MPI_BYTE, t.peer, tag(t, 0), comm_, &flight->header), "MPI_Isend");
    next_piece(t, *flight);
  }
  void receive(Transfer& t) override {
    Flight* const flight = begin(t);
    expect_mpi(MPI_Irecv(&flight->theirs, sizeof flight->theirs, MPI_BYTE, t.peer, tag(t, 0), comm_, &flight->header), "MPI_Irecv");
  }
  void withdraw(Transfer& t) noexcept override {  // after a failure: the process ends soon, and MPI cannot be waited for
    Flight* const flight = static_cast<Flight*>(t.state);
    if (flight == nullptr) return;
    std::erase(under_way_, &t);
    for (MPI_Request* request : {&flight->header, &flight->data})
      if (*request != MPI_REQUEST_NULL) {
        if (t.to != nullptr) MPI_Cancel(request);
        MPI_Request_free(request);
      }
    lost_.emplace_back(flight);  // MPI may still write there
    t.state = nullptr;
  }

  bool advance() override {
    std::string why;
    if (world_->heartbeat->failure(why)) throw CommError(why);
    bool moved = false;
    for (std::size_t i = 0; i < under_way_.size();) {
      Transfer& t = *under_way_[i];
      Flight& flight = *static_cast<Flight*>(t.state);
      const bool was_waiting = flight.header != MPI_REQUEST_NULL;
      if (!finished(flight.header)) {
        if (t.to == nullptr && t.call.kind == Collective::broadcast) expect_no_other_root(t);
        ++i;
        continue;
      }
      if (t.to != nullptr && was_waiting) {
        expect_same(rank_, t, flight.theirs);
        next_piece(t, flight);
        moved = true;
      }
      while (finished(flight.data) && flight.moved < t.bytes) next_piece(t, flight);
      if (flight.data == MPI_REQUEST_NULL) {
        t.done.store(true, std::memory_order_release);
        delete &flight;
        t.state = nullptr;
        under_way_.erase(under_way_.begin() + static_cast<std::ptrdiff_t>(i));
        moved = true;
      } else {
        ++i;
      }
    }
    idle_ = moved ? 0 : idle_ + 1;
    return moved;
  }
  void pause() override {
    if (idle_ < 50) std::this_thread::yield();
    else std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  void fail(const std::string& why) noexcept override {
    world_->heartbeat->fail("[ranks] rank " + std::to_string(world_->rank) + " of " + std::to_string(world_->size) + " ended with an error: " + why);
  }

  std::unique_ptr<Transport> among(const int* members, int count) override {
    MPI_Group all = MPI_GROUP_NULL, group = MPI_GROUP_NULL;
    MPI_Comm comm = MPI_COMM_NULL;
    MPI_Comm_group(comm_, &all);
    MPI_Group_incl(all, count, members, &group);
    const int code = MPI_Comm_create_group(comm_, group, last_tag, &comm);
    MPI_Group_free(&group);
    MPI_Group_free(&all);
    expect_mpi(code, "MPI_Comm_create_group");
    return std::make_unique<MpiTransport>(world_, comm);
  }

 private:
  struct Flight : FromCache {
    MPI_Request header = MPI_REQUEST_NULL, data = MPI_REQUEST_NULL;
    Call theirs;
    std::size_t moved = 0;  // bytes that are there or under way
  };
  static constexpr int last_tag = 32767;  // that every MPI has

  static int tag(const Transfer& t, int part) { return static_cast<int>(((t.call.number % 2048 * 2 + t.call.stage) * 2 + static_cast<unsigned>(t.channel)) * 2) + part; }
  Flight* begin(Transfer& t) {
    auto* const flight = new Flight;
    t.state = flight;
    under_way_.push_back(&t);
    return flight;
  }
  void next_piece(Transfer& t, Flight& flight) {
    const std::size_t n = std::min(t.bytes - flight.moved, std::size_t{1} << 30);
    if (n == 0) return;
    const int count = static_cast<int>(n);
    if (t.to != nullptr) expect_mpi(MPI_Irecv(t.to + flight.moved, count, MPI_BYTE, t.peer, tag(t, 1), comm_, &flight.data), "MPI_Irecv");
    else expect_mpi(MPI_Isend(t.from + flight.moved, count, MPI_BYTE, t.peer, tag(t, 1), comm_, &flight.data), "MPI_Isend");
    flight.moved += n;
  }
  static bool finished(MPI_Request& request) {
    int done = 1;
    if (request != MPI_REQUEST_NULL) expect_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    return done != 0;
  }
  /// Of two ranks that both broadcast none would ever receive.
  void expect_no_other_root(const Transfer& t) {
    int there = 0;
    expect_mpi(MPI_Iprobe(t.peer, tag(t, 0), comm_, &there, MPI_STATUS_IGNORE), "MPI_Iprobe");
    if (!there) return;
    Call theirs;
    expect_mpi(MPI_Recv(&theirs, sizeof theirs, MPI_BYTE, t.peer, tag(t, 0), comm_, MPI_STATUS_IGNORE), "MPI_Recv");
    expect_same(rank_, t, theirs);
  }

  std::shared_ptr<MpiWorld> world_;
  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
  std::vector<Transfer*> under_way_;
  std::vector<std::unique_ptr<Flight>> lost_;
  int idle_ = 0;
};

}  // namespace weft::inline WEFT_ABI::comm

#endif
