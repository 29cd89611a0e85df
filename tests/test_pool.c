/*
 * test_pool.c - the thread pool: every item once, on its own thread number, with any number of
 * threads, over many short loops, with workers awake and asleep.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "engine/cpu/cores.h"
#include "engine/cpu/pool.h"
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_ITEM = 1000 };

struct counts {
    _Atomic int seen[MAX_ITEM];
    _Atomic int busy[64];
    _Atomic int clashes;
    int threads;
};

static void count(void *ctx, int item, int thread) {
    struct counts *c = ctx;
    if (thread < 0 || thread >= c->threads || atomic_fetch_add(&c->busy[thread], 1) != 0)
        atomic_fetch_add(&c->clashes, 1);
    atomic_fetch_add(&c->seen[item], 1);
    atomic_fetch_sub(&c->busy[thread], 1);
}

static void run_loops(int threads, int loops, int pause_us) {
    struct pool *p = pool_new(threads);
    struct counts *c = calloc(1, sizeof *c);
    assert_non_null(p);
    assert_non_null(c);
    c->threads = pool_threads(p);
    for (int i = 0; i < loops; i++) {
        int n = i * 37 % MAX_ITEM;
        memset(c->seen, 0, sizeof c->seen);
        pool_run(p, n, count, c);
        for (int j = 0; j < MAX_ITEM; j++)
            assert_int_equal(c->seen[j], j < n);
        if (pause_us)
            usleep((useconds_t)pause_us);
    }
    assert_int_equal(c->clashes, 0);
    free(c);
    pool_free(p);
}

static void pool_runs_every_item_once(void **state) {
    (void)state;
    run_loops(1, 50, 0);
    run_loops(2, 500, 0);
    run_loops(5, 500, 0);
    run_loops(33, 100, 0);
}

static void pool_wakes_workers_that_sleep(void **state) {
    (void)state;
    run_loops(2, 100, 400);
    run_loops(4, 100, 400);
}

struct held {
    _Atomic int n_done, thread_of[MAX_ITEM];
    _Atomic int holder, n_wrong; /* the thread of item 0 while it waits, else -1 */
    int n;
};

/* Item 0 comes to its end when all others have: somebody else must do what its thread was to.
 */
static void hold(void *ctx, int item, int thread) {
    struct held *h = ctx;
    if (item == 0) {
        int64_t end = clock_us() + 20000000;
        h->holder = thread;
        while (h->n_done < h->n - 1 && clock_us() < end)
            usleep(20);
        h->n_wrong += h->n_done != h->n - 1;
        h->holder = -1;
    } else {
        h->n_wrong += h->holder == thread;
    }
    atomic_fetch_add(&h->n_done, 1);
}

static void pool_does_what_a_held_thread_leaves(void **state) {
    (void)state;
    struct held h;
    for (int threads = 2; threads <= 12; threads += 5)
        for (h.n = 2; h.n <= 200; h.n += 66) {
            struct pool *p = pool_new(threads);
            h.n_done = h.n_wrong = 0;
            h.holder = -1;
            pool_run(p, h.n, hold, &h);
            assert_int_equal(h.n_done, h.n);
            assert_int_equal(h.n_wrong, 0);
            pool_free(p);
        }
}

/* Takes some time, so that both threads are there for the loop. */
static void note_thread(void *ctx, int item, int thread) {
    struct held *h = ctx;
    h->thread_of[item] = thread;
    usleep(200);
}

/* Most of what a thread did in one loop it does in the next. */
static void pool_gives_a_thread_the_same_part_of_every_loop(void **state) {
    (void)state;
    struct pool *p = pool_new(2);
    struct held h;
    int n_own = 0;
    for (int i = 0; i < 20; i++) {
        pool_run(p, 40, note_thread, &h);
        for (int j = 0; j < 40; j++)
            n_own += h.thread_of[j] == j / 20;
    }
    assert_true(n_own > 20 * 40 * 3 / 5); /* half of them by chance */
    pool_free(p);
}

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* CPU time, not elapsed time: nothing is claimed about speed. */
static void pool_uses_no_cpu_while_it_waits(void **state) {
    (void)state;
    struct pool *p = pool_new(4);
    struct counts *c = calloc(1, sizeof *c);
    c->threads = 4;
    pool_run(p, 100, count, c);
    usleep(50000);
    double before = cpu_seconds();
    usleep(200000);
    assert_true(cpu_seconds() - before < 0.02);
    free(c);
    pool_free(p);
}

static void pool_one_thread_runs_on_the_caller(void **state) {
    (void)state;
    struct pool *p = pool_new(1);
    assert_int_equal(pool_threads(p), 1);
    pool_free(p);
    pool_free(NULL);
}

