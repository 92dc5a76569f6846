// Matrix products, the experts of a mixture and the fused head, for the types that ops and tests name.
#include "weft/kernels/cuda/expert_swiglu.cuh"
#include "weft/kernels/cuda/linear_cross_entropy.cuh"
#include "weft/kernels/cuda/matmul.cuh"
#include "weft/kernels/cuda/matmul_gelu.cuh"

namespace weft::inline WEFT_ABI::kernels {

#define WEFT_PRODUCTS(TA, TB, TC)                                                                            \
  template void matmul<TA, TB, TC>(cuda, In<TA, cuda>, In<TB, cuda>, Out<TC, cuda>, In<TB, cuda>);           \
  template void grouped_matmul<TA, TB, TC>(cuda, In<TA, cuda>, In<TB, cuda>, In<std::int64_t, cuda>, Out<TC, cuda>); \
  template void grouped_matmul_weight_gradient<TA, TB, TC>(cuda, In<TA, cuda>, In<TB, cuda>, In<std::int64_t, cuda>, Out<TC, cuda>);

WEFT_PRODUCTS(double, double, double)
WEFT_PRODUCTS(float, float, float)
WEFT_PRODUCTS(float, float, bf16)
WEFT_PRODUCTS(float, bf16, float)
WEFT_PRODUCTS(float, bf16, bf16)
WEFT_PRODUCTS(bf16, float, float)
WEFT_PRODUCTS(bf16, float, bf16)
WEFT_PRODUCTS(bf16, bf16, float)
WEFT_PRODUCTS(bf16, bf16, bf16)
WEFT_PRODUCTS(float, float, f16)
WEFT_PRODUCTS(float, f16, float)
WEFT_PRODUCTS(float, f16, f16)
WEFT_PRODUCTS(f16, float, float)
WEFT_PRODUCTS(f16, float, f16)
WEFT_PRODUCTS(f16, f16, float)
WEFT_PRODUCTS(f16, f16, f16)

#define WEFT_HEAD(T, W)                                                                                                    \
  template void linear_cross_entropy<T, W>(cuda, In<T, cuda>, In<W, cuda>, In<std::int64_t, cuda>, Index, GradientFactor,       \
                                           Out<stat_t<T>, cuda>, Out<T, cuda>, Out<param_grad_t<W>, cuda>);

#define WEFT_GELU_PRODUCTS(T, W)                                                                                               \
  template void matmul_gelu<T, W>(cuda, In<T, cuda>, In<W, cuda>, In<W, cuda>, Out<T, cuda>, Out<T, cuda>);                    \
  template void matmul_gelu_backward<T, W>(cuda, In<T, cuda>, In<W, cuda>, In<T, cuda>, Out<T, cuda>);

WEFT_GELU_PRODUCTS(double, double)
WEFT_GELU_PRODUCTS(float, float)
WEFT_GELU_PRODUCTS(float, bf16)
WEFT_GELU_PRODUCTS(bf16, bf16)
WEFT_GELU_PRODUCTS(float, f16)
WEFT_GELU_PRODUCTS(f16, f16)

#define WEFT_EXPERTS(T, W)                                                                                                             \
  template void expert_swiglu_forward<T, W>(cuda, In<T, cuda>, In<stat_t<T>, cuda>, In<W, cuda>, In<W, cuda>, In<std::int64_t, cuda>,  \
                                            In<std::int64_t, cuda>, Out<std::int32_t, cuda>, Out<stat_t<T>, cuda>, Out<T, cuda>,       \
                                            Out<T, cuda>, Out<T, cuda>);                                                               \
  template void expert_swiglu_output<T, W>(cuda, In<T, cuda>, In<W, cuda>, In<std::int64_t, cuda>, In<std::int64_t, cuda>, Out<T, cuda>); \
  template void expert_swiglu_backward<T, W>(cuda, In<T, cuda>, const ExpertSwiglu<T, W>&, Out<T, cuda>, Out<stat_t<T>, cuda>,         \
                                             Out<param_grad_t<W>, cuda>, Out<param_grad_t<W>, cuda>, Out<param_grad_t<W>, cuda>);

WEFT_EXPERTS(double, double)
WEFT_EXPERTS(float, float)
WEFT_EXPERTS(float, bf16)
WEFT_EXPERTS(bf16, bf16)
WEFT_EXPERTS(float, f16)
WEFT_EXPERTS(f16, f16)

WEFT_HEAD(double, double)
WEFT_HEAD(float, float)
WEFT_HEAD(float, bf16)
WEFT_HEAD(bf16, bf16)
WEFT_HEAD(float, f16)
WEFT_HEAD(f16, f16)
template void rescale<float>(cuda, Out<float, cuda>, In<float, cuda>, GradientFactor);
template void rescale<double>(cuda, Out<double, cuda>, In<double, cuda>, GradientFactor);
template void rescale<bf16>(cuda, Out<bf16, cuda>, In<float, cuda>, GradientFactor);
template void rescale<f16>(cuda, Out<f16, cuda>, In<float, cuda>, GradientFactor);

}  // namespace weft::inline WEFT_ABI::kernels

namespace weft::inline WEFT_ABI::gpu {

std::string experts_by() { return kernels::gpu::warpgroups::wanted() ? "wgmma" : "mma.sync"; }
void tune_products(const std::string& path) { kernels::gpu::lt::Tuning::current().emplace(path); }

}  // namespace weft::inline WEFT_ABI::gpu
