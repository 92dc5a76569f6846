// Many products at once, each of its own extents, as experts have them.
#pragma once

#include <algorithm>

#include "weft/kernels/cpu/gemm.hpp"

namespace weft::inline WEFT_ABI::kernels::gemm {

/// Products of any extents, each cut by its share of all the work into tasks that need nothing of each other. To be made outside `parallel`,
/// where threads() is this rank's.
template <class P>
struct Tasks {
  double work = 0;  ///< of all of them
  Index wanted = threads();

  /// Multiply-adds, and a result each: there is none without work.
  template <class TA, class TB, class TC>
  static double work_of(const Problem<TA, TB, TC>& p) {
    return static_cast<double>(p.M) * static_cast<double>(p.N) * static_cast<double>(p.K + 1);
  }
  /// So many products like this one would be all the work.
  template <class TA, class TB, class TC>
  Index alike(const Problem<TA, TB, TC>& p) const { return std::max<Index>(1, static_cast<Index>(work / work_of(p))); }

  template <class TA, class TB, class TC>
  Index count(const Problem<TA, TB, TC>& p) const {
    if (p.M == 0 || p.N == 0) return 0;
#if defined(__x86_64__)
    if constexpr (std::is_same_v<P, SplitPair>)
      if (Streamed::takes(p.M, p.K)) return Streamed(p, pieces(wanted, alike(p))).tasks();
#endif
    return Grid::balanced(p.M, p.N, p.K, alike(p), false).count(p.M, p.N);
  }
  template <class TA, class TB, class TC>
  void run(const Problem<TA, TB, TC>& p, Index i) const {
#if defined(__x86_64__)
    if constexpr (std::is_same_v<P, SplitPair>)
      if (Streamed::takes(p.M, p.K)) return Streamed(p, pieces(wanted, alike(p))).multiply(p, i);
#endif
    const Grid grid = Grid::balanced(p.M, p.N, p.K, alike(p), false);
    const Index m0 = i % pieces(p.M, grid.m) * grid.m, n0 = i / pieces(p.M, grid.m) * grid.n;
    tile<P>(p, m0, n0, std::min(grid.m, p.M - m0), std::min(grid.n, p.N - n0), {0, panel_depth<P>(p.K)});
  }
};

/// So many products, each of its own extents.
template <class GetProblem>
void multiply_each(Index products, GetProblem problem) {
  if (products == 0) return;
  using Any = decltype(problem(0));
  [&]<class TA, class TB, class TC>(const Problem<TA, TB, TC>*) {
    with_panels<TA, TB, TC>([&]<class P>(P) {
      Tasks<P> tasks;
      for (Index i = 0; i < products; ++i) tasks.work += tasks.work_of(problem(i));
      const Scratch<Index> ends(products);  // of each product's tasks among all
      Index all = 0;
      for (Index i = 0; i < products; ++i) ends[i] = all += tasks.count(problem(i));
      parallel(all, [&](Index task) {
        const Index i = std::upper_bound(ends.data(), ends.data() + products, task) - ends.data();
        tasks.run(problem(i), task - (i > 0 ? ends[i - 1] : 0));
      });
    });
  }(static_cast<const Any*>(nullptr));
}

}  // namespace weft::inline WEFT_ABI::kernels::gemm
