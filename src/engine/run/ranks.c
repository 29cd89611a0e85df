/*
 * ranks.c - see ranks.h.
 *
 * One job at a time: the caller puts it up, runs rank 0's part itself, and waits until the
 * others have done theirs. A device belongs to the thread that opened it (CUDA keeps the
 * current device for each thread), so ranks are opened and closed in their threads as well.
 *
 * Opening has two rounds: graphs first, and only when all are there what connects them, since
 * a rank that found no room would leave the others waiting for it.
 */
#include "engine/run/ranks.h"

#include "base/mem.h"
#include "base/thread.h"
#include "engine/cuda/cuda.h"
#include "engine/cuda/nccl.h"
#include "engine/run/comm.h"
#include "engine/run/graph_internal.h"
#include "engine/run/shard.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* What is held back of each device for NCCL, which allocates behind the pool, when ranks
 * connect and at their first sums. That is linear in its channels, of which there are up to 32:
 * for each some 10 MiB and 2 MiB for either neighbour of a ring makes 3/4 GiB, and its kernels
 * are loaded. Not measured here: no machine with several GPUs was there. Rejected: connecting
 * before the pool is allocated, since what the first sums take comes later still. */
static const size_t NCCL_BYTES = (size_t)1 << 30;

struct rank {
    struct ranks *all;
    int number;
    struct shard *shard;
    struct graph *g;
    char *block; /* a KV block of this rank, on its way from or to the host */
    enum status st;
    struct err err; /* of opening */
    bool more;      /* to settle */
    pthread_t thread;
};

typedef void job_fn(struct rank *r, const void *args);

struct ranks {
    int n, n_thread; /* threads are ranks 1 .. n_thread */
    struct rank *v;  /* [n] */
    struct comm_stop stop;
    size_t part_bytes; /* of K or V of a layer, in a rank's block */
    int n_layer;

    pthread_mutex_t lock; /* of the following */
    pthread_cond_t up, done;
    job_fn *job; /* NULL: the threads end */
    const void *args;
    unsigned turn; /* counts jobs */
    int busy;      /* threads that have not done theirs */
};

static void *work(void *arg) {
    struct rank *r = arg;
    struct ranks *rs = r->all;
    for (unsigned turn = 0;; turn++) {
        pthread_mutex_lock(&rs->lock);
        while (rs->turn == turn)
            pthread_cond_wait(&rs->up, &rs->lock);
        job_fn *job = rs->job;
        const void *args = rs->args;
        pthread_mutex_unlock(&rs->lock);
        if (!job)
            return NULL;
        job(r, args);
        pthread_mutex_lock(&rs->lock);
        if (--rs->busy == 0)
            pthread_cond_signal(&rs->done);
        pthread_mutex_unlock(&rs->lock);
    }
}

static void put_up(struct ranks *rs, job_fn *job, const void *args) {
    pthread_mutex_lock(&rs->lock);
    rs->job = job;
    rs->args = args;
    rs->busy = rs->n_thread;
    rs->turn++;
    pthread_cond_broadcast(&rs->up);
    pthread_mutex_unlock(&rs->lock);
}

static void all(struct ranks *rs, job_fn *job, const void *args) {
    put_up(rs, job, args);
    job(&rs->v[0], args);
    pthread_mutex_lock(&rs->lock);
    while (rs->busy > 0)
        pthread_cond_wait(&rs->done, &rs->lock);
    pthread_mutex_unlock(&rs->lock);
}

/* ---- open and close ---- */

struct opening {
    const struct model *model;
    const struct graph_params *params;
};

/* What a rank's blocks take: rank 0 has a draft model's beside its own. */
static size_t block_bytes(const struct opening *o, const struct rank *r) {
    size_t whole = graph_kv_block_bytes(o->model, o->params->kv_type);
    size_t all = o->params->room.block_bytes;
    if (all <= whole || r->number > 0)
        return 0;
    return all - whole + graph_kv_block_bytes(shard_model(r->shard), o->params->kv_type);
}

static bool by_nccl(const struct graph_params *p) {
    return p->device == DEVICE_CUDA && !p->sum_on_host;
}

static enum status open_rank(struct rank *r, const struct opening *o) {
    struct graph_params p = *o->params;
    CHECK(shard_new(o->model, r->number, r->all->n, &r->shard, &r->err));
    p.tensor_parallel = 1;
    p.device_index = r->number;
    p.room.block_bytes = block_bytes(o, r);
    p.crossovers = NULL; /* all ranks take the same kernels: their sums would differ else */
    if (r->number > 0)
        p.room.spare_bytes = 0;
    if (by_nccl(&p))
        p.room.spare_bytes += NCCL_BYTES;
    CHECK(graph_open(shard_model(r->shard), &p, &r->g, &r->err));
    r->block = xmalloc(r->g->kv_block);
    if (!r->g->be->host_memory)
        shard_drop_copies(r->shard);
    return ST_OK;
}

