/*
 * file_map.c - see file_map.h.
 *
 * The handler must know which memory is ours: zeros in SQLite's mapping would be written back
 * as data. So mappings stand in a list that is only ever pushed to, with entries that are used
 * again; a signal handler can walk it whatever the other threads do. An entry is free while its
 * begin is 0.
 *
 * From the place of the fault to the mapping's end everything is replaced: a cut file has
 * nothing there, and page by page a cut model of many gigabytes would take minutes to say so.
 * The new pages are the kernel's page of zeros and take no memory.
 */
#include "base/file_map.h"
#include "base/mem.h"
#include "base/path.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct mapping {
    _Atomic uintptr_t begin, end;
    _Atomic bool broken;
    struct mapping *next;
    char *path;     /* this and the next are its owner's alone */
    struct stat as; /* when it was opened */
};

static _Atomic(struct mapping *) mappings;
static uintptr_t page = 4096; /* bytes */
static struct sigaction before;

static void remember(uintptr_t begin, uintptr_t end, const char *path, const struct stat *as) {
    const uintptr_t taken = 1; /* no mapping begins there */
    struct mapping *m = atomic_load(&mappings);
    for (; m; m = m->next) {
        uintptr_t none = 0;
        if (atomic_compare_exchange_strong(&m->begin, &none, taken))
            break;
    }
    bool pushed = !m;
    if (pushed)
        m = xcalloc(1, sizeof *m);
    atomic_store(&m->broken, false);
    m->path = xstrdup(path);
    m->as = *as;
    atomic_store(&m->begin, begin);
    atomic_store(&m->end, end); /* last: until then nothing is between the two */
    if (!pushed)
        return;
    m->next = atomic_load(&mappings);
    while (!atomic_compare_exchange_weak(&mappings, &m->next, m))
        ;
}

static struct mapping *find(uintptr_t at) {
    struct mapping *m = atomic_load(&mappings);
    while (m && !(at >= atomic_load(&m->begin) && at < atomic_load(&m->end)))
        m = m->next;
    return m;
}

static void forget(uintptr_t begin) {
    struct mapping *m = find(begin);
    if (m) {
        free(m->path);
        atomic_store(&m->end, 0);
        atomic_store(&m->begin, 0);
    }
}

bool file_map_mend(void *addr) {
    uintptr_t at = (uintptr_t)addr;
    struct mapping *m = find(at);
    if (!m)
        return false;
    int saved = errno;
    uintptr_t from = at - at % page;
    void *p = mmap((void *)from, atomic_load(&m->end) - from, PROT_READ,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    atomic_store(&m->broken, true);
    errno = saved;
    return p != MAP_FAILED;
}

static void on_bus(int sig, siginfo_t *info, void *context) {
    (void)context;
    if (info->si_code > 0 && file_map_mend(info->si_addr))
        return;
    sigaction(sig, &before, NULL);
    if (info->si_code <= 0)
        raise(sig); /* it was sent, nothing would repeat it; else the instruction runs again */
}

void file_map_guard(void) {
    long size = sysconf(_SC_PAGESIZE);
    struct sigaction sa = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (size > 0)
        page = (uintptr_t)size;
    sigemptyset(&sa.sa_mask);
    sigaction(SIGBUS, &sa, &before);
}

enum status file_map_intact(struct file_map m, const char *name, struct err *err) {
    const struct mapping *known = m.len ? find((uintptr_t)m.p) : NULL;
    if (!known || !atomic_load(&known->broken))
        return ST_OK;
    return err_set(err, ST_IO,
                   "%s: a part could not be read: the file was cut while it was in use, or its "
                   "disk fails",
                   name);
}

enum status file_map_unchanged(struct file_map m, const char *name, struct err *err) {
    const struct mapping *known = m.len ? find((uintptr_t)m.p) : NULL;
    struct stat now;
    CHECK(file_map_intact(m, name, err));
    if (!known || stat(known->path, &now) != 0 || now.st_dev != known->as.st_dev ||
        now.st_ino != known->as.st_ino)
        return ST_OK;
    if (now.st_size == known->as.st_size && now.st_mtim.tv_sec == known->as.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == known->as.st_mtim.tv_nsec)
        return ST_OK;
    return err_set(err, ST_IO, "%s: was changed while it was read; try again", name);
}

enum status file_map_open(struct file_map *m, const char *path, struct err *err) {
    int fd;
    *m = (struct file_map){0};
    CHECK(file_open_regular(path, &fd, &m->len, err));
    if (m->len == 0) {
        close(fd);
        m->p = (const unsigned char *)"";
        return ST_OK;
    }
    struct stat as;
    if (fstat(fd, &as) != 0)
        as = (struct stat){0}; /* no file is like it: unchanged */
    void *p = mmap(NULL, m->len, PROT_READ, MAP_SHARED, fd, 0);
    int why = errno;
    close(fd);
    if (p == MAP_FAILED) {
        *m = (struct file_map){0};
        return err_set(err, ST_IO, "can't map %s: %s", path, strerror(why));
    }
    m->p = p;
    remember((uintptr_t)p, (uintptr_t)p + m->len, path, &as);
    return ST_OK;
}

void file_map_huge(struct file_map m) {
#ifdef MADV_HUGEPAGE
    if (m.len)
        madvise((void *)(uintptr_t)m.p, m.len, MADV_HUGEPAGE); /* no harm where it fails */
#else
    (void)m;
#endif
}

void file_map_drop(const void *p, size_t len) {
    const struct mapping *m = find((uintptr_t)p);
    if (!m || len > atomic_load(&m->end) - (uintptr_t)p)
        return;
    uintptr_t from = (uintptr_t)p + (page - (uintptr_t)p % page) % page;
    uintptr_t end = (uintptr_t)p + len;
    end -= end % page;
    if (from < end)
        madvise((void *)from, end - from, MADV_DONTNEED);
}

void file_map_close(struct file_map *m) {
    if (m->len) {
        forget((uintptr_t)m->p);
        munmap((void *)(uintptr_t)m->p, m->len);
    }
    *m = (struct file_map){0};
}
