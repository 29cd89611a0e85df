/*
 * split.c - how much of a model goes to a GPU.
 *
 * The last layers and the head go there, since logits are wanted there and the head is read for
 * every token; of the embedding a token reads one row. Between the parts of a split model the
 * residual stream goes through host memory once a step, 4 * n_embd bytes a token: little beside
 * a layer. A card in the middle, or every other layer, would pay that more than once.
 *
 * All bytes are known before anything is bound: weights are counted (bind.c), the scratch of a
 * step is allocated by then, and a block of KV has a fixed size in each layer.
 */
#include "engine/run/graph_internal.h"

#include <assert.h>

void graph_take_share(struct graph *g, int share) {
    int n_layer = g->model->hp.n_layer;
    assert(share >= 1 && share <= n_layer + 1);
    g->embeds = share > n_layer;
    g->first = g->embeds ? 0 : n_layer - share;
    g->end = n_layer;
    g->kv_block = 2 * (size_t)(g->end - g->first) * g->kv_part;
}

size_t graph_others_block(const struct graph *g, const struct graph_room *r) {
    size_t own = 2 * (size_t)g->model->hp.n_layer * g->kv_part;
    return r->block_bytes > own ? r->block_bytes - own : 0;
}

/* What a share takes, and then the bytes that others want. */
static size_t share_bytes(struct graph *g, const struct graph_room *r, int share) {
    size_t blocks = r->min_block > 0 ? (size_t)r->min_block : 1;
    graph_take_share(g, share);
    return graph_count_bound(g).bytes + blocks * (g->kv_block + graph_others_block(g, r)) +
           r->spare_bytes;
}

int graph_share_that_fits(struct graph *g, const struct graph_room *r, struct err *err) {
    size_t room = g->be->room(g->be);
    int fits = 0, too_large = g->model->hp.n_layer + 2;
    while (too_large - fits > 1) { /* more takes more */
        int share = fits + (too_large - fits) / 2;
        if (share_bytes(g, r, share) <= room)
            fits = share;
        else
            too_large = share;
    }
    if (fits == 0)
        err_set(
            err, ST_NOMEM,
            "no room for a layer of the model on the GPU: with its KV cache and the head%s it "
            "takes %zu MiB, and %zu MiB are left to use. A smaller context needs less",
            r->spare_bytes ? ", and beside a draft model," : "", share_bytes(g, r, 1) >> 20,
            room >> 20);
    return fits;
}