static void open_job(struct rank *r, const void *args) {
    r->st = open_rank(r, args);
}

static void close_job(struct rank *r, const void *args) {
    (void)args;
    if (r->g && r->g->comm)
        r->g->comm->close(r->g->comm);
    graph_close(r->g);
    shard_free(r->shard);
    free(r->block);
}

static void release(struct ranks *rs) {
    all(rs, close_job, NULL);
    put_up(rs, NULL, NULL);
    for (int i = 1; i <= rs->n_thread; i++)
        pthread_join(rs->v[i].thread, NULL);
    comm_stop_release(&rs->stop);
    pthread_cond_destroy(&rs->up);
    pthread_cond_destroy(&rs->done);
    pthread_mutex_destroy(&rs->lock);
    free(rs->v);
    free(rs);
}

static struct ranks *new_ranks(int n) {
    struct ranks *rs = xcalloc(1, sizeof *rs);
    rs->n = n;
    rs->v = xcalloc((size_t)n, sizeof *rs->v);
    for (int i = 0; i < n; i++)
        rs->v[i] = (struct rank){.all = rs, .number = i};
    comm_stop_init(&rs->stop);
    pthread_mutex_init(&rs->lock, NULL);
    pthread_cond_init(&rs->up, NULL);
    pthread_cond_init(&rs->done, NULL);
    return rs;
}

static enum status start_threads(struct ranks *rs, struct err *err) {
    for (int i = 1; i < rs->n; i++) {
        if (thread_start(&rs->v[i].thread, work, &rs->v[i]) != 0)
            return err_set(err, ST_INTERNAL, "no thread could be started for rank %d", i);
        rs->n_thread = i;
    }
    return ST_OK;
}

/* The first failure, with what was asked for. */
static enum status opened(struct ranks *rs, struct err *err) {
    for (int i = 0; i < rs->n; i++)
        if (rs->v[i].st != ST_OK) {
            if (err)
                *err = rs->v[i].err;
            return err_prefix(err,
                              rs->v[i].st == ST_NOT_FOUND ? "a model over %d GPUs"
                                                          : "a model over %d GPUs: GPU %d",
                              rs->n, i);
        }
    return ST_OK;
}

static enum status connect(struct ranks *rs, const struct graph_params *p, struct err *err) {
    struct comm *comms[SHARD_MOST];
    struct gpu *gpus[SHARD_MOST];
    const struct graph *g = rs->v[0].g;
    if (!by_nccl(p)) {
        size_t most = (size_t)g->max_tok * row_floats(g->model->hp.n_embd);
        comm_threads_open(rs->n, most, &rs->stop, comms);
    } else {
        for (int i = 0; i < rs->n; i++)
            gpus[i] = cuda_gpu(rs->v[i].g->be);
        CHECK(nccl_open(gpus, rs->n, &rs->stop, comms, err));
    }
    for (int i = 0; i < rs->n; i++)
        rs->v[i].g->comm = comms[i];
    return ST_OK;
}

/* What is asked of the door is answered as rank 0 would, but for the blocks of the pool, of
 * which all must have as many. */
static struct graph *make_door(const struct model *m, struct ranks *rs) {
    struct graph *door = xcalloc(1, sizeof *door);
    int n_block = rs->v[0].g->n_block;
    for (int i = 1; i < rs->n; i++)
        if (rs->v[i].g->n_block < n_block)
            n_block = rs->v[i].g->n_block;
    *door = *rs->v[0].g;
    door->comm = NULL;
    door->ranks = rs;
    door->model = m;
    door->n_block = n_block;
    rs->n_layer = m->hp.n_layer;
    rs->part_bytes = door->kv_part;
    return door;
}

enum status ranks_open(const struct model *m, const struct graph_params *p, struct graph **out,
                       struct err *err) {
    enum status st;
    const struct opening o = {m, p};
    assert(p->gpu_layers == 0);
    CHECK(shard_check(m, p->tensor_parallel, err));
    struct ranks *rs = new_ranks(p->tensor_parallel);
    TRY(start_threads(rs, err));
    all(rs, open_job, &o);
    TRY(opened(rs, err));
    TRY(connect(rs, p, err));
    *out = make_door(m, rs);
    return ST_OK;
out:
    release(rs);
    return st;
}

void ranks_close(struct graph *door) {
    release(door->ranks);
    free(door);
}

int ranks_number(const struct ranks *rs) {
    return rs->n;
}

const char *ranks_pci(const struct ranks *rs, int rank) {
    return rs->v[rank].g->be->pci;
}

struct comm *ranks_comm(struct ranks *rs, int rank) {
    return rs->v[rank].g->comm;
}

/* ---- steps ---- */

struct step_args {
    const struct batch *batch;
    float *logits; /* NULL: tokens are wanted, or nothing is */
    const struct sample_row *rows;
    struct sample_got *got;
};

