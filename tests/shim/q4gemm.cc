/* The kernels as the host compiler sees them. */
#include "engine/cuda/q4gemm.cu"
