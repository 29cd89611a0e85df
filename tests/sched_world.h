/*
 * sched_world.h - a scheduler over the fake graph, for tests that step it without a thread.
 */
#ifndef LLMCHAT_TESTS_SCHED_WORLD_H
#define LLMCHAT_TESTS_SCHED_WORLD_H

#include "base/mem.h"
#include "engine/run/event.h"
#include "engine/run/sched.h"
#include "fake_graph.h"

struct world {
    struct graph *graph;
    struct sched *sched;
    int step; /* the test's own count */
};

static struct world world_open(int n_block, int ctx_tok) {
    struct world w = {0};
    const struct graph_params gp = {.n_block = n_block, .max_logits = SCHED_MAX_LOGITS};
    struct err err;
    assert_int_equal(graph_open(NULL, &gp, &w.graph, &err), ST_OK);
    w.sched = sched_new(w.graph, NULL, FAKE_VOCAB, ctx_tok, n_block, NULL);
    return w;
}

static void world_close(struct world *w) {
    sched_free(w->sched);
    graph_close(w->graph);
}

static struct session *world_session(struct world *w) {
    struct session *s = xcalloc(1, sizeof *s);
    sched_add_session(w->sched, s);
    return s;
}

#endif
