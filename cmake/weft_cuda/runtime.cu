// Streams, memory and copies on the GPU: a part of weft::cuda.
#include "weft/kernels/cuda/runtime.cuh"