static void cores_cpus_follows_the_affinity_mask(void **state) {
    (void)state;
    cpu_set_t all, one;
    int all_n = cores_cpus();
    assert_true(all_n >= 1);
    if (sched_getaffinity(0, sizeof all, &all) != 0)
        skip();
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &all)) {
            CPU_SET(i, &one);
            break;
        }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(cores_cpus(), 1);
    sched_setaffinity(0, sizeof all, &all);
    assert_int_equal(cores_cpus(), all_n);
}

/* ---- the machine as /sys describes it ---- */

static char sys_dir[] = "/tmp/llmchat-test-cpus-XXXXXX";

static void write_file(int cpu, const char *folder, const char *name, const char *text) {
    char path[200];
    snprintf(path, sizeof path, "%s/cpu%d", sys_dir, cpu);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/cpu%d/%s", sys_dir, cpu, folder);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/cpu%d/%s/%s", sys_dir, cpu, folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "%s\n", text);
    fclose(f);
}

static void describe(int cpu, const char *siblings, const char *capacity, const char *clock) {
    write_file(cpu, "topology", "thread_siblings_list", siblings);
    if (capacity)
        write_file(cpu, ".", "cpu_capacity", capacity);
    if (clock)
        write_file(cpu, "cpufreq", "cpuinfo_max_freq", clock);
}

static void forget(void) {
    char command[100];
    snprintf(command, sizeof command, "rm -rf '%s'/cpu*", sys_dir);
    assert_int_equal(system(command), 0);
}

static cpu_set_t set_of(const char *mask) { /* a letter a CPU: x may be used */
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; mask[i]; i++)
        if (mask[i] == 'x')
            CPU_SET(i, &set);
    return set;
}

static int cores_of(const char *mask) {
    cpu_set_t set = set_of(mask);
    return cores_count(sys_dir, &set);
}

static int nodes_of(const char *mask) {
    cpu_set_t set = set_of(mask);
    return cores_nodes(sys_dir, &set);
}

static void cores_and_nodes_are_counted_as_they_are_described(void **state) {
    (void)state;
    assert_non_null(mkdtemp(sys_dir));
    assert_int_equal(cores_of("xxxx"), 4); /* nothing is said */

    static const char *const pairs[] = {"0,4", "1,5", "2,6", "3,7"};
    for (int i = 0; i < 8; i++)
        describe(i, pairs[i % 4], NULL, i % 4 == 1 ? "4900000" : "4700000"); /* turbo */
    assert_int_equal(cores_of("xxxxxxxx"), 4);
    assert_int_equal(cores_of("-x---x--"), 1);
    assert_int_equal(cores_of("xx--xxx-"), 3);
    forget();

    for (int i = 0; i < 8; i++) { /* a phone: four small cores, three middle ones, a big one */
        char self[4];
        snprintf(self, sizeof self, "%d", i % 8);
        describe(i, self, i < 4 ? "250" : i < 7 ? "760" : "1024", NULL);
    }
    assert_int_equal(cores_of("xxxxxxxx"), 4);
    assert_int_equal(cores_of("xxxx----"), 4); /* no others may be used */
    forget();

    describe(0, "0-1", NULL, "5200000"); /* a hybrid PC: one core of two threads, two of one */
    describe(1, "0-1", NULL, "5200000");
    describe(2, "2", NULL, "3900000");
    describe(3, "3", NULL, "3900000");
    assert_int_equal(cores_of("xxxx"), 1);
    assert_int_equal(cores_of("--xx"), 2);
    forget();

    for (int i = 0; i < 4; i++) /* two sockets */
        write_file(i, i < 2 ? "node0" : "node17", "cpulist", "");
    assert_int_equal(nodes_of("xxxx"), 2);
    assert_int_equal(nodes_of("--xx"), 1);
    assert_int_equal(nodes_of("-xx-xx"), 2); /* of the last two nothing is said */
    forget();
    assert_int_equal(nodes_of("xxxx"), 1);
    rmdir(sys_dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_runs_every_item_once),
        cmocka_unit_test(pool_wakes_workers_that_sleep),
        cmocka_unit_test(pool_does_what_a_held_thread_leaves),
        cmocka_unit_test(pool_gives_a_thread_the_same_part_of_every_loop),
        cmocka_unit_test(pool_uses_no_cpu_while_it_waits),
        cmocka_unit_test(pool_one_thread_runs_on_the_caller),
        cmocka_unit_test(cores_cpus_follows_the_affinity_mask),
        cmocka_unit_test(cores_and_nodes_are_counted_as_they_are_described),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
