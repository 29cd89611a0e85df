/*
 * fuzz_container.c - any bytes as one of our model files: the container alone, then the whole
 * of model_open() over a file that exists only in memory.
 */
#include "engine/model/container.h"
#include "engine/model/model.h"
#include "engine/quant/pack.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads the last row of a matrix, and with it the ends of its data and scales. */
static void touch_weight(const struct weight *w) {
    float *row = xreallocarray(NULL, (size_t)w->K, sizeof *row);
    weight_unpack_row(w, w->Np - 1, row);
    free(row);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct container *c;
    struct err err;
    struct model *m;
    char path[64];
    if (container_parse(data, size, "fuzz", &c, &err) != ST_OK)
        return 0;
    for (size_t i = 0; i < container_n_tensors(c); i++)
        container_find(c, container_tensor(c, i)->name);
    container_close(c);
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (model_open(path, &m, &err) == ST_OK) {
        touch_weight(&m->embd.w);
        touch_weight(&m->layers[m->hp.n_layer - 1].wo.w);
        model_close(m);
    }
    close(fd);
    return 0;
}
