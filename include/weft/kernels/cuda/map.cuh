// Elementwise work over any strides: axes that lie together are merged on the host, and each thread takes a pack of neighbours of
// the innermost one where all operands allow that, else one element. A thread reads its elements before it writes them, so y may be
// one of the inputs.
#pragma once

#include "weft/kernels/cuda/hardware_math.cuh"
#include "weft/kernels/cuda/loops.cuh"
#include "weft/kernels/cuda/map.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

template <class T, int V>
struct Values {
  stat_t<T> at[V];
};

/// V neighbours, or one element V times.
template <int V, class T>
__device__ inline Values<T, V> load_values(const T* from, bool same) {
  Values<T, V> values;
  if (V == 1 || same) {
    const stat_t<T> value = static_cast<stat_t<T>>(*from);
#pragma unroll
    for (int i = 0; i < V; ++i) values.at[i] = value;
  } else {
    load<V>(from, values.at);
  }
  return values;
}

template <int V, class F, class TY, class... TX>
__device__ inline void map_pack(F f, int beta, TY* y, const Values<TX, V>&... x) {
  stat_t<TY> result[V];
#pragma unroll
  for (int i = 0; i < V; ++i) result[i] = static_cast<stat_t<TY>>(f(x.at[i]...));
  store<V>(y, result, beta);
}

template <int V, class F, class TY, std::size_t... I, class... TX>
__device__ inline void map_at(std::index_sequence<I...>, F f, unsigned same, int beta, const Index (&offset)[1 + sizeof...(TX)], TY* y,
                              const TX*... x) {
  if (same == 0)  // apart, so that no branch stands between the loads
    map_pack<V, F, TY, TX...>(f, beta, y + offset[0], load_values<V>(x + offset[I + 1], false)...);
  else map_pack<V, F, TY, TX...>(f, beta, y + offset[0], load_values<V>(x + offset[I + 1], (same >> (I + 1)) & 1u)...);
}

// Where all types have 16 bits, activations take the hardware's 2^x and division: their error is far below what rounding to those does.
struct SiluNarrow {
  __device__ float operator()(float x) const { return x * sigmoid_for<bf16>(x); }
};
struct SiluGradNarrow {
  __device__ float operator()(float dy, float x) const {
    const float s = sigmoid_for<bf16>(x);
    return dy * math::fma(x * s, 1 - s, s);
  }
};
/// (1 + tanh a) / 2 is sigmoid(2 a).
struct GeluTanhNarrow {
  __device__ float operator()(float x) const { return x * sigmoid_for<bf16>(2 * GeluTanh::angle(x)); }
};
struct GeluTanhGradNarrow {
  __device__ float operator()(float dy, float x) const {
    const float s = sigmoid_for<bf16>(2 * GeluTanh::angle(x));
    const float dangle = 0.79788456080286536f * math::fma(0.134145f * x, x, 1.0f);
    return dy * math::fma(2 * x * dangle, s * (1 - s), s);
  }
};
struct SigmoidNarrow {
  __device__ float operator()(float x) const { return sigmoid_for<bf16>(x); }
};
template <class F>
struct NarrowForm {
  using type = F;
};
template <>
struct NarrowForm<Silu> {
  using type = SiluNarrow;
};
template <>
struct NarrowForm<SiluGrad> {
  using type = SiluGradNarrow;
};
template <>
struct NarrowForm<GeluTanh> {
  using type = GeluTanhNarrow;
};
template <>
struct NarrowForm<GeluTanhGrad> {
  using type = GeluTanhGradNarrow;
};
template <>
struct NarrowForm<Sigmoid> {
  using type = SigmoidNarrow;
};
/// What computes F on these types.
template <class F, class... T>
using form_of = std::conditional_t<(Narrow<T> && ...), typename NarrowForm<F>::type, F>;

/// Packs of V along the innermost loop, whose extent counts packs; bit k of `same`: operand k has one element along it. The last
/// `rest` elements, which make no whole pack, belong to a single loop.
template <int V, class F, class TY, class... TX>
__global__ void __launch_bounds__(256) map_kernel(F f, const __grid_constant__ Loops<1 + sizeof...(TX)> loops, Index packs, int rest,
                                                  unsigned same, int beta, TY* y, const TX*... x) {
  constexpr int operands = 1 + static_cast<int>(sizeof...(TX));
  const Index first = thread_index();
  for (Index i = first; i < packs; i += thread_count()) {
    Index offset[operands] = {};
    loops.seek(i, loops.rank, offset);
    map_at<V, F, TY>(std::index_sequence_for<TX...>{}, f, same, beta, offset, y, x...);
  }
  if (V > 1 && first < rest) {
    Index offset[operands];
    for (int k = 0; k < operands; ++k) offset[k] = (same >> k) & 1u ? 0 : packs * V + first;
    map_at<1, F, TY>(std::index_sequence_for<TX...>{}, f, 0u, beta, offset, y, x...);
  }
}

