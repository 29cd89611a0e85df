/* The kernels as the host compiler sees them. */
#include "engine/cuda/attention.cu"
