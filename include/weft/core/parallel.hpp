// The only place that opens OpenMP regions. Each piece of work is computed by one thread alone, denormals are flushed in
// each, and where its extent decides bits it never depends on the number of threads: so results have the same bits for any.
#pragma once

#include <algorithm>
#include <exception>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "weft/core/error.hpp"

namespace weft::inline WEFT_ABI {

/// Flushes denormal results and inputs to zero on this thread while it lives.
class FlushDenormals {
 public:
#if defined(__SSE__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040u); }
  ~FlushDenormals() { _mm_setcsr(saved_); }
#else
  FlushDenormals() = default;
  ~FlushDenormals() = default;
#endif
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  [[maybe_unused]] unsigned saved_ = 0;
};

namespace detail {
inline int& thread_count() {
#if defined(_OPENMP)
  thread_local int count = std::max(1, omp_get_max_threads());
#else
  thread_local int count = 1;
#endif
  return count;
}

/// The pieces that a thread takes first, then the others help: so it meets the same rows from op to op, in its own caches, and no
/// counter is fought for while all are busy.
struct alignas(64) Share {
  static constexpr int most = 64;
  Index next, end;
};
}  // namespace detail

/// How many threads this rank uses. By default what OpenMP says (OMP_NUM_THREADS, else the cores).
inline int threads() { return detail::thread_count(); }

/// Sets it. The results do not depend on it. Throws ValueError where count < 1.
inline void set_threads(int count, Where where = here()) {
  if (count < 1) fail<ValueError>("set_threads", "expected at least 1 thread, got " + std::to_string(count), where);
  detail::thread_count() = count;
}

/// Calls piece(i) for every i in [0, pieces), on this rank's threads; an exception in a piece is thrown here.
/// Pieces may run in any order and must not write to the same place. Inside a piece it runs serially.
template <class Piece>
void parallel(Index pieces, Piece&& piece) {
#if defined(_OPENMP)
  if (pieces > 1 && threads() > 1 && omp_in_parallel() == 0) {
    std::exception_ptr error;
    const int team = static_cast<int>(std::min<Index>(pieces, threads())), shares = std::min(team, detail::Share::most);
    detail::Share share[detail::Share::most];
    for (int s = 0; s < shares; ++s) share[s].next = s * pieces / shares, share[s].end = (s + 1) * pieces / shares;
#pragma omp parallel num_threads(team)
    {
      const FlushDenormals flush;
      for (int s = 0, mine = omp_get_thread_num(); s < shares; ++s) {
        detail::Share& from = share[(mine + s) % shares];
        for (Index i = 0; (i = __atomic_fetch_add(&from.next, 1, __ATOMIC_RELAXED)) < from.end;) {
          try {
            piece(i);
          } catch (...) {
#pragma omp critical(weft_parallel_error)
            if (!error) error = std::current_exception();
          }
        }
      }
    }
    if (error) std::rethrow_exception(error);
    return;
  }
#endif
  const FlushDenormals flush;
  for (Index i = 0; i < pieces; ++i) piece(i);
}

/// Elements of a piece of elementwise work: large enough that starting one costs nothing, small enough to balance.
inline constexpr Index piece_size = 4096;

/// The same for n elements in all where the cut shows in no bit: more where each thread has many pieces all the same.
inline Index piece_of(Index n) { return std::clamp(n / (8 * threads()), piece_size, 4 * piece_size); }

/// Calls range(begin, end) over [0, n) cut at multiples of `size`.
template <class Range>
void parallel_ranges(Index n, Index size, Range&& range) {
  parallel((n + size - 1) / size, [&](Index i) { range(i * size, std::min(n, (i + 1) * size)); });
}

}  // namespace weft::inline WEFT_ABI
