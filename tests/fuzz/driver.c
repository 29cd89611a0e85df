/*
 * driver.c - runs a fuzz entry without a fuzzer: the seeds as they are, then mutations of them
 * from a fixed seed.
 *
 * With clang the entries link to libFuzzer as they stand (-fsanitize=fuzzer, without this
 * file). Here every `make check` gives each entry a short run that is the same every time:
 * FUZZ_RUNS inputs (default 2000), FUZZ_SEED (default 1). An input that crashes is left in
 * fuzz-crash-ENTRY for a look. Seeds: $FUZZ_SEEDS/ENTRY/ (ENTRY without "fuzz_"); files given
 * as arguments are run as they are instead.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_SEEDS = 256, MAX_BYTES = 1 << 20 };

static struct {
    uint8_t *p;
    size_t len;
} seeds[MAX_SEEDS];
static size_t n_seeds;
static uint64_t state = 1;
static char crash_name[256];

static uint32_t rnd(uint32_t below) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return below ? (uint32_t)(state * 0x2545f4914f6cdd1dull >> 33) % below : 0;
}

static void read_seed(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f || n_seeds == MAX_SEEDS) {
        if (f)
            fclose(f);
        return;
    }
    uint8_t *p = malloc(MAX_BYTES);
    seeds[n_seeds].len = fread(p, 1, MAX_BYTES, f);
    seeds[n_seeds++].p = p;
    fclose(f);
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* In the order of their names, so that a run is the same everywhere. */
static void read_seeds(const char *dir) {
    DIR *d = opendir(dir);
    char *names[MAX_SEEDS];
    size_t n = 0;
    for (struct dirent *e; d && (e = readdir(d)) && n < MAX_SEEDS;)
        if (e->d_name[0] != '.')
            names[n++] = strdup(e->d_name);
    if (d)
        closedir(d);
    qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n; i++) {
        char path[2048];
        if (snprintf(path, sizeof path, "%s/%s", dir, names[i]) < (int)sizeof path)
            read_seed(path);
        free(names[i]);
    }
}

/* The input is written before it is tried, so that it is there after a crash. */
static void try_input(const uint8_t *p, size_t len) {
    int fd = open(crash_name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd >= 0) {
        ssize_t ignored = write(fd, p, len);
        (void)ignored;
        close(fd);
    }
    uint8_t *exact = malloc(len ? len : 1); /* a read past the end is seen by ASan */
    memcpy(exact, p, len);
    LLVMFuzzerTestOneInput(exact, len);
    free(exact);
}

static size_t mutate(uint8_t *p, size_t len) {
    static const uint64_t odd[] = {0,          1,          0x7f,       0x80,
                                   0xff,       0x7fffffff, 0x80000000, 0xffffffff,
                                   1ull << 62, 1ull << 63, ~0ull,      0x4141414141414141ull};
    for (uint32_t n = 1 + rnd(4); n > 0; n--) {
        uint32_t at = rnd((uint32_t)len + 1), span = 1 + rnd(16);
        switch (rnd(7)) {
        case 0: /* one bit */
            if (at < len)
                p[at] ^= (uint8_t)(1 << rnd(8));
            break;
        case 1: /* one byte */
            if (at < len)
                p[at] = (uint8_t)rnd(256);
            break;
        case 2: { /* a telling number */
            uint64_t v = odd[rnd(sizeof odd / sizeof *odd)];
            size_t w = (size_t)1 << rnd(4);
            if (at + w <= len)
                memcpy(p + at, &v, w);
            break;
        }
        case 3: /* cut */
            len = at;
            break;
        case 4: /* remove a span */
            if (at + span <= len) {
                memmove(p + at, p + at + span, len - at - span);
                len -= span;
            }
            break;
        case 5: /* repeat a span */
            if (at + span <= len && len + span <= MAX_BYTES) {
                memmove(p + at + span, p + at, len - at);
                len += span;
            }
            break;
        default: { /* splice in a piece of a seed */
            if (!n_seeds)
                break;
            uint32_t s = rnd((uint32_t)n_seeds), from = rnd((uint32_t)seeds[s].len);
            size_t w = seeds[s].len - from < 64 ? seeds[s].len - from : 1 + rnd(64);
            if (at + w <= MAX_BYTES) {
                memcpy(p + at, seeds[s].p + from, w);
                if (at + w > len)
                    len = at + w;
            }
        }
        }
    }
    return len;
}

int main(int argc, char **argv) {
    const char *base = strrchr(argv[0], '/'), *name = base ? base + 1 : argv[0];
    const char *entry = strncmp(name, "fuzz_", 5) == 0 ? name + 5 : name;
    snprintf(crash_name, sizeof crash_name, "fuzz-crash-%s", entry);
    if (argc > 1) {
        for (int i = 1; i < argc; i++)
            read_seed(argv[i]);
        for (size_t i = 0; i < n_seeds; i++)
            try_input(seeds[i].p, seeds[i].len);
        unlink(crash_name);
        return 0;
    }
    const char *dir = getenv("FUZZ_SEEDS"), *runs = getenv("FUZZ_RUNS");
    if (getenv("FUZZ_SEED"))
        state = strtoull(getenv("FUZZ_SEED"), NULL, 10) | 1;
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", dir ? dir : "tests/fuzz/seeds", entry);
    read_seeds(path);
    if (!n_seeds) {
        fprintf(stderr, "no seeds in %s\n", path);
        return 1;
    }
    for (size_t i = 0; i < n_seeds; i++)
        try_input(seeds[i].p, seeds[i].len);
    uint8_t *p = malloc(MAX_BYTES);
    long n = runs ? strtol(runs, NULL, 10) : 2000;
    for (long i = 0; i < n; i++) {
        uint32_t s = rnd((uint32_t)n_seeds);
        memcpy(p, seeds[s].p, seeds[s].len);
        try_input(p, mutate(p, seeds[s].len));
    }
    free(p);
    for (size_t i = 0; i < n_seeds; i++)
        free(seeds[i].p);
    unlink(crash_name);
    printf("%s: %zu seeds and %ld mutations\n", entry, n_seeds, n);
    return 0;
}