/// Of one input that lies together as y does: a thread has `each` packs, under way together, since with one operand alone too few bytes
/// are. The last `rest` elements make no whole pack.
template <int V, int each, class F, class TY, class TX>
__global__ void __launch_bounds__(256) map_flat_kernel(F f, Index packs, int rest, int beta, TY* y, const TX* x) {
  const Index first = thread_index();
  for (Index at = static_cast<Index>(blockIdx.x) * (256 * each) + threadIdx.x; at < packs; at += thread_count() * each) {
    Words<TX, V> words[each];
#pragma unroll
    for (int k = 0; k < each; ++k)
      if (at + 256 * k < packs) words[k] = Words<TX, V>::read(x + (at + 256 * k) * V);
#pragma unroll
    for (int k = 0; k < each; ++k) {
      if (at + 256 * k >= packs) break;
      Values<TX, V> values;
      words[k].widen(values.at);
      map_pack<V, F, TY, TX>(f, beta, y + (at + 256 * k) * V, values);
    }
  }
  if (first < rest) map_pack<1, F, TY, TX>(f, beta, y + packs * V + first, load_values<1>(x + packs * V + first, false));
}

/// Copies between operands of which one runs along axis `inner`, the other across it on axis `inner - 1`: squares through shared
/// memory, so that both sides use whole cache lines.
template <class T>
__global__ void __launch_bounds__(256) transpose_kernel(const __grid_constant__ Loops<2> loops, Index squares_along, Index squares_across,
                                                        Index blocks, int beta, T* y, const T* x) {
  constexpr int side = 32;
  __shared__ T square[side][side + 1];
  const int axis = loops.rank - 1, tx = static_cast<int>(threadIdx.x) % side, ty = static_cast<int>(threadIdx.x) / side;
  for (Index block = blockIdx.x; block < blocks; block += gridDim.x) {
    const Index up = block / squares_along, c0 = block % squares_along * side, r0 = up % squares_across * side;
    Index offset[2] = {};
    loops.seek(up / squares_across, axis - 1, offset);
    const Index columns = loops.extent[axis], rows = loops.extent[axis - 1];
    for (int i = ty; i < side; i += 8)  // x runs along the rows
      if (c0 + i < columns && r0 + tx < rows)
        square[i][tx] = x[offset[1] + (r0 + tx) * loops.stride[1][axis - 1] + (c0 + i) * loops.stride[1][axis]];
    __syncthreads();
    for (int i = ty; i < side; i += 8)
      if (r0 + i < rows && c0 + tx < columns)
        put(y[offset[0] + (r0 + i) * loops.stride[0][axis - 1] + (c0 + tx) * loops.stride[0][axis]], static_cast<stat_t<T>>(square[tx][i]),
            beta);
    __syncthreads();
  }
}

/// Elements of a pack for operands of these types: 16 bytes of the widest.
template <class... T>
inline constexpr int common_pack = [] {
  int v = 8;
  ((v = pack_of<T> < v ? pack_of<T> : v), ...);
  return v;
}();

/// True iff the loops can go in packs of V along the innermost.
template <int V, int K>
bool goes_in_packs(const Loops<K>& loops, const bool (&aligned)[K]) {
  const int inner = loops.rank - 1;
  if (loops.rank > 1 && loops.extent[inner] % V != 0) return false;
  for (int k = 0; k < K; ++k) {
    if (loops.stride[k][inner] == 0 && k > 0) continue;
    if (loops.stride[k][inner] != 1 || !aligned[k]) return false;
    for (int a = 0; a < inner; ++a)
      if (loops.stride[k][a] % V != 0) return false;
  }
  return true;
}

template <class T>
__global__ void __launch_bounds__(256) count_up_kernel(Index start, Index n, T* y) {
  for (Index i = thread_index(); i < n; i += thread_count()) y[i] = static_cast<T>(static_cast<stat_t<T>>(start + i));
}

