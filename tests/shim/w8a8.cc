/* The kernels as the host compiler sees them, and the fragments of one of their operations. */
#include "engine/cuda/w8a8.cu"

/* d [16, 8] = a [16, 32] b [8, 32]^T + c [16, 8], by a warp: which lane holds what is as the
 * PTX ISA says of the fragments of mma.m16n8k32 with .s8. */
static void mma_s8_kernel(const int8_t *a, const int8_t *b, const int32_t *c, int32_t *d) {
    wait_for_others();
    int group = lane_id() / 4, thread = lane_id() % 4;
    int8_t ra[16], rb[8];
    uint32_t wa[4], wb[2];
    int32_t rc[4], rd[4];
    for (int i = 0; i < 16; i++) {
        int row = (i < 4 || (8 <= i && i < 12)) ? group : group + 8;
        int col = thread * 4 + (i & 3) + (i < 8 ? 0 : 16);
        ra[i] = a[row * 32 + col];
    }
    for (int i = 0; i < 8; i++)
        rb[i] = b[group * 32 + thread * 4 + (i & 3) + (i < 4 ? 0 : 16)];
    memcpy(wa, ra, sizeof wa);
    memcpy(wb, rb, sizeof wb);
    for (int i = 0; i < 4; i++)
        rc[i] = c[(i < 2 ? group : group + 8) * 8 + thread * 2 + (i & 1)];
    mma_s8(rd, wa, wb, rc);
    for (int i = 0; i < 4; i++)
        d[(i < 2 ? group : group + 8) * 8 + thread * 2 + (i & 1)] = rd[i];
}

void shim_try_mma_s8(const int8_t *a, const int8_t *b, const int32_t *c, int32_t *d) {
    auto body = shim_bind<mma_s8_kernel>(mma_s8_kernel, a, b, c, d);
    shim_run("mma_s8", dim3(1), 32, 0, shim_call<decltype(body)>, &body);
}
