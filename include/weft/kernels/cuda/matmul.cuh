// Matrix multiplication on the GPU through cuBLASLt. What it cannot take is copied first: operands of two types (narrow ones become float,
// exactly) and operands without an axis of stride 1. An element is rounded once, but where a comment says otherwise.
#pragma once

#include <cassert>
#include <optional>
#include <utility>

#include "weft/kernels/cuda/cublaslt.cuh"
#include "weft/kernels/cuda/grouped_matmul.cuh"
#include "weft/kernels/cuda/launch.cuh"
#include "weft/kernels/cuda/matmul.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

/// A batch of matrices by strides.
template <class T>
struct Matrices {
  T* data;
  Index row, column, batch;
};

/// A grid for lines of `columns` elements; the kernel loops over what is left in both directions.
inline dim3 grid_of_lines(Index lines, Index columns) {
  return dim3(blocks_for(columns), static_cast<unsigned>(std::clamp<Index>(lines, 1, 65535)));
}

/// to (batch, rows, columns), a line each `ld`, = from by strides.
template <class To, class From>
__global__ void pack_kernel(To* __restrict__ to, Index ld, Matrices<const From> from, Index batch, Index rows, Index columns) {
  for (Index line = blockIdx.y; line < batch * rows; line += gridDim.y) {
    const From* const source = from.data + line / rows * from.batch + line % rows * from.row;
    for (Index j = Index{blockIdx.x} * blockDim.x + threadIdx.x; j < columns; j += Index{gridDim.x} * blockDim.x)
      to[line * ld + j] = static_cast<To>(static_cast<stat_t<To>>(source[j * from.column]));
  }
}
template <class To, class From>
void pack(To* to, Index ld, const Matrices<const From>& from, Index batch, Index rows, Index columns) {
  pack_kernel<To, From><<<grid_of_lines(batch * rows, columns), 256, 0, stream()>>>(to, ld, from, batch, rows, columns);
  check_launch("matmul");
}

/// c (+)= sums + bias, rounded once. sums (batch, M, N) contiguous, or null for zeros; bias (N) or null.
template <class TC, class TB>
__global__ void finish_kernel(Matrices<TC> c, int beta, const stat_t<TC>* sums, const TB* bias, Index batch, Index M, Index N) {
  using S = stat_t<TC>;
  for (Index line = blockIdx.y; line < batch * M; line += gridDim.y) {
    TC* const to = c.data + line / M * c.batch + line % M * c.row;
    for (Index j = Index{blockIdx.x} * blockDim.x + threadIdx.x; j < N; j += Index{gridDim.x} * blockDim.x) {
      S value = sums != nullptr ? sums[line * N + j] : S(0);
      if (bias != nullptr) value += static_cast<S>(bias[j]);
      put(to[j], value, beta);
    }
  }
}
template <class TC, class TB>
void finish(const Matrices<TC>& c, int beta, const stat_t<TC>* sums, const TB* bias, Index batch, Index M, Index N) {
  if (sums == nullptr && bias == nullptr && beta == 1) return;
  finish_kernel<TC, TB><<<grid_of_lines(batch * M, N), 256, 0, stream()>>>(c, beta, sums, bias, batch, M, N);
  check_launch("matmul");
}

/// A batch of matrices as cuBLASLt takes it: of type P, one axis of stride 1, the other of at least its extent. A copy where T's is not.
template <class P, class T>
class Operand {
 public:
  Operand(Matrices<const T> from, Index batch, Index rows, Index columns) {
    if constexpr (std::is_same_v<P, T>) {
      data = from.data;
      batch_stride = batch > 1 ? from.batch : 0;
      if (columns <= 1 && (from.row == 1 || rows <= 1)) by_columns = true, ld = rows;
      else if ((from.column == 1 || columns <= 1) && (rows <= 1 || from.row >= columns)) ld = rows <= 1 ? columns : from.row;
      else if ((from.row == 1 || rows <= 1) && from.column >= rows) by_columns = true, ld = from.column;
      else data = nullptr;
      if (data != nullptr) return;
    }
    // The copy keeps the order of the axes, so that both sides are read and written along their lines.
    by_columns = columns <= 1 || (rows > 1 && from.row != 0 && (from.column == 0 || from.row < from.column));
    if (by_columns) {
      std::swap(rows, columns);
      std::swap(from.row, from.column);
    }
    const Index copies = batch > 1 && from.batch != 0 ? batch : 1;
    ld = (columns + 7) / 8 * 8;  // lines start at multiples of 16 bytes
    batch_stride = copies > 1 ? rows * ld : 0;
    copy_.emplace(copies * rows * ld);
    data = copy_->data();
    pack<P, T>(copy_->data(), ld, from, copies, rows, columns);
  }

