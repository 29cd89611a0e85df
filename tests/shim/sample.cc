/* sample.cc - src/engine/cuda/sample.cu for the host. */
#include "engine/cuda/sample.cu"
