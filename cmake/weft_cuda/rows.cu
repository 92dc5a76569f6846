// The instantiations of kernels over rows: norms, softmax, the loss, gates, rotations, the optimizer's step and the moves of experts.
#include "weft/kernels/cuda/adamw.cuh"
#include "weft/kernels/cuda/cross_entropy.cuh"
#include "weft/kernels/cuda/experts.cuh"
#include "weft/kernels/cuda/layer_norm.cuh"
#include "weft/kernels/cuda/rms_norm.cuh"
#include "weft/kernels/cuda/rope.cuh"
#include "weft/kernels/cuda/softmax.cuh"
#include "weft/kernels/cuda/swiglu.cuh"

namespace weft::inline WEFT_ABI::kernels {

#define WEFT_ROWS_OF(T)                                                                                                            \
  template void softmax_forward<T>(cuda, In<T, cuda>, Out<T, cuda>);                                                               \
  template void softmax_backward<T>(cuda, In<T, cuda>, In<T, cuda>, Out<T, cuda>);                                                 \
  template void log_softmax_forward<T>(cuda, In<T, cuda>, Out<T, cuda>);                                                           \
  template void log_softmax_backward<T>(cuda, In<T, cuda>, In<T, cuda>, Out<T, cuda>);                                             \
  template void swiglu_forward<T>(cuda, In<T, cuda>, In<T, cuda>, Out<T, cuda>);                                                   \
  template void swiglu_backward<T>(cuda, In<T, cuda>, In<T, cuda>, In<T, cuda>, Out<T, cuda>, Out<T, cuda>);                       \
  template void rope_forward<T>(cuda, In<T, cuda>, In<std::int64_t, cuda>, double, Index, bool, Out<T, cuda>);                     \
  template void cross_entropy_forward<T>(cuda, In<T, cuda>, In<std::int64_t, cuda>, Index, Out<stat_t<T>, cuda>,                   \
                                         Out<stat_t<T>, cuda>);                                                                    \
  template void cross_entropy_backward<T>(cuda, In<stat_t<T>, cuda>, In<T, cuda>, In<std::int64_t, cuda>, Index,                   \
                                          In<stat_t<T>, cuda>, Out<T, cuda>);                                                      \
  template void adamw_step<T, param_grad_t<T>, stat_t<T>>(cuda, std::span<const AdamWPart<T, param_grad_t<T>, stat_t<T>, cuda>>);  \
  template void squared_norm<T>(cuda, std::span<const NormPart<T, cuda>>);                                                         \
  template void expert_dispatch_forward<T>(cuda, In<T, cuda>, In<std::int64_t, cuda>, Index, Out<T, cuda>);                        \
  template void expert_dispatch_backward<T>(cuda, In<T, cuda>, In<std::int64_t, cuda>, Index, Out<T, cuda>);                       \
  template void expert_combine_forward<T>(cuda, In<T, cuda>, In<stat_t<T>, cuda>, In<std::int64_t, cuda>, Out<T, cuda>);           \
  template void expert_combine_backward<T>(cuda, In<T, cuda>, In<T, cuda>, In<stat_t<T>, cuda>, In<std::int64_t, cuda>,            \
                                           Out<T, cuda>, Out<stat_t<T>, cuda>);
WEFT_ROWS_OF(float)
WEFT_ROWS_OF(double)
WEFT_ROWS_OF(bf16)
WEFT_ROWS_OF(f16)
template void adamw_step<bf16, float, bf16>(cuda, std::span<const AdamWPart<bf16, float, bf16, cuda>>);

#define WEFT_NORMS_OF(T, W)                                                                                                        \
  template void layer_norm_forward<T, W>(cuda, In<T, cuda>, In<W, cuda>, In<W, cuda>, double, Out<T, cuda>, Out<stat_t<T>, cuda>,  \
                                         Out<stat_t<T>, cuda>);                                                                    \
  template void layer_norm_backward<T, W>(cuda, In<T, cuda>, In<T, cuda>, In<W, cuda>, In<stat_t<T>, cuda>, In<stat_t<T>, cuda>,   \
                                          Out<T, cuda>, Out<param_grad_t<W>, cuda>, Out<param_grad_t<W>, cuda>);                   \
  template void rms_norm_forward<T, W>(cuda, In<T, cuda>, In<W, cuda>, double, Out<T, cuda>, Out<stat_t<T>, cuda>);                \
  template void add_layer_norm_forward<T, W>(cuda, In<T, cuda>, In<T, cuda>, In<W, cuda>, In<W, cuda>, double, Out<T, cuda>,       \
                                             Out<T, cuda>, Out<stat_t<T>, cuda>, Out<stat_t<T>, cuda>);                            \
  template void add_rms_norm_forward<T, W>(cuda, In<T, cuda>, In<T, cuda>, In<W, cuda>, double, Out<T, cuda>, Out<T, cuda>,        \
                                           Out<stat_t<T>, cuda>);                                                                  \
  template void rms_norm_backward<T, W>(cuda, In<T, cuda>, In<T, cuda>, In<W, cuda>, In<stat_t<T>, cuda>, Out<T, cuda>,            \
                                        Out<param_grad_t<W>, cuda>);
WEFT_NORMS_OF(float, float)
WEFT_NORMS_OF(float, bf16)
WEFT_NORMS_OF(double, double)
WEFT_NORMS_OF(bf16, bf16)
WEFT_NORMS_OF(float, f16)
WEFT_NORMS_OF(f16, f16)

}  // namespace weft::inline WEFT_ABI::kernels
