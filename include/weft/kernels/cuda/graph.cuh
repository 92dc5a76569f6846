// Defines weft/core/graph.hpp. What is recorded takes its memory from a pool that nobody else asks, and what a thread gives back
// meanwhile is held, so that no block that a recorded kernel knows serves anybody else while the graph lives.
#pragma once

#include <thread>

#include "weft/kernels/cuda/runtime.cuh"

namespace weft::inline WEFT_ABI::gpu {

struct Recording {
  static constexpr std::size_t slot = 64, slots = 64;

  kernels::gpu::Context* home;
  std::thread::id thread = std::this_thread::get_id();      // another that inherits the context has not its products' workspace
  kernels::gpu::Pool* pool;
  Launch now;                                               // of the launch that follows
  cudaGraphExec_t graph = nullptr;
  std::byte* on_gpu;                                        // slots: the step, then the arguments
  std::vector<std::unique_ptr<LaunchArgument>> arguments;
  std::vector<void*> held;                                  // of the thread's own pool
  std::vector<Ref<Storage>> kept;

  /// Ends what the stream is told to record; null where that failed.
  cudaGraph_t end() {
    cudaGraph_t made = nullptr;
    const cudaError_t status = cudaStreamEndCapture(home->stream, &made);
    home->recording = nullptr, home->recording_pool = nullptr;
    home->pool.hold(nullptr);
    pool->record(false);
    if (status == cudaSuccess) return made;
    cudaGetLastError();  // forget it
    return nullptr;
  }
};

const Launch* recording() {
  const Recording* const mine = kernels::gpu::Context::mine().recording;
  return mine != nullptr ? &mine->now : nullptr;
}
Index recording_number() {
  const auto& mine = kernels::gpu::Context::mine();
  return mine.recording != nullptr ? mine.recordings : 0;
}
const void* launch_argument(std::unique_ptr<LaunchArgument> argument) {
  Recording& mine = *kernels::gpu::Context::mine().recording;
  mine.arguments.push_back(std::move(argument));
  if (mine.arguments.size() == Recording::slots) throw Error("[graph] expected fewer than 64 optimizers' steps in a recorded step");
  return mine.on_gpu + mine.arguments.size() * Recording::slot;
}
const std::uint32_t* launch_step(std::uint32_t step) {
  const Recording* const mine = kernels::gpu::Context::mine().recording;
  if (mine == nullptr) return nullptr;
  if (step != static_cast<std::uint32_t>(mine->now.step))
    throw ValueError("[graph] expected random numbers of the step that run was given, " + std::to_string(mine->now.step) + ", got a tape of step " + std::to_string(step) +
                     "\n  hint: graph.run({.step = n, ...}, f), and in f Tape tape({.seed = seed, .step = n})");
  return reinterpret_cast<const std::uint32_t*>(mine->on_gpu);
}
void keep_for_launches(const Ref<Storage>& block) {
  if (Recording* const mine = kernels::gpu::Context::mine().recording; mine != nullptr) mine->kept.push_back(block);
}
Index faults_thrown() { return kernels::gpu::Context::mine().faults_thrown; }

Recording* begin_recording(const Launch& now) {
  auto& home = kernels::gpu::Context::mine();
  home.expect_no_recording("expected one recording at a time", "run() stands in a step that another graph records");
  synchronize();
  home.pool.release_cached();  // what the first run used: the recording needs as much
  if (home.idle_pools.empty()) home.idle_pools.push_back(home.graph_pools.emplace_back(std::make_unique<kernels::gpu::Pool>(&home.pool)).get());
  auto fresh = std::make_unique<Recording>();
  fresh->on_gpu = static_cast<std::byte*>(home.pool.allocate(Recording::slot * Recording::slots));
  fresh->home = &home, fresh->now = now;
  fresh->pool = home.idle_pools.back();
  home.idle_pools.pop_back();
  // Relaxed: the pool asks the driver for memory meanwhile.
  const cudaError_t status = cudaStreamBeginCapture(home.stream, cudaStreamCaptureModeRelaxed);
  if (status != cudaSuccess) drop_recording(fresh.release());
  kernels::gpu::check(status, "graph");
  home.recording = fresh.get(), home.recording_pool = fresh->pool;
  ++home.recordings;
  home.pool.hold(&fresh->held);
  fresh->pool->record(true);
  return fresh.release();
}
void end_recording(Recording& recording) {
  const cudaGraph_t made = recording.end();
  if (made == nullptr) throw Error("[graph] CUDA could not record the step: something in it is not of this thread's stream, or waits for the GPU");
  const cudaError_t status = cudaGraphInstantiate(&recording.graph, made, 0);
  cudaGraphDestroy(made);
  kernels::gpu::check(status, "graph");
}
void launch(Recording& recording, const Launch& now) {
  auto& home = kernels::gpu::Context::mine();
  if (std::this_thread::get_id() != recording.thread) throw Error("[graph] expected run() on the thread that recorded the step");
  home.expect_no_recording("expected one graph at a time", "run() stands in a step that another graph records");
  if (*static_cast<void (*const volatile*)(const Fault&)>(&home.fault->raise) != nullptr) synchronize();  // throws it
  alignas(16) std::byte told[Recording::slot * Recording::slots];
  const auto step = static_cast<std::uint32_t>(now.step);
  std::memcpy(told, &step, sizeof step);
  for (std::size_t i = 0; i < recording.arguments.size(); ++i) recording.arguments[i]->fill(now, told + (i + 1) * Recording::slot);
  to_device(recording.on_gpu, told, (recording.arguments.size() + 1) * Recording::slot);
  kernels::gpu::check(cudaGraphLaunch(recording.graph, home.stream), "graph");
}
void drop_recording(Recording* recording) {
  auto& home = *recording->home;
  if (home.recording == recording)
    if (const cudaGraph_t made = recording->end(); made != nullptr) cudaGraphDestroy(made);
  cudaStreamSynchronize(home.stream);  // a launch may still run
  if (recording->graph != nullptr) cudaGraphExecDestroy(recording->graph);
  for (void* block : recording->held) home.pool.release(block, 0);
  home.pool.release(recording->on_gpu, 0);
  recording->kept.clear();
  recording->pool->release_cached();
  home.idle_pools.push_back(recording->pool);
  delete recording;
}

}  // namespace weft::inline WEFT_ABI::gpu
