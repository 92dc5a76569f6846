// The instantiations of reductions, of rows picked by index, and of random values; checks of indices, and where documents begin.
#include "weft/kernels/cuda/document_starts.cuh"
#include "weft/kernels/cuda/dropout.cuh"
#include "weft/kernels/cuda/expect.cuh"
#include "weft/kernels/cuda/index.cuh"
#include "weft/kernels/cuda/random.cuh"
#include "weft/kernels/cuda/reduce.cuh"
#include "weft/kernels/cuda/tree_reduce.cuh"

namespace weft::inline WEFT_ABI::kernels {

#define WEFT_SUM1(F, Y, X) template void map_sum<F, Y, X>(cuda, F, Out<Y, cuda>, In<X, cuda>);
#define WEFT_SUM2(F, Y, A, B) template void map_sum<F, Y, A, B>(cuda, F, Out<Y, cuda>, In<A, cuda>, In<B, cuda>);
#define WEFT_SUM3(F, Y, A, B, C) template void map_sum<F, Y, A, B, C>(cuda, F, Out<Y, cuda>, In<A, cuda>, In<B, cuda>, In<C, cuda>);

#define WEFT_REDUCTIONS_OF_NUMBER(T)                                                                                \
  WEFT_SUM1(MulScalar, T, T)                                                                                        \
  WEFT_SUM1(Copy, T, T)                                                                                             \
  template void reduce_max<T>(cuda, Out<T, cuda>, In<T, cuda>);                                                     \
  template void reduce_min<T>(cuda, Out<T, cuda>, In<T, cuda>);                                                     \
  template void argmax<T>(cuda, Out<std::int64_t, cuda>, In<T, cuda>, Index);                                       \
  template void take<T>(cuda, In<T, cuda>, In<std::int64_t, cuda>, Out<T, cuda>);                                   \
  template void gather<T>(cuda, In<T, cuda>, In<std::int64_t, cuda>, Index, Out<T, cuda>);                          \
  template void topk<T>(cuda, In<T, cuda>, Index, Out<T, cuda>, Out<std::int64_t, cuda>);
WEFT_REDUCTIONS_OF_NUMBER(float)
WEFT_REDUCTIONS_OF_NUMBER(double)
WEFT_REDUCTIONS_OF_NUMBER(bf16)
WEFT_REDUCTIONS_OF_NUMBER(f16)
WEFT_REDUCTIONS_OF_NUMBER(std::int32_t)
WEFT_REDUCTIONS_OF_NUMBER(std::int64_t)

#define WEFT_REDUCTIONS_OF_REAL(T)                                                                                  \
  WEFT_SUM1(Neg, T, T)                                                                                              \
  WEFT_SUM1(Square, T, T)                                                                                           \
  WEFT_SUM2(Mul, T, T, T)                                                                                           \
  WEFT_SUM2(Div, T, T, T)                                                                                           \
  WEFT_SUM2(Eq, T, T, T)                                                                                            \
  WEFT_SUM3(DivGradB, T, T, T, T)                                                                                   \
  WEFT_SUM2(SelectGradA, T, T, bool)                                                                                \
  WEFT_SUM2(SelectGradB, T, T, bool)                                                                                \
  template void gather_backward<T>(cuda, In<T, cuda>, In<std::int64_t, cuda>, Index, Out<T, cuda>);                 \
  template void take_backward<T, param_grad_t<T>>(cuda, In<T, cuda>, In<std::int64_t, cuda>, Out<param_grad_t<T>, cuda>); \
  template void dropout_forward<T>(cuda, In<T, cuda>, double, RandomKey, Out<T, cuda>);                             \
  template void dropout_backward<T>(cuda, In<T, cuda>, double, RandomKey, Out<T, cuda>);                            \
  template void normal_fill<T>(cuda, RandomKey, double, double, Index, Out<T, cuda>);                               \
  template void uniform_fill<T>(cuda, RandomKey, double, double, Index, Out<T, cuda>);
WEFT_REDUCTIONS_OF_REAL(float)
WEFT_REDUCTIONS_OF_REAL(double)
WEFT_REDUCTIONS_OF_REAL(bf16)
WEFT_REDUCTIONS_OF_REAL(f16)

WEFT_SUM1(Copy, float, bf16)  // the gradient of a narrow bias
WEFT_SUM1(Copy, float, f16)
WEFT_SUM1(Copy, std::int64_t, bool)

}  // namespace weft::inline WEFT_ABI::kernels
