// The attention kernels, compiled once; and what a run's bits depend on, which they know most of.
#include <cublasLt.h>

#include "weft/kernels/cuda/attention.cuh"

namespace weft::inline WEFT_ABI::kernels {

#define WEFT_ATTENTION(T)                                                                                                                \
  template void attention_forward<T>(cuda, In<T, cuda>, In<T, cuda>, In<T, cuda>, Out<T, cuda>, Out<stat_t<T>, cuda>, AttentionOptions, \
                                     In<std::int32_t, cuda>);                                                                            \
  template void attention_backward<T>(cuda, In<T, cuda>, In<T, cuda>, In<T, cuda>, In<T, cuda>, In<T, cuda>, In<stat_t<T>, cuda>,        \
                                      Out<T, cuda>, Out<T, cuda>, Out<T, cuda>, AttentionOptions, In<std::int32_t, cuda>);
WEFT_ATTENTION(float)
WEFT_ATTENTION(double)
WEFT_ATTENTION(bf16)
WEFT_ATTENTION(f16)
#undef WEFT_ATTENTION

}  // namespace weft::inline WEFT_ABI::kernels

namespace weft::inline WEFT_ABI::gpu {

std::string experts_by();  // matrix.cu

std::string environment() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    (void)cudaGetLastError();  // forget it
    return "none";
  }
  std::string text = describe() + ", cuBLASLt " + std::to_string(cublasLtGetVersion()) + ", experts by " + experts_by() + ", attention by ";
#if defined(WEFT_CUDNN)
  if (kernels::gpu::attention::has_cudnn()) text += "cuDNN " + std::to_string(cudnnGetVersion()) + " and ";
#endif
  return text + "weft on " + (kernels::gpu::attention::has_wgmma() ? "wgmma" : "mma.sync");
}

}  // namespace weft::inline WEFT_ABI::gpu