template <class F, class TY, class... TX>
void map_launch(F f, const Out<TY, cuda>& y, const In<TX, cuda>&... x) {
  if (!y || y.numel() == 0) return;
  constexpr int operands = 1 + static_cast<int>(sizeof...(TX));
  const Strides* const strides[] = {&y.strides, &x.strides...};
  Loops<operands> loops;
  for (Index a = 0; a < y.shape.rank(); ++a) {
    if (y.shape[a] == 1) continue;
    assert(y.strides[a] > 0);
    for (int k = 0; k < operands; ++k) loops.stride[k][loops.rank] = (*strides[k])[a];
    loops.push(y.shape[a]);
  }
  // y's fastest axis becomes the innermost, whatever order the axes are named in.
  for (int a = 1; a < loops.rank; ++a)
    for (int b = a; b > 0 && loops.stride[0][b - 1] < loops.stride[0][b]; --b) loops.swap(b - 1, b);
  loops.merge();
  if (loops.rank == 0) {
    for (int k = 0; k < operands; ++k) loops.stride[k][0] = 1;
    loops.push(1);
  }
  const int inner = loops.rank - 1;

  if constexpr (std::is_same_v<F, Copy> && std::is_same_v<void(TY), void(TX...)>) {
    int across = -1;  // the axis on which x's neighbours lie
    for (int a = 0; a < inner; ++a)
      if (loops.stride[1][a] == 1 && loops.stride[1][inner] > 1 && loops.stride[0][inner] == 1) across = a;
    if (across >= 0 && loops.extent[across] >= 16 && loops.extent[inner] >= 16) {
      for (int a = across; a + 1 < inner; ++a) loops.swap(a, a + 1);
      const Index along = (loops.extent[inner] + 31) / 32, up = (loops.extent[inner - 1] + 31) / 32;
      const Index blocks = along * up * loops.count(inner - 1);
      transpose_kernel<TY><<<blocks_for(blocks, 1), 256, 0, stream()>>>(loops, along, up, blocks, y.beta, y.data, x.data...);
      return check_launch("map");
    }
  }

  constexpr int V = common_pack<TY, TX...>;
  const bool aligned[] = {is_aligned<V>(y.data), is_aligned<V>(x.data)...};
  if (V > 1 && goes_in_packs<V>(loops, aligned)) {
    unsigned same = 0;
    for (int k = 1; k < operands; ++k)
      if (loops.stride[k][inner] == 0) same |= 1u << k;
    const int rest = static_cast<int>(loops.extent[inner] % V);  // 0 where there are outer loops
    loops.extent[inner] /= V;
    for (int k = 0; k < operands; ++k) loops.stride[k][inner] *= V;
    const Index packs = loops.count();
    if constexpr (sizeof...(TX) == 1 && std::is_same_v<void(TY), void(TX...)> && std::is_floating_point_v<stat_t<TY>>)
      if (loops.rank == 1 && same == 0) {
        constexpr int each = 2;
        map_flat_kernel<V, each, F, TY><<<blocks_for(packs, 256 * each), 256, 0, stream()>>>(f, packs, rest, y.beta, y.data, x.data...);
        return check_launch("map");
      }
    map_kernel<V, F, TY, TX...><<<blocks_for(packs), 256, 0, stream()>>>(f, loops, packs, rest, same, y.beta, y.data, x.data...);
  } else {
    const Index n = loops.count();
    map_kernel<1, F, TY, TX...><<<blocks_for(n), 256, 0, stream()>>>(f, loops, n, 0, 0u, y.beta, y.data, x.data...);
  }
  check_launch("map");
}

}  // namespace gpu

template <class F, class TY, class... TX>
void map(cuda, F f, Out<TY, cuda> y, std::type_identity_t<In<TX, cuda>>... x) {
  using Form = gpu::form_of<F, TY, TX...>;
  if constexpr (std::is_same_v<Form, F>) gpu::map_launch<F, TY, TX...>(f, y, x...);
  else gpu::map_launch<Form, TY, TX...>(Form{}, y, x...);
}

template <class T>
void count_up(cuda, Index start, Out<T, cuda> y) {
  if (y.numel() == 0) return;
  gpu::count_up_kernel<T><<<gpu::blocks_for(y.numel()), 256, 0, gpu::stream()>>>(start, y.numel(), y.data);
  gpu::check_launch("arange");
}

template <class T>
void fill(cuda, T value, Out<T, cuda> y) {
  using S = stat_t<T>;
  map<Constant<S>, T>(cuda{}, Constant<S>{static_cast<S>(value)}, y);
}

}  // namespace weft::inline WEFT_ABI::kernels