  const P* data = nullptr;
  bool by_columns = false;
  Index ld = 0, batch_stride = 0;

 private:
  std::optional<Scratch<P>> copy_;
};

template <class P, class TC, class TA, class TB>
void multiply_through_float(Index batch, Index M, Index N, Index K, const Matrices<const TA>& a, const Matrices<const TB>& b,
                            const Matrices<TC>& c, int beta, const TB* bias);

/// The product of operands of one type into a result that cuBLASLt can write.
template <class P, class TC, class TA, class TB>
void multiply_as(Index batch, Index M, Index N, Index K, const Matrices<const TA>& a, const Matrices<const TB>& b, const Matrices<TC>& c,
                 int beta, const TB* bias) {
  const Operand<P, TA> left(a, batch, M, K);
  const Operand<P, TB> right(b, batch, K, N);
  lt::Product p{.operands = dtype_of<P>,
                .result = dtype_of<TC>,
                .M = M, .N = N, .K = K, .batch = batch,
                .a = left.data, .b = right.data, .bias = nullptr, .c = c.data,
                .a_columns = left.by_columns, .b_columns = right.by_columns,
                .a_ld = left.ld, .b_ld = right.ld, .c_ld = M <= 1 ? N : c.row,
                .a_batch = left.batch_stride, .b_batch = right.batch_stride, .c_batch = batch > 1 ? c.batch : 0,
                .beta = beta};
  std::optional<Scratch<TC>> bias_copy;
  if (bias != nullptr && !std::is_same_v<P, double>) {
    if constexpr (std::is_same_v<TB, TC>) p.bias = bias;
    if (p.bias == nullptr || reinterpret_cast<std::uintptr_t>(bias) % 16 != 0) {
      bias_copy.emplace(N);
      pack<TC, TB>(bias_copy->data(), N, {bias, 0, 1, 0}, 1, 1, N);
      p.bias = bias_copy->data();
    }
    if (lt::multiply(p)) return;
  }
  if constexpr (Narrow<TC>) {
    if (bias != nullptr) return multiply_through_float<P, TC, TA, TB>(batch, M, N, K, a, b, c, beta, bias);
  } else if (bias != nullptr) {  // no epilogue for it: c takes it first. With beta 1 c is rounded twice, to float or double
    finish<TC, TB>(c, beta, nullptr, bias, batch, M, N);
    p.bias = nullptr;
    p.beta = 1;
  }
  if (lt::multiply(p)) return;
  throw Error("[matmul] cuBLASLt has no algorithm for " + std::to_string(batch) + " of (" + std::to_string(M) + ", " + std::to_string(K) +
              ") x (" + std::to_string(K) + ", " + std::to_string(N) + ") of " + dtype_name<P> + " into " + dtype_name<TC>);
}

/// The same where c has 16 bits and cuBLASLt cannot add all that c is the sum of.
template <class P, class TC, class TA, class TB>
void multiply_through_float(Index batch, Index M, Index N, Index K, const Matrices<const TA>& a, const Matrices<const TB>& b,
                            const Matrices<TC>& c, int beta, const TB* bias) {
  const Scratch<float> sums(batch * M * N);
  multiply_as<P, float, TA, TB>(batch, M, N, K, a, b, {sums.data(), N, 1, M * N}, 0, nullptr);
  finish<TC, TB>(c, beta, sums.data(), bias, batch, M, N);
}

/// A batch along one axis.
template <class TA, class TB, class TC>
void multiply(Index batch, Index M, Index N, Index K, const Matrices<const TA>& a, const Matrices<const TB>& b, const Matrices<TC>& c,
              int beta, const TB* bias) {
  using P = std::conditional_t<std::is_same_v<TA, TB>, TA, float>;
  if (K == 0) finish<TC, TB>(c, beta, nullptr, bias, batch, M, N);
  else if constexpr (std::is_same_v<P, float> && Narrow<TC>)
    multiply_through_float<P, TC, TA, TB>(batch, M, N, K, a, b, c, beta, bias);
  else multiply_as<P, TC, TA, TB>(batch, M, N, K, a, b, c, beta, bias);
}

}  // namespace gpu

