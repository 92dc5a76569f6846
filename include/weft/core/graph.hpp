// A training step that the GPU repeats without the host: recorded once, as a CUDA graph, and launched from then on with one call. What a
// small model's step costs beyond its kernels is the host's work for each of them.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

#include "weft/core/gpu.hpp"

namespace weft::inline WEFT_ABI {

/// What changes from one launch to the next, beside the contents of tensors.
struct Launch {
  Index step = 0;  ///< that of the tape's key: random numbers are a function of it
  double lr = 0;   ///< that of the optimizer's step
};

namespace gpu {

struct Recording;

/// Up to 64 bytes on the GPU that are filled before each launch.
struct LaunchArgument {
  virtual ~LaunchArgument() = default;
  virtual void fill(const Launch& now, void* to) = 0;
};
/// What this thread's recording is told, or null where nothing is recorded: then, and only then, the host must neither wait nor copy.
const Launch* recording();
/// Counts this thread's recordings from 1; 0 where nothing is recorded.
Index recording_number();
/// Where a recorded kernel finds it. The graph owns the argument.
const void* launch_argument(std::unique_ptr<LaunchArgument> argument);
/// Where a recorded kernel finds the step, or null where nothing is recorded. Throws ValueError where the recording is of another step.
const std::uint32_t* launch_step(std::uint32_t step);
/// A block that a recorded kernel uses, and somebody may give back before the graph ends; nothing where nothing is recorded.
void keep_for_launches(const Ref<Storage>& block);
/// How often this thread has thrown a fault.
Index faults_thrown();

Recording* begin_recording(const Launch& now);
void end_recording(Recording& recording);
void launch(Recording& recording, const Launch& now);
void drop_recording(Recording* recording);

}  // namespace gpu

/// run(now, f) makes one step, f(): the first time as it stands, which makes what is made once (plans, tables, states of an optimizer);
/// the second time f is recorded; from then on f is not called any more: the record is launched, and run returns before it has ended. The
/// bits are f's. On the CPU f is called each time.
///
/// f holds forward, backward and the optimizer's step. It reads its batch from tensors that stay, to which one assigns before each run, and
/// what it assigns to tensors, losses and norms outside, each launch writes again: they may be read after any run. What the host decides in
/// it is decided when it is recorded. The key's step and the optimizer's lr must be `now`'s. What it uses
/// must live as long as the graph. It may hold several micro-batches, dropout, recompute and AdamW::step on one rank; what needs the
/// host meanwhile (item(), to<cpu>, a Tape's check, AdamW::backward, ranks) throws, and says so, while f is recorded. A gradient norm that is not
/// finite throws NumericError when the host next waits; that update and all after it have changed no weight. Memory of the
/// recorded step stays the graph's. A graph belongs to the thread that runs it, and while f is recorded no other thread may use the GPU.
template <class D = default_device>
class Graph {
 public:
  template <class F>
  void run(const Launch& now, F&& f) {
    if (!warm_) {
      f();
      warm_ = true;
      return;
    }
    if (!recording_) {
      std::unique_ptr<gpu::Recording, Drop> fresh(gpu::begin_recording(now));
      f();
      gpu::end_recording(*fresh);
      recording_ = std::move(fresh);
    }
    gpu::launch(*recording_, now);
  }
  /// Forgets the record, for other shapes: the next run is a first one.
  void reset() { recording_ = nullptr, warm_ = false; }

 private:
  struct Drop {
    void operator()(gpu::Recording* recording) const { gpu::drop_recording(recording); }
  };
  std::unique_ptr<gpu::Recording, Drop> recording_;
  bool warm_ = false;
};
template <>
class Graph<cpu> {
 public:
  template <class F>
  void run(const Launch&, F&& f) { f(); }
  void reset() {}
};

namespace detail {
// As gpu's; on the CPU nothing is recorded, and no fault waits.
template <class D>
const Launch* recording() {
  if constexpr (std::is_same_v<D, cpu>) return nullptr;
  else return gpu::recording();
}
template <class D>
Index recording_number() {
  if constexpr (std::is_same_v<D, cpu>) return 0;
  else return gpu::recording_number();
}
template <class D>
Index faults_thrown() {
  if constexpr (std::is_same_v<D, cpu>) return 0;
  else return gpu::faults_thrown();
}
}  // namespace detail

}  // namespace weft::inline WEFT_ABI
