/*
 * stream.h - a stream of the shim as other libraries get it (fake_nccl.c): what runs in it
 * comes behind what was asked for before.
 */
#ifndef LLMCHAT_TESTS_SHIM_STREAM_H
#define LLMCHAT_TESTS_SHIM_STREAM_H

struct shim_stream {
    void (*run_dry)(struct shim_stream *s); /* what was asked for runs now */
    void *device;
};

#endif
