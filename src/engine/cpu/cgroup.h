/*
 * cgroup.h - where the kernel says what this process's control group may use.
 */
#ifndef LLMCHAT_ENGINE_CPU_CGROUP_H
#define LLMCHAT_ENGINE_CPU_CGROUP_H

/* Calls fn with the folders of a controller ("cpu", "memory"), from the process's own group up
 * to the root: any of them may set a limit. Version 2 has one tree for all, version 1 one for
 * each controller. */
void cgroup_folders(const char *controller, void (*fn)(void *user, const char *dir),
                    void *user);

#endif
