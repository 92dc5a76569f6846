// Defines weft/core/gpu.hpp: a stream, a caching allocator and a place for faults for each thread.
#pragma once

#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "weft/core/graph.hpp"
#include "weft/kernels/cuda/lanes.cuh"
#include "weft/kernels/cuda/launch.cuh"
#include "weft/kernels/cuda/pool.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

/// Pinned memory through which small things go to the GPU, so that the copy runs beside the host's work; a slot is used again when its
/// copy has happened.
class Staging {
 public:
  static constexpr std::size_t slot_bytes = std::size_t{1} << 20;

  void to_device(void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
    Slot& slot = slots_[next_++ % slots];
    if (slot.data == nullptr) {
      check(cudaMallocHost(&slot.data, slot_bytes), "to_device");
      check(cudaEventCreateWithFlags(&slot.copied, cudaEventDisableTiming), "to_device");
    } else {
      check(cudaEventSynchronize(slot.copied), "to_device");
    }
    std::memcpy(slot.data, from, bytes);
    check(cudaMemcpyAsync(to, slot.data, bytes, cudaMemcpyHostToDevice, stream), "to_device");
    check(cudaEventRecord(slot.copied, stream), "to_device");
  }

 private:
  static constexpr std::size_t slots = 8;
  struct Slot {
    void* data = nullptr;
    cudaEvent_t copied = nullptr;
  };
  Slot slots_[slots];
  std::size_t next_ = 0;
};

/// What a thread has on the GPU. One that ends leaves it to the next that comes; nothing is freed at the program's end.
struct Context {
  Pool pool;
  Staging staging;
  Lanes lanes;
  cudaStream_t stream = nullptr;
  int device = 0;  ///< the thread's when it first asked
  weft::gpu::Fault* fault = nullptr;  // pinned, and seen by the GPU
  Index faults_thrown = 0;
  weft::gpu::Recording* recording = nullptr;
  Index recordings = 0;                      // begun
  Pool* recording_pool = nullptr;            // memory of the step that is recorded, or null
  std::vector<std::unique_ptr<Pool>> graph_pools;
  std::vector<Pool*> idle_pools;             // of graphs that ended

  Memory& memory() { return recording_pool != nullptr ? *recording_pool : pool; }
  /// After the stream has been waited for.
  void throw_fault() {
    const weft::gpu::Fault found = std::exchange(*fault, {});
    if (found.raise == nullptr) return;
    ++faults_thrown;
    found.raise(found);
  }
  void expect_no_recording(const char* problem, const char* hint) const {
    if (recording != nullptr) throw Error(std::string("[graph] ") + problem + "\n  hint: " + hint);
  }
  void expect_no_wait() const {
    expect_no_recording("expected a step that the host does not wait for while it is recorded",
                        "item(), value(), to<cpu>, printing, a Tape's check and updates inside the backward read from the GPU: leave results in tensors, and read them after run()");
  }
  static Context& mine() {
    thread_local Owner owner;
    return *owner.context;
  }

 private:
  static std::vector<Context*>& waiting() {
    static auto* const list = new std::vector<Context*>;
    return *list;
  }
  static std::mutex& waiting_mutex() {
    static auto* const mutex = new std::mutex;
    return *mutex;
  }
  struct Owner {
    Context* context = nullptr;
    Owner() {
      int device = 0;
      check(cudaGetDevice(&device), "stream");
      {
        const std::lock_guard lock(waiting_mutex());
        const auto same = std::find_if(waiting().begin(), waiting().end(), [device](const Context* c) { return c->device == device; });
        if (same != waiting().end()) context = *same, waiting().erase(same);
      }
      if (context != nullptr) {
        check(cudaStreamSynchronize(context->stream), "stream");
        *context->fault = {};  // of a thread that ended without waiting
      } else {
        auto fresh = std::make_unique<Context>();
        fresh->device = device;
        check(cudaStreamCreateWithFlags(&fresh->stream, cudaStreamNonBlocking), "stream");
        check(cudaMallocHost(&fresh->fault, sizeof(weft::gpu::Fault)), "stream");
        *fresh->fault = {};
        context = fresh.release();
      }
      Pool::current() = &context->pool;
    }
    ~Owner() {
      Pool::current() = nullptr;
      const std::lock_guard lock(waiting_mutex());
      waiting().push_back(context);
    }
  };
};

}  // namespace weft::inline WEFT_ABI::kernels::gpu

namespace weft::inline WEFT_ABI::gpu {

Memory& memory() { return kernels::gpu::Context::mine().memory(); }
MemoryStats memory_stats() {
  auto& mine = kernels::gpu::Context::mine();
  MemoryStats all = mine.pool.stats();
  for (const auto& pool : mine.graph_pools) {
    const MemoryStats more = pool->stats();
    all.live += more.live, all.peak += more.peak, all.cached += more.cached, all.system_calls += more.system_calls;
  }
  return all;
}
void reset_peak_memory() {
  auto& mine = kernels::gpu::Context::mine();
  mine.pool.reset_peak();
  for (const auto& pool : mine.graph_pools) pool->reset_peak();
}
void release_cached() { kernels::gpu::Context::mine().memory().release_cached(); }
void* stream() { return kernels::gpu::Context::mine().stream; }
Fault& fault() { return *kernels::gpu::Context::mine().fault; }

Memory& host_memory() { return kernels::gpu::Pinned::all(); }
void order(Lane earlier, Lane later) { kernels::gpu::Context::mine().lanes.order(earlier, later); }
void copy(Lane lane, void* to, const void* from, std::size_t bytes) { kernels::gpu::Context::mine().lanes.copy(lane, to, from, bytes); }

void to_device(void* to, const void* from, std::size_t bytes) {
  if (kernels::gpu::Pinned::all().holds(to)) {
    synchronize();
    std::memcpy(to, from, bytes);
    return;
  }
  auto& mine = kernels::gpu::Context::mine();
  mine.expect_no_recording("expected a step that brings nothing from the host while it is recorded: each launch would bring the same",
                           "make tensors such as a batch before run(), and assign() to them before each");
  if (bytes <= kernels::gpu::Staging::slot_bytes) return mine.staging.to_device(to, from, bytes, mine.stream);
  kernels::gpu::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, mine.stream), "to_device");  // the driver's own staging
}
void to_host(void* to, const void* from, std::size_t bytes) {
  kernels::gpu::Context::mine().expect_no_wait();
  if (kernels::gpu::Pinned::all().holds(from)) {
    synchronize();
    std::memcpy(to, from, bytes);
    return;
  }
  kernels::gpu::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, kernels::gpu::stream()), "to_host");
  synchronize();
}
void copy(void* to, const void* from, std::size_t bytes) {
  kernels::gpu::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, kernels::gpu::stream()), "copy");
}
void synchronize() {
  auto& mine = kernels::gpu::Context::mine();
  mine.expect_no_wait();
  kernels::gpu::check(cudaStreamSynchronize(mine.stream), "synchronize");
  mine.throw_fault();
}

std::string describe() {
  int device = 0;
  cudaDeviceProp properties{};
  kernels::gpu::check(cudaGetDevice(&device), "describe");
  kernels::gpu::check(cudaGetDeviceProperties(&properties, device), "describe");
  char text[160];
  std::snprintf(text, sizeof text, "%.100s, %.1f GiB, sm_%d%d", properties.name, static_cast<double>(properties.totalGlobalMem) / 1073741824.0,
                properties.major, properties.minor);
  return text;
}

}  // namespace weft::inline WEFT_ABI::gpu
