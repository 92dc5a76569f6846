// The attention kernels, compiled once.
#include "weft/kernels/cuda/attention.cuh"

namespace weft::inline WEFT_ABI::kernels {

#define WEFT_ATTENTION(T)                                                                                                                \
  template void attention_forward<T>(cuda, In<T, cuda>, In<T, cuda>, In<T, cuda>, Out<T, cuda>, Out<stat_t<T>, cuda>, AttentionOptions); \
  template void attention_backward<T>(cuda, In<T, cuda>, In<T, cuda>, In<T, cuda>, In<T, cuda>, In<T, cuda>, In<stat_t<T>, cuda>,        \
                                      Out<T, cuda>, Out<T, cuda>, Out<T, cuda>, AttentionOptions);
WEFT_ATTENTION(float)
WEFT_ATTENTION(double)
WEFT_ATTENTION(bf16)
#undef WEFT_ATTENTION

}  // namespace weft::inline WEFT_ABI::kernels
