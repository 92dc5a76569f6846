// Streams, memory, copies and recorded steps on the GPU: a part of weft::cuda.
#include "weft/kernels/cuda/graph.cuh"
#include "weft/kernels/cuda/runtime.cuh"