/* Rank 0 has the head, and so whatever is wanted of a step. */
static enum status step(struct rank *r, const struct step_args *a, struct err *err) {
    if (r->number == 0 && a->got)
        return graph_sample(r->g, a->batch, a->rows, a->got, err);
    return graph_forward(r->g, a->batch, r->number == 0 ? a->logits : NULL, err);
}

static void step_job(struct rank *r, const void *args) {
    struct err err = {0};
    if (step(r, args, &err) == ST_OK)
        return;
    err_prefix(&err, "GPU %d", r->number);
    comm_fail(r->g->comm, &err);
}

static enum status run_step(struct ranks *rs, const struct step_args *args, struct err *err) {
    CHECK(comm_status(&rs->stop, err));
    all(rs, step_job, args);
    return comm_status(&rs->stop, err);
}

enum status ranks_forward(struct ranks *rs, const struct batch *b, float *logits,
                          struct err *err) {
    return run_step(rs, &(struct step_args){.batch = b, .logits = logits}, err);
}

enum status ranks_sample(struct ranks *rs, const struct batch *b, const struct sample_row *rows,
                         struct sample_got *got, struct err *err) {
    return run_step(rs, &(struct step_args){.batch = b, .rows = rows, .got = got}, err);
}

static void settle_job(struct rank *r, const void *args) {
    (void)args;
    r->more = graph_settle(r->g);
}

bool ranks_settle(struct ranks *rs) {
    bool more = false;
    if (!rs->v[0].g->be->settle) /* a GPU's weights lie where they are read fastest */
        return false;
    all(rs, settle_job, NULL);
    for (int i = 0; i < rs->n; i++)
        more |= rs->v[i].more;
    return more;
}

/* ---- blocks ---- */

struct copy_args {
    int dst, src, n_tok;
};

static void copy_job(struct rank *r, const void *args) {
    const struct copy_args *a = args;
    graph_copy_block(r->g, a->dst, a->src, a->n_tok);
}

void ranks_copy_block(struct ranks *rs, int dst, int src, int n_tok) {
    all(rs, copy_job, &(struct copy_args){dst, src, n_tok});
}

struct move_args {
    const int32_t *blocks;
    int n, from, to;
};

static void move_job(struct rank *r, const void *args) {
    const struct move_args *a = args;
    graph_move_blocks(r->g, a->blocks, a->n, a->from, a->to);
}

void ranks_move_blocks(struct ranks *rs, const int32_t *blocks, int n, int from, int to) {
    all(rs, move_job, &(struct move_args){blocks, n, from, to});
}

struct block_args {
    int block, n_tok;
    char *read;        /* the whole model's: [n_layer][2][n] parts of part_bytes, or */
    const char *write; /* the same to be written */
};

static void block_job(struct rank *r, const void *args) {
    const struct block_args *a = args;
    size_t part = r->all->part_bytes, n = (size_t)r->all->n, at = (size_t)r->number * part;
    if (a->read)
        graph_read_block(r->g, a->block, a->n_tok, r->block);
    for (size_t i = 0; i < 2 * (size_t)r->all->n_layer; i++)
        if (a->read)
            memcpy(a->read + i * n * part + at, r->block + i * part, part);
        else
            memcpy(r->block + i * part, a->write + i * n * part + at, part);
    if (a->write)
        graph_write_block(r->g, a->block, r->block);
}

/* Each rank's part is one piece, since only the same ranks read it again, and each device
 * copies its own: the memory is known to all of them, whichever it came from (gpu.h). */
struct swap_args {
    int block;
    char *to;         /* out, or */
    const char *from; /* in */
};

static void swap_job(struct rank *r, const void *args) {
    const struct swap_args *a = args;
    size_t at = (size_t)r->number * r->g->kv_block;
    if (a->to)
        graph_swap_out(r->g, a->block, a->to + at);
    else
        graph_swap_in(r->g, a->block, a->from + at);
}

void ranks_swap_out(struct ranks *rs, int block, void *to) {
    all(rs, swap_job, &(struct swap_args){.block = block, .to = to});
}

void ranks_swap_in(struct ranks *rs, int block, const void *from) {
    all(rs, swap_job, &(struct swap_args){.block = block, .from = from});
}

static void swap_wait_job(struct rank *r, const void *args) {
    (void)args;
    graph_swap_free(r->g, NULL);
}

void ranks_swap_wait(struct ranks *rs) {
    all(rs, swap_wait_job, NULL);
}

bool ranks_failed(const struct ranks *rs) {
    bool failed = false;
    for (int i = 0; i < rs->n; i++)
        failed = failed || graph_failed(rs->v[i].g);
    return failed;
}

void ranks_read_block(struct ranks *rs, int block, int n_tok, void *host) {
    all(rs, block_job, &(struct block_args){.block = block, .n_tok = n_tok, .read = host});
}

void ranks_write_block(struct ranks *rs, int block, const void *host) {
    all(rs, block_job, &(struct block_args){.block = block, .write = host});
}
