/*
 * cgroup.c - see cgroup.h. A line of /proc/self/cgroup is ID:CONTROLLERS:PATH; CONTROLLERS is
 * empty for version 2, else one name or several with commas between.
 */
#include "engine/cpu/cgroup.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* The folder root/rel and those above it, up to root. */
static void upwards(const char *root, const char *rel, void (*fn)(void *user, const char *dir),
                    void *user) {
    char dir[512];
    snprintf(dir, sizeof dir, "%s%s", root, rel);
    size_t root_len = strlen(root);
    for (;;) {
        fn(user, dir);
        char *slash = strlen(dir) > root_len ? strrchr(dir, '/') : NULL;
        if (!slash || (size_t)(slash - dir) < root_len)
            return;
        *slash = '\0';
    }
}

void cgroup_folders(const char *controller, void (*fn)(void *user, const char *dir),
                    void *user) {
    char line[512], root[64];
    size_t len = strlen(controller);
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *names = strchr(line, ':');
        char *path = names ? strchr(names + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = '\0';
        names++;
        bool first = strncmp(names, controller, len) == 0 && (!names[len] || names[len] == ',');
        if (*names && !first)
            continue;
        snprintf(root, sizeof root, "/sys/fs/cgroup%s%s", *names ? "/" : "",
                 *names ? controller : "");
        upwards(root, path, fn, user);
    }
    if (f)
        fclose(f);
}
