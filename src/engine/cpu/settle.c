/*
 * settle.c - weights in huge pages.
 *
 * A decoded token reads all weights once, and with pages of 4 kB the processor looks up twenty
 * thousand addresses for it, on a virtual machine each in two tables. From pages of 2 MB one
 * thread read 28 GB/s instead of 14 to 17, two threads 34 instead of 23 to 26. A model that
 * was written by container_write.c, or came from the disk since it was opened, has such pages
 * in the system's cache where the file system has them for files, and nothing is done here.
 * Else weights are copied, piece by piece while tokens are decoded, into memory of the process,
 * and the mapping's pages are given back.
 *
 * Data: arenas of huge pages, filled from front to back; of a weight its parts, one behind the
 * other, each at a 64-byte border. A weight's pointers change when all of it was copied. What
 * was moved no longer depends on the file.
 *
 * With several memory nodes they are copied also where the cache has them in huge pages, and
 * each weight at once: its pages, cut among the threads much as its row tiles are (pool.c),
 * then mostly lie on the node of the thread that reads them. Threads are not pinned; no such
 * machine was there to see what that is worth.
 *
 * Not done where it would not help or would harm: huge pages are off, the model takes more than
 * a third of the memory that is free (the cache keeps the file, too, while nobody else needs
 * the room). When the first pages turn out small, it ends there.
 *
 * Rejected: copying when the model is opened (86 MB: 20 to 40 ms of the first token's time);
 * MADV_COLLAPSE on the mapping (needs a kernel option, off where it was tried).
 */
#include "engine/cpu/cpu_internal.h"

#include "base/file_map.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/cpu/cgroup.h"
#include "engine/cpu/cores.h"
#include "engine/quant/pack.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define THP "/sys/kernel/mm/transparent_hugepage/"

enum {
    ARENA_BYTES = 64 << 20, /* address space; memory only as it is written */
    MAX_PAGE_BYTES = 32 << 20,
    ITEM_BYTES = 2 << 20, /* that a thread copies in one go */
};

/* The weight is in its copy from now on, and what it was in is given back. */
static void move(struct weight *w, const struct weight_part part[WEIGHT_PARTS], char *to) {
    w->data = to + part[0].at;
    if (w->scale)
        w->scale = (const float *)(void *)(to + part[1].at);
    if (w->min)
        w->min = (const float *)(void *)(to + part[2].at);
    if (w->code)
        w->code = (const uint8_t *)(to + part[3].at);
    if (w->absmax2)
        w->absmax2 = (const float *)(void *)(to + part[4].at);
    for (int i = 0; i < WEIGHT_PARTS; i++)
        file_map_drop(part[i].from, part[i].bytes);
}

/* Copying */

struct copy {
    const struct weight_part *part; /* [WEIGHT_PARTS] */
    char *to;
    size_t from, end; /* of the copy, what this loop does */
};

/* Items are cut where huge pages are, so that no page is first touched by two threads. Places
 * are counted from the border before the copy. */
static void copy_item(void *ctx, int item, int thread) {
    const struct copy *c = ctx;
    size_t skew = (uintptr_t)c->to % ITEM_BYTES;
    size_t cut = ((skew + c->from) / ITEM_BYTES + (size_t)item) * ITEM_BYTES;
    size_t from = cut > skew + c->from ? cut - skew : c->from;
    size_t end = cut + ITEM_BYTES < skew + c->end ? cut + ITEM_BYTES - skew : c->end;
    (void)thread;
    for (int i = 0; i < WEIGHT_PARTS; i++) {
        const struct weight_part *p = &c->part[i];
        size_t a = from > p->at ? from : p->at, z = p->at + p->bytes;
        z = end < z ? end : z;
        if (a < z)
            memcpy(c->to + a, (const char *)p->from + (a - p->at), z - a);
    }
}

static void copy_range(struct cpu *c, const struct weight_part *part, char *to, size_t from,
                       size_t end) {
    struct copy copy = {part, to, from, end};
    size_t skew = (uintptr_t)to % ITEM_BYTES;
    size_t n_item = (skew + end - 1) / ITEM_BYTES - (skew + from) / ITEM_BYTES + 1;
    if (from < end)
        pool_run(c->pool, (int)n_item, copy_item, &copy);
}

/* Memory */

static size_t number_in(const char *path) {
    FILE *f = fopen(path, "re");
    size_t n = 0;
    if (f && fscanf(f, "%zu", &n) != 1)
        n = 0;
    if (f)
        fclose(f);
    return n;
}

size_t cpu_huge_page_bytes(void) {
    char line[128] = "";
    FILE *f = fopen(THP "enabled", "re");
    bool on = f && fgets(line, sizeof line, f) && !strstr(line, "[never]");
    if (f)
        fclose(f);
    size_t bytes = on ? number_in(THP "hpage_pmd_size") : 0;
    return bytes & (bytes - 1) ? 0 : bytes;
}

