// What a window and the documents of packed rows leave: a causal query sees no key before its first, which never falls from one query to the
// next, so that the queries which see a key end somewhere, too. Both are looked up by the kernels, and skip tiles at both ends.
#pragma once

#include <optional>

#include "weft/kernels/cuda/attention_layout.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu::attention {

/// Null pointers: each query sees keys from 0 on.
struct Limits {
  const int* first_keys = nullptr;  ///< (B, queries) the first key that a query sees; after the last query those of the last
  const int* query_ends = nullptr;  ///< (B, keys) the end of the queries that see a key
  int queries = 0, keys = 0;        ///< each a multiple of every tile

  __host__ __device__ explicit operator bool() const { return first_keys != nullptr; }
  __device__ int first_key(int b, int query) const { return first_keys[Index{b} * queries + query]; }
  __device__ int query_end(int b, int key) const { return query_ends[Index{b} * keys + key]; }
};

/// starts (B, Tk) or null: where the document of each key's position begins.
struct Documents {
  const std::int32_t* starts;
  Index batch, time;
  int window;

  explicit operator bool() const { return starts != nullptr || window > 0; }
  /// What was not made as it should is an error that the host hears of later; till then it must lead nobody out of a row.
  __device__ int first_key(const Sizes& n, int b, int query) const {
    const int position = query + n.shift(), from = window > 0 ? max(0, position - window + 1) : 0;
    return starts != nullptr ? max(from, min(position, starts[b * batch + position * time])) : from;
  }
};

inline Documents documents(const AttentionOptions& options, const In<std::int32_t, cuda>& starts) {
  const int window = static_cast<int>(std::min<Index>(options.window, 1 << 30));
  if (!starts) return {nullptr, 0, 0, window};
  return {starts.data, stride_of(starts.shape, starts.strides, 0), stride_of(starts.shape, starts.strides, 1), window};
}

template <int threads>
__global__ __launch_bounds__(threads) void find_limits(Sizes n, Documents documents, int queries, int keys, int* first_keys, int* query_ends) {
  const Index at = Index{blockIdx.x} * threads + threadIdx.x, sample = divide(at, queries + keys);
  const int b = static_cast<int>(sample), i = static_cast<int>(at - sample * (queries + keys)), key = i - queries;
  if (b >= n.B) return;
  if (key < 0) {
    first_keys[sample * queries + i] = documents.first_key(n, b, min(i, n.Tq - 1));
    return;
  }
  int seeing = 0, end = n.Tq;  // the last query that may see it lies from seeing - 1 on before end
  while (seeing < end) {
    const int middle = (seeing + end) / 2;
    if (documents.first_key(n, b, middle) <= key) seeing = middle + 1;
    else end = middle;
  }
  query_ends[sample * keys + key] = end;
}

/// Limits in memory of its own.
class FoundLimits {
 public:
  /// ends: also the ends of queries, which the backward reads.
  FoundLimits(const Sizes& n, const Documents& documents, bool ends) {
    if (!documents) return;
    const int queries = padded(n.Tq), keys = ends ? padded(n.Tk) : 0;
    const Index count = Index{n.B} * (queries + keys);
    int* const first_keys = memory_.emplace(std::max<Index>(count, 1)).data();
    limits = {first_keys, first_keys + Index{n.B} * queries, queries, keys};
    if (count == 0) return;
    find_limits<256><<<grid((count + 255) / 256, 1), 256, 0, stream()>>>(n, documents, queries, keys, first_keys, first_keys + Index{n.B} * queries);
    check_launch("attention");
  }

  Limits limits;  ///< null where there is neither a window nor a document

 private:
  std::optional<Scratch<int>> memory_;
};

}  // namespace weft::inline WEFT_ABI::kernels::gpu::attention
