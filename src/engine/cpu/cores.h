/*
 * cores.h - how many threads this process should compute with.
 */
#ifndef LLMCHAT_ENGINE_CPU_CORES_H
#define LLMCHAT_ENGINE_CPU_CORES_H

#include <sched.h>

/* CPUs this process may use: its affinity mask, bounded by the cgroup's CPU quota; at least 1.
 */
int cores_cpus(void);
/* Threads to compute with where nobody says how many: the fast cores among them, each counted
 * once however many CPUs (hyperthreads) it has; at least 1. */
int cores_default(void);

/* The fast cores of a set of CPUs, as the folder sys (/sys/devices/system/cpu) describes them.
 */
int cores_count(const char *sys, const cpu_set_t *may);
/* The memory nodes that a set of CPUs belongs to, as that folder names them; at least 1. */
int cores_nodes(const char *sys, const cpu_set_t *may);
/* The same of the CPUs that this process may use. */
int cores_own_nodes(void);

#endif
