/*
 * cores.c - see cores.h.
 *
 * The kernel says in /sys/devices/system/cpu/cpuN what shares a core with CPU N
 * (topology/thread_siblings_list) and what it can do
 * (cpu_capacity where cores differ, at most 1024; else cpufreq/cpuinfo_max_freq). What is not
 * said is taken to be equal: then every CPU is a core.
 *
 * Why not all CPUs: a matrix loop keeps the units of a core busy from one thread, a second one
 * only adds a party to each barrier; and a core that is half as fast makes the others wait at
 * the end of each of the hundred loops of a token. What is a fast core: at least six tenths of
 * the best capacity, which keeps the middle cores of phones and leaves the small ones out; at
 * least eight tenths of the highest clock, which tells the two kinds of a hybrid PC apart but
 * not cores of one kind with different turbo.
 */
#include "engine/cpu/cores.h"
#include "engine/cpu/cgroup.h"
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CPU_FOLDER "/sys/devices/system/cpu"

enum { CAPACITY_PERCENT = 60, CLOCK_PERCENT = 80, MAX_NODES = 1024 };

/* The first line of a file about a CPU; false when there is none. */
static bool read_line(const char *sys, int cpu, const char *what, char *line, int size) {
    char path[600];
    snprintf(path, sizeof path, "%s/cpu%d/%s", sys, cpu, what);
    FILE *f = fopen(path, "re");
    bool ok = f && fgets(line, size, f);
    if (f)
        fclose(f);
    if (ok)
        line[strcspn(line, "\n")] = '\0';
    return ok && *line;
}

static long read_number(const char *sys, int cpu, const char *what) {
    char line[64];
    return read_line(sys, cpu, what, line, sizeof line) ? strtol(line, NULL, 10) : 0;
}

/* Leaves the CPUs in `set` that are fast by one measure. */
static void keep_fast(const char *sys, const char *what, int percent, cpu_set_t *set) {
    long speed[CPU_SETSIZE] = {0}, best = 0;
    for (int i = 0; i < CPU_SETSIZE; i++) {
        if (!CPU_ISSET(i, set))
            continue;
        speed[i] = read_number(sys, i, what);
        if (speed[i] <= 0)
            return;
        best = speed[i] > best ? speed[i] : best;
    }
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, set) && speed[i] < best * percent / 100)
            CPU_CLR(i, set);
}

/* Whether a CPU of the set before `cpu` is of the same core: one of a list like "0-1,8". */
static bool core_is_counted(const char *sys, int cpu, const cpu_set_t *set) {
    char line[256], *p = line, *end;
    if (!read_line(sys, cpu, "topology/thread_siblings_list", line, sizeof line))
        return false;
    for (;; p = end + 1) {
        long first = strtol(p, &end, 10), last = first;
        if (end == p)
            return false;
        if (*end == '-')
            last = strtol(end + 1, &end, 10);
        for (long i = first < 0 ? 0 : first; i <= last && i < cpu; i++)
            if (CPU_ISSET((size_t)i, set))
                return true;
        if (*end != ',')
            return false;
    }
}

int cores_count(const char *sys, const cpu_set_t *may) {
    cpu_set_t set = *may;
    int n = 0;
    keep_fast(sys, "cpu_capacity", CAPACITY_PERCENT, &set);
    keep_fast(sys, "cpufreq/cpuinfo_max_freq", CLOCK_PERCENT, &set);
    for (int i = 0; i < CPU_SETSIZE; i++)
        n += CPU_ISSET(i, &set) && !core_is_counted(sys, i, &set);
    return n;
}

/* The node of a CPU is an entry "nodeN" of its folder; -1: there is none. */
static int node_of(const char *sys, int cpu) {
    char path[600];
    int node = -1;
    snprintf(path, sizeof path, "%s/cpu%d", sys, cpu);
    DIR *d = opendir(path);
    for (struct dirent *e; node < 0 && d && (e = readdir(d));)
        if (sscanf(e->d_name, "node%d", &node) != 1 || node < 0 || node >= MAX_NODES)
            node = -1;
    if (d)
        closedir(d);
    return node;
}

int cores_nodes(const char *sys, const cpu_set_t *may) {
    bool seen[MAX_NODES] = {0};
    int n = 0;
    for (int i = 0; i < CPU_SETSIZE; i++) {
        int node = CPU_ISSET(i, may) ? node_of(sys, i) : -1;
        if (node >= 0 && !seen[node]) {
            seen[node] = true;
            n++;
        }
    }
    return n < 1 ? 1 : n;
}

int cores_own_nodes(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? cores_nodes(CPU_FOLDER, &set) : 1;
}

/* CPUs that a quota of a cgroup folder allows, or 0 when it sets none. Version 2 has "QUOTA
 * PERIOD" or "max PERIOD" in one file, version 1 has two files. */
static int cgroup_quota(const char *dir) {
    char path[600];
    double quota = 0, period = 0;
    snprintf(path, sizeof path, "%s/cpu.max", dir);
    FILE *f = fopen(path, "re");
    if (f) {
        if (fscanf(f, "%lf %lf", &quota, &period) != 2)
            quota = period = 0;
        fclose(f);
    } else {
        snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", dir);
        if ((f = fopen(path, "re"))) {
            if (fscanf(f, "%lf", &quota) != 1)
                quota = 0;
            fclose(f);
        }
        snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir);
        if ((f = fopen(path, "re"))) {
            if (fscanf(f, "%lf", &period) != 1)
                period = 0;
            fclose(f);
        }
    }
    if (quota <= 0 || period <= 0 || quota / period > 1e6)
        return 0;
    int cpus = (int)(quota / period + 0.99);
    return cpus < 1 ? 1 : cpus;
}

static void take_least(void *user, const char *dir) {
    int *least = user, q = cgroup_quota(dir);
    if (q > 0 && (*least == 0 || q < *least))
        *least = q;
}

static int cgroup_cpus(void) {
    int least = 0;
    cgroup_folders("cpu", take_least, &least);
    return least;
}

static int within_quota(int n) {
    int quota = cgroup_cpus();
    if (quota > 0 && quota < n)
        n = quota;
    return n < 1 ? 1 : n;
}

int cores_cpus(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return within_quota(CPU_COUNT(&set));
    return within_quota((int)sysconf(_SC_NPROCESSORS_ONLN));
}

int cores_default(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return cores_cpus();
    return within_quota(cores_count(CPU_FOLDER, &set));
}