/* Bytes of a field ("Rss:") of the mapping that p is in, of those that /proc/self/smaps has. */
static void smaps(const void *p, int n, const char *const field[], size_t bytes[]) {
    FILE *f = fopen("/proc/self/smaps", "re");
    char line[512];
    bool here = false;
    for (int i = 0; i < n; i++)
        bytes[i] = 0;
    while (f && fgets(line, sizeof line, f)) {
        unsigned long long begin, end, kb;
        if (sscanf(line, "%llx-%llx ", &begin, &end) == 2) {
            if (here)
                break;
            here = (uintptr_t)p >= begin && (uintptr_t)p < end;
        }
        for (int i = 0; here && i < n; i++)
            if (strncmp(line, field[i], strlen(field[i])) == 0 &&
                sscanf(line + strlen(field[i]), "%llu", &kb) == 1)
                bytes[i] = (size_t)kb * 1024;
    }
    if (f)
        fclose(f);
}

static void take_least(void *user, const char *dir) {
    size_t *least = user;
    char path[640];
    snprintf(path, sizeof path, "%s/memory.max", dir);
    size_t n = number_in(path);
    *least = n && n < *least ? n : *least;
}

/* Memory that can be taken without pushing anything out. */
static size_t available_bytes(void) {
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];
    unsigned long long kb = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu", &kb) == 1)
            break;
    if (f)
        fclose(f);
    size_t least = (size_t)kb * 1024;
    cgroup_folders("memory", take_least, &least);
    return least;
}

static bool stop(struct settle *s, const char *why) {
    log_info("weights stay where they are mapped: %s", why);
    s->off = true;
    return false;
}

/* Whether it is worth while, asked once, when weights were read for some time. */
static bool begin(struct settle *s, const struct weight *w) {
    static const char *const field[] = {"Rss:", "FilePmdMapped:"};
    size_t bytes[2];
    s->begun = true;
    s->page = cpu_huge_page_bytes();
    s->nodes = s->nodes ? s->nodes : cores_own_nodes();
    if (s->always) {
        s->page = 2 << 20;
        s->seen = true;
        return true;
    }
    if (!s->page || s->page > MAX_PAGE_BYTES)
        return stop(s, "huge pages are off");
    if (s->bound < 4 * s->page)
        return stop(s, "they are few");
    if (s->bound > available_bytes() / 3)
        return stop(s, "there is no memory for a copy");
    smaps(w->data, 2, field, bytes);
    if (s->nodes == 1 && bytes[1] > bytes[0] / 4 * 3)
        return stop(s, "in huge pages");
    return true;
}

/* Room for a weight, at a 64-byte border. */
static char *room(struct settle *s, size_t bytes) {
    if ((size_t)(s->end - s->at) >= bytes) {
        s->at += bytes;
        return s->at - bytes;
    }
    size_t size = bytes > ARENA_BYTES ? bytes : ARENA_BYTES;
    if (add_overflows(size, 2 * s->page, &size))
        return NULL;
    size -= size % s->page;
    char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    madvise(p, size, MADV_HUGEPAGE);
    s->arenas = xreallocarray(s->arenas, (size_t)s->n_arena + 1, sizeof *s->arenas);
    s->arenas[s->n_arena++] = (struct settle_arena){p, size};
    char *at = p + (s->page - (uintptr_t)p % s->page) % s->page, *end = p + size;
    if (end - at - (ptrdiff_t)bytes > s->end - s->at) { /* the next weights go there */
        s->at = at + bytes;
        s->end = end;
    }
    return at;
}

/* When the first page was filled: is it one? */
static bool got_huge(struct settle *s) {
    static const char *const field[] = {"AnonHugePages:"};
    size_t bytes;
    smaps(s->arenas[0].p, 1, field, &bytes);
    s->seen = true;
    return bytes > 0 || stop(s, "the system gave no huge pages");
}

bool cpu_settle(struct backend *be, struct weight *w, size_t *bytes) {
    struct cpu *c = cpu_of(be);
    struct settle *s = &c->settle;
    struct weight_part part[WEIGHT_PARTS];
    size_t all = weight_parts(w, part);
    if (s->off || (!s->begun && !begin(s, w)))
        return true;
    if (!s->to && !(s->to = room(s, all))) {
        stop(s, "there is no memory for a copy");
        return true;
    }
    size_t n = all - s->done, most = s->nodes == 1 ? *bytes : s->seen ? n : 2 * s->page;
    n = n < most ? n : most;
    copy_range(c, part, s->to, s->done, s->done + n);
    s->done += n;
    s->moved += n;
    *bytes -= n < *bytes ? n : *bytes;
    if (!s->seen && s->moved >= 2 * s->page && !got_huge(s))
        return true;
    if (s->done < all)
        return false;
    move(w, part, s->to);
    s->to = NULL;
    s->done = 0;
    return true;
}

void cpu_settle_release(struct settle *s) {
    for (int i = 0; i < s->n_arena; i++)
        munmap(s->arenas[i].p, s->arenas[i].bytes);
    free(s->arenas);
}
