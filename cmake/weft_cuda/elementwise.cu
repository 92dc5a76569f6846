// The instantiations of elementwise kernels: map and fill for the functions and types that ops, optimizers and modules use.
#include "weft/kernels/cuda/map.cuh"

namespace weft::inline WEFT_ABI::kernels {

#define WEFT_MAP1(F, Y, X) template void map<F, Y, X>(cuda, F, Out<Y, cuda>, In<X, cuda>);
#define WEFT_MAP2(F, Y, A, B) template void map<F, Y, A, B>(cuda, F, Out<Y, cuda>, In<A, cuda>, In<B, cuda>);
#define WEFT_MAP3(F, Y, A, B, C) template void map<F, Y, A, B, C>(cuda, F, Out<Y, cuda>, In<A, cuda>, In<B, cuda>, In<C, cuda>);

/// Of any element type.
#define WEFT_MAPS_OF_ANY(T)                     \
  template void fill<T>(cuda, T, Out<T, cuda>); \
  template void count_up<T>(cuda, Index, Out<T, cuda>); \
  WEFT_MAP1(Copy, T, float)                     \
  WEFT_MAP1(Copy, T, double)                    \
  WEFT_MAP1(Copy, T, bf16)                      \
  WEFT_MAP1(Copy, T, f16)                       \
  WEFT_MAP1(Copy, T, std::int32_t)              \
  WEFT_MAP1(Copy, T, std::int64_t)              \
  WEFT_MAP1(Copy, T, std::uint8_t)              \
  WEFT_MAP1(Copy, T, bool)                      \
  WEFT_MAP2(Eq, bool, T, T)                     \
  WEFT_MAP2(Ne, bool, T, T)                     \
  WEFT_MAP2(Lt, bool, T, T)                     \
  WEFT_MAP2(Le, bool, T, T)                     \
  WEFT_MAP2(Gt, bool, T, T)                     \
  WEFT_MAP2(Ge, bool, T, T)                     \
  WEFT_MAP3(Select, T, bool, T, T)
WEFT_MAPS_OF_ANY(float)
WEFT_MAPS_OF_ANY(double)
WEFT_MAPS_OF_ANY(bf16)
WEFT_MAPS_OF_ANY(f16)
WEFT_MAPS_OF_ANY(std::int32_t)
WEFT_MAPS_OF_ANY(std::int64_t)
WEFT_MAPS_OF_ANY(std::uint8_t)
WEFT_MAPS_OF_ANY(bool)

#define WEFT_MAPS_OF_NUMBER(T) \
  WEFT_MAP2(Add, T, T, T)      \
  WEFT_MAP2(Sub, T, T, T)      \
  WEFT_MAP2(Mul, T, T, T)      \
  WEFT_MAP2(Div, T, T, T)      \
  WEFT_MAP1(Neg, T, T)         \
  WEFT_MAP1(AddScalar, T, T)   \
  WEFT_MAP1(MulScalar, T, T)   \
  WEFT_MAP1(DivScalar, T, T)
WEFT_MAPS_OF_NUMBER(float)
WEFT_MAPS_OF_NUMBER(double)
WEFT_MAPS_OF_NUMBER(bf16)
WEFT_MAPS_OF_NUMBER(f16)
WEFT_MAPS_OF_NUMBER(std::int32_t)
WEFT_MAPS_OF_NUMBER(std::int64_t)

#define WEFT_MAPS_OF_REAL(T)         \
  WEFT_MAP3(DivGradB, T, T, T, T)    \
  WEFT_MAP2(SelectGradA, T, T, bool) \
  WEFT_MAP2(SelectGradB, T, T, bool) \
  WEFT_MAP1(Square, T, T)            \
  WEFT_MAP3(NormGrad, T, T, T, T)    \
  WEFT_MAP1(Exp, T, T)               \
  WEFT_MAP2(ExpGrad, T, T, T)        \
  WEFT_MAP1(Log, T, T)               \
  WEFT_MAP2(LogGrad, T, T, T)        \
  WEFT_MAP1(Sqrt, T, T)              \
  WEFT_MAP2(SqrtGrad, T, T, T)       \
  WEFT_MAP1(Reciprocal, T, T)        \
  WEFT_MAP2(ReciprocalGrad, T, T, T) \
  WEFT_MAP1(Tanh, T, T)              \
  WEFT_MAP2(TanhGrad, T, T, T)       \
  WEFT_MAP1(Sigmoid, T, T)           \
  WEFT_MAP2(SigmoidGrad, T, T, T)    \
  WEFT_MAP1(Relu, T, T)              \
  WEFT_MAP2(ReluGrad, T, T, T)       \
  WEFT_MAP1(Silu, T, T)              \
  WEFT_MAP2(SiluGrad, T, T, T)       \
  WEFT_MAP1(Gelu, T, T)              \
  WEFT_MAP2(GeluGrad, T, T, T)       \
  WEFT_MAP1(GeluTanh, T, T)          \
  WEFT_MAP2(GeluTanhGrad, T, T, T)   \
  WEFT_MAP2(Lerp, stat_t<T>, stat_t<T>, T)
WEFT_MAPS_OF_REAL(float)
WEFT_MAPS_OF_REAL(double)
WEFT_MAPS_OF_REAL(bf16)
WEFT_MAPS_OF_REAL(f16)

WEFT_MAP1(DivScalarByCount, float, double)
WEFT_MAP1(DivScalarByCount, double, double)
WEFT_MAP1(DivScalarByCount, bf16, double)
WEFT_MAP1(DivScalarByCount, f16, double)

}  // namespace weft::inline WEFT_ABI::kernels
