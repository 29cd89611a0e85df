/*
 * hf_folder.h - a Hugging Face folder made in a test: text files, and safetensors files with
 * right and with wrong headers. For test programs only.
 */
#ifndef LLMCHAT_TESTS_HF_FOLDER_H
#define LLMCHAT_TESTS_HF_FOLDER_H

#include "base/mem.h"
#include "base/path.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64]; /* of this program */

static inline void folder_make(void) {
    strcpy(folder, "/tmp/llmchat-hf-XXXXXX");
    if (!mkdtemp(folder))
        abort();
}

static inline void folder_put(const char *name, const void *p, size_t len) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(p, 1, len, f) != len || fclose(f) != 0)
        abort();
}

static inline void folder_text(const char *name, const char *text) {
    folder_put(name, text, strlen(text));
}

static inline void folder_remove(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path);
}

static inline void folder_empty(void) {
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.')
            folder_remove(e->d_name);
    if (d)
        closedir(d);
}

static inline void folder_drop(void) {
    folder_empty();
    rmdir(folder);
}

/* A safetensors file: {0} is an empty one. */
struct st_file {
    struct buf header, data;
};

/* shape: "[2,3]". */
static inline void st_add(struct st_file *s, const char *name, const char *dtype,
                          const char *shape, const void *p, size_t len) {
    buf_addf(&s->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
             s->header.len ? "," : "{", name, dtype, shape, s->data.len, s->data.len + len);
    buf_add(&s->data, p, len);
}

/* F32 values: first, first + 1, … */
static inline void st_count(struct st_file *s, const char *name, const char *shape, size_t n,
                            float first) {
    float *v = xreallocarray(NULL, n, sizeof *v);
    for (size_t i = 0; i < n; i++)
        v[i] = first + (float)i;
    st_add(s, name, "F32", shape, v, n * sizeof *v);
    free(v);
}

/* The whole file into out; s is empty after. */
static inline void st_end(struct st_file *s, struct buf *out) {
    buf_adds(&s->header, s->header.len ? "}" : "{}");
    for (int i = 0; i < 8; i++)
        buf_addc(out, (char)((uint64_t)s->header.len >> 8 * i));
    buf_add(out, s->header.p, s->header.len);
    buf_add(out, buf_str(&s->data), s->data.len);
    buf_release(&s->header);
    buf_release(&s->data);
}

static inline void folder_st(const char *name, struct st_file *s) {
    struct buf file = {0};
    st_end(s, &file);
    folder_put(name, file.p, file.len);
    buf_release(&file);
}

#endif