template <class TA, class TB, class TC>
void matmul(cuda, In<TA, cuda> a, In<TB, cuda> b, Out<TC, cuda> c, In<TB, cuda> bias) {
  static_assert(std::is_same_v<stat_t<TA>, stat_t<TC>> && std::is_same_v<stat_t<TB>, stat_t<TC>>,
                "weft: matmul takes all double, or float, bf16 and f16");
  if (!c || c.numel() == 0) return;
  // A batch of rows times one matrix is one larger product.
  while (c.shape.rank() > 2) {
    const Index x = c.shape.rank() - 3, batch = c.shape[x], M = c.shape[x + 1];
    const auto merges = [&](const Strides& s) { return M == 1 || batch == 1 || s[x] == M * s[x + 1]; };
    if (!(batch == 1 || b.strides[x] == 0) || !merges(a.strides) || !merges(c.strides)) break;
    for (auto [shape, strides] : {std::pair{&a.shape, &a.strides}, std::pair{&c.shape, &c.strides}}) {
      (*shape)[x + 1] *= batch;
      if (M == 1) (*strides)[x + 1] = (*strides)[x];
      shape->erase(x);
      strides->erase(x);
    }
    b.shape.erase(x);
    b.strides.erase(x);
  }
  const Index x = c.shape.rank() - 2, M = c.shape[x], N = c.shape[x + 1], K = a.shape[x + 1];
  assert(a.shape.rank() == x + 2 && a.shape[x] == M);
  assert(b.shape.rank() == x + 2 && b.shape[x] == K && b.shape[x + 1] == N);
  assert(N <= 1 || c.strides[x + 1] == 1);

  // The batch's axes, where possible merged; the longest is cuBLASLt's, the others are a loop.
  struct Axis {
    Index extent, a, b, c;
  };
  Axis axes[max_rank] = {{1, 0, 0, 0}};
  Index count = 0;
  for (Index axis = 0; axis < x; ++axis) {
    const Axis next{c.shape[axis], a.strides[axis], b.strides[axis], c.strides[axis]};
    if (next.extent == 1) continue;
    Axis* const last = count > 0 ? &axes[count - 1] : nullptr;
    if (last != nullptr && last->a == next.extent * next.a && last->b == next.extent * next.b && last->c == next.extent * next.c)
      *last = {last->extent * next.extent, next.a, next.b, next.c};
    else axes[count++] = next;
  }
  const auto longest = std::max_element(axes, axes + count, [](const Axis& l, const Axis& r) { return l.extent < r.extent; });
  const Axis inner = count > 0 ? *longest : Axis{1, 0, 0, 0};
  Index outer = 1;
  if (count > 0) {
    std::move(longest + 1, axes + count, longest);
    --count;
  }
  for (Index axis = 0; axis < count; ++axis) outer *= axes[axis].extent;
  for (Index i = 0; i < outer; ++i) {
    const TA* a_data = a.data;
    const TB* b_data = b.data;
    TC* c_data = c.data;
    Index rest = i;
    for (Index axis = count - 1; axis >= 0; --axis) {
      const Index at = rest % axes[axis].extent;
      rest /= axes[axis].extent;
      a_data += at * axes[axis].a;
      b_data += at * axes[axis].b;
      c_data += at * axes[axis].c;
    }
    for (Index from = 0; from < inner.extent; from += gpu::lt::max_batch)
      gpu::multiply<TA, TB, TC>(std::min(gpu::lt::max_batch, inner.extent - from), M, N, K,
                                {a_data + from * inner.a, a.strides[x], a.strides[x + 1], inner.a},
                                {b_data + from * inner.b, b.strides[x], b.strides[x + 1], inner.b},
                                {c_data + from * inner.c, c.strides[x], 1, inner.c}, c.beta, bias.data);
  }
}

template <class TA, class TB, class TC>
void grouped_matmul(cuda, In<TA, cuda> x, In<TB, cuda> w, In<std::int64_t, cuda> offsets, Out<TC, cuda> y) {
  static_assert(std::is_same_v<stat_t<TA>, stat_t<TC>> && std::is_same_v<stat_t<TB>, stat_t<TC>>,
                "weft: grouped_matmul takes all double, or float, bf16 and f16");
  gpu::grouped_rows(x, nullptr, w, offsets.data, y);
}

template <class TA, class TB, class TC>
void grouped_matmul_weight_gradient(cuda, In<TA, cuda> x, In<TB, cuda> dy, In<std::int64_t, cuda> offsets, Out<TC, cuda> dw) {
  static_assert(std::is_same_v<stat_t<TA>, stat_t<TC>> && std::is_same_v<stat_t<TB>, stat_t<TC>>,
                "weft: the grouped gradient takes all double, or float, bf16 and f16");
  gpu::grouped_sum(x, nullptr, dy, nullptr, offsets.data, x.shape[0], dw);
}

}  // namespace weft::inline WEFT_ABI::kernels
