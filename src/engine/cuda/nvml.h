/*
 * nvml.h - what a GPU does just now, from NVIDIA's management library (NVML).
 *
 * The library comes with the driver and is opened at run time, by the name that LLMCHAT_NVML
 * says or libnvidia-ml.so.1. A device is found by its PCI address, since NVML does not know of
 * CUDA_VISIBLE_DEVICES. Of a part of a card (MIG) it speaks of the whole card, and leaves out
 * what it can't say.
 *
 * nvml_open() and nvml_read() ask the driver and take milliseconds, the first far more where
 * the driver sleeps: who may not wait asks a watch.
 */
#ifndef LLMCHAT_ENGINE_CUDA_NVML_H
#define LLMCHAT_ENGINE_CUDA_NVML_H

#include "base/err.h"
#include "base/mem.h"
#include <stdint.h>

/* -1: the card does not say. */
struct nvml_load {
    int64_t used_bytes, total_bytes; /* of its memory, by all programs */
    int busy, memory_busy;           /* percent of the time, in the last second at most */
    int celsius;
    int milliwatt, limit_milliwatt;
};

struct nvml;

/* pci: "0000:0f:00.0". ST_NOT_FOUND: no such library, or no such device in it. */
enum status nvml_open(const char *pci, struct nvml **out, struct err *err);
/* ST_UNSUPPORTED: the card says nothing at all. */
enum status nvml_read(struct nvml *n, struct nvml_load *out, struct err *err);
void nvml_close(struct nvml *n); /* NULL is allowed */

/* Appends what is known: "3.1 of 79.6 GiB in use, 97 % busy (memory 60 %), 61 °C, 645 of 700
 * W". */
void nvml_text(const struct nvml_load *l, struct buf *out);

/* Reads on a thread of its own, at most once a second and only while somebody asks. Any thread
 * may ask. */
struct nvml_watch;
struct nvml_watch *nvml_watch_new(const char *pci);
/* The last reading, at once. ST_BUSY: there is none of the last three seconds yet; else why
 * there is none, as above. */
enum status nvml_watch_get(struct nvml_watch *w, struct nvml_load *out, struct err *err);
void nvml_watch_free(struct nvml_watch *w); /* waits for a reading; NULL is allowed */

#endif
