// States in the host's memory pass through the GPU's, a window after the other: while one is computed on, the next comes and the last
// goes back, each on a stream of its own. The host waits for nothing, and what is computed is what it would be without.
//
//   in        | window 0 | window 1 | window 2 | ...                 slot 0, slot 1, slot 0, ...
//   compute              | 0 |      | 1 |      | 2 |
//   out                      | window 0 | window 1 | window 2 |
#pragma once

#include <algorithm>
#include <array>
#include <utility>

#include "weft/core/lanes.hpp"
#include "weft/core/tensor.hpp"

namespace weft::inline WEFT_ABI::optim {

/// On the CPU states are in the host's memory anyway.
template <class D>
class Offload {
 public:
  void finish() {}
};

template <>
class Offload<cuda> {
 public:
  static constexpr Index window = Index{1} << 20;  ///< elements

  Offload() = default;
  Offload(const Offload&) = delete;
  Offload& operator=(const Offload&) = delete;
  ~Offload() {
    try {
      finish();
    } catch (const Error&) {  // the GPU failed, which whoever uses it next hears of
    }
  }

  /// Calls f(begin, end, m, v, master) for windows [begin, end) of the arrays, with pointers to where their elements are meanwhile, null for
  /// an undefined master; what f asks the GPU to write there reaches the arrays by finish().
  template <class M, class S, class F>
  void pass(const Tensor<M, cuda>& m, const Tensor<M, cuda>& v, const Tensor<S, cuda>& master, F&& f) {
    if (!slots_) slots_ = new_storage<cuda>(2 * slot_bytes);
    gpu::order(gpu::Lane::compute, gpu::Lane::in);  // what used this memory before, or wrote the arrays
    for (Index begin = 0; begin < m.numel(); begin += window, slot_ = 1 - slot_) {
      const Index end = std::min(m.numel(), begin + window);
      auto* room = static_cast<std::byte*>(slots_->data) + slot_ * slot_bytes;
      Window coming;
      const auto come = [&]<class T>(const Tensor<T, cuda>& x) -> T* {
        if (!x.defined()) return nullptr;
        auto* const here = reinterpret_cast<T*>(std::exchange(room, room + static_cast<std::size_t>(window) * sizeof(T)));
        coming[used(coming)] = {x.data() + begin, here, static_cast<std::size_t>(end - begin) * sizeof(T)};
        gpu::copy(gpu::Lane::in, here, x.data() + begin, static_cast<std::size_t>(end - begin) * sizeof(T));
        return here;
      };
      gpu::order(gpu::Lane::out, gpu::Lane::in);  // the slot's last window; the other slot's has not been sent back yet
      M *const ms = come(m), *const vs = come(v);
      S* const masters = come(master);
      send_back();
      gpu::order(gpu::Lane::in, gpu::Lane::compute);
      f(begin, end, ms, vs, masters);
      computed_ = coming;
    }
  }
  /// What the thread's stream is asked for from here on finds all windows back.
  void finish() {
    if (!slots_) return;
    send_back();
    gpu::order(gpu::Lane::out, gpu::Lane::compute);
    slots_ = {};
  }

 private:
  struct Copy {
    void* host = nullptr;
    const void* here = nullptr;
    std::size_t bytes = 0;
  };
  using Window = std::array<Copy, 3>;
  static constexpr std::size_t slot_bytes = static_cast<std::size_t>(window) * 16;  // m and v of double; or of float, and a master

  static std::size_t used(const Window& w) {
    return static_cast<std::size_t>(std::find_if(w.begin(), w.end(), [](const Copy& c) { return c.bytes == 0; }) - w.begin());
  }
  /// Sends the window that was computed on last back.
  void send_back() {
    const Window leaving = std::exchange(computed_, {});
    if (leaving[0].bytes == 0) return;
    gpu::order(gpu::Lane::compute, gpu::Lane::out);
    for (const Copy& c : leaving)
      if (c.bytes > 0) gpu::copy(gpu::Lane::out, c.host, c.here, c.bytes);
  }

  Ref<Storage> slots_;
  std::size_t slot_ = 0;
  Window computed_;
};

}  // namespace weft::inline WEFT_ABI::optim
