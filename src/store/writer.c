/*
 * writer.c - which process writes a reply, and whether it still lives.
 *
 * A reply that streams carries "BOOT/PID/START": the kernel's boot id, the process id and the
 * time since boot at which the process started (field 22 of /proc/PID/stat). A pid alone is not
 * enough, it is used again; with the start time it is unique until the machine starts anew, and
 * then the boot id differs.
 *
 * What can't be told counts as gone: the mark `interrupted` does no harm to a writer that lives
 * in another container, since its next save puts the state right again (message.c). Elsewhere
 * than on Linux only the pid is asked.
 */
#include "store/db.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static size_t read_small(const char *path, char *out, size_t cap) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, out, cap - 1);
    if (fd >= 0)
        close(fd);
    out[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

static void boot_id(char out[64]) {
    if (read_small("/proc/sys/kernel/random/boot_id", out, 64) == 0)
        strcpy(out, "-");
    out[strcspn(out, "/\n")] = '\0';
}

/* Start time of a process in clock ticks since boot; 0 when it can't be read; -1 when the
 * process is dead but not yet collected by its parent. */
static long long start_time(long pid) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    if (read_small(path, text, sizeof text) == 0)
        return 0;
    char *p = strrchr(text, ')'); /* the program's name may hold anything */
    if (!p || p[1] != ' ')
        return 0;
    p += 2;
    if (*p == 'Z' || *p == 'X')
        return -1;
    for (int field = 3; field < 22; field++) {
        p = strchr(p, ' ');
        if (!p)
            return 0;
        p++;
    }
    return strtoll(p, NULL, 10);
}

void writer_self(char out[128]) {
    char boot[64];
    boot_id(boot);
    snprintf(out, 128, "%s/%ld/%lld", boot, (long)getpid(), start_time(getpid()));
}

bool writer_alive(const char *writer) {
    char boot[64], other[64];
    long pid;
    long long start;
    if (sscanf(writer, "%63[^/]/%ld/%lld", other, &pid, &start) != 3 || pid <= 0)
        return false;
    boot_id(boot);
    if (strcmp(boot, other) != 0)
        return false;
    if (start > 0)
        return start_time(pid) == start;
    return kill((pid_t)pid, 0) == 0 || errno == EPERM;
}
