/*
 * engine.c - the engine's front door and its thread.
 *
 * The thread runs everything that touches the model, the KV pool and the scheduler. Other
 * threads reach it through one mailbox of messages, which it empties between two steps; it
 * sleeps in the mailbox when there is nothing to do. Of a session two atomics are visible to
 * others: whether a request runs, and how many tokens it holds. Messages of one asker stay in
 * order, so a fork sees what was asked before it, and a cancel never meets a later request.
 *
 * Everything is opened on the caller's thread, before the engine thread starts, so that errors
 * come back from engine_open() itself; nothing can fail after that except a step.
 *
 * Rejected: a lock around the engine (a caller would wait for a whole step); a reply to each
 * message (creating, forking and freeing a session can't fail).
 */
#include "engine/engine.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/thread.h"
#include "engine/cuda/nvml.h"
#include "engine/model/arch.h"
#include "engine/quant/pack.h"
#include "engine/run/eval.h"
#include "engine/run/event.h"
#include "engine/run/graph.h"
#include "engine/run/sched.h"
#include "engine/run/state_file.h"
#include "engine/run/task.h"
#include "engine/text.h"
#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum {
    DEFAULT_CTX_TOK = 8192,
    DEFAULT_CONTEXTS = 4,
    MAX_BLOCKS = 1 << 26,
    DRAFT_SCRATCH_BYTES = 512 << 20, /* of a draft model on a GPU */
    DEFAULT_REST_MS = 20000,
    MAX_WAITING = 1024
};

static const double GPU_UTILIZATION = 0.9; /* of its memory, as vLLM's default */

enum msg_type {
    MSG_NEW,
    MSG_FORK,
    MSG_FREE,
    MSG_SUBMIT,
    MSG_CANCEL,
    MSG_EVAL,
    MSG_KEEP,
    MSG_FORGET,
    MSG_WAKE, /* the scheduler has something to tend to */
    MSG_QUIT
};

struct msg {
    enum msg_type type;
    struct session *session;
    struct session *src; /* FORK */
    struct task *task;   /* SUBMIT */
    struct eval *eval;   /* EVAL */
    int64_t owner;       /* KEEP, FORGET */
};

struct engine {
    struct engine_info info;
    char *path, *device_note, *device_words, *crossovers;
    struct model *model;
    struct graph *graph;
    struct model *draft_model; /* or NULL, with what belongs to it */
    struct graph *draft_graph;
    struct draft *draft;
    struct nvml_watch **gpu_watch; /* [info.n_gpu] */
    struct sched *sched;           /* the thread's */
    struct mailbox *inbox;
    int max_waiting;
    atomic_int n_waiting; /* requests that wait for their first step */
    pthread_t thread;
};

static void post(struct engine *e, struct msg m) {
    struct msg *copy = xmalloc(sizeof *copy);
    *copy = m;
    mailbox_put(e->inbox, copy);
}

/* ---- the thread ---- */

static void handle(struct sched *s, const struct msg *m) {
    switch (m->type) {
    case MSG_NEW:
        sched_add_session(s, m->session);
        break;
    case MSG_FORK:
        sched_fork(s, m->session, m->src);
        break;
    case MSG_FREE:
        sched_free_session(s, m->session);
        break;
    case MSG_SUBMIT:
        m->task->session = m->session;
        sched_submit(s, m->task);
        break;
    case MSG_CANCEL:
        sched_cancel(s, m->session);
        break;
    case MSG_EVAL:
        sched_evaluate(s, m->eval);
        break;
    case MSG_KEEP:
        sched_keep_session(s, m->session, m->owner);
        break;
    case MSG_FORGET:
        sched_forget(s, m->owner);
        break;
    case MSG_WAKE:
    case MSG_QUIT:
        break;
    }
}

static void *run(void *arg) {
    struct engine *e = arg;
    bool quit = false;
    while (!quit) {
        bool work = sched_has_work(e->sched);
        struct msg *m =
            work ? mailbox_take(e->inbox) : mailbox_wait(e->inbox, sched_wait_ms(e->sched));
        for (; m; m = mailbox_take(e->inbox)) {
            quit = quit || m->type == MSG_QUIT;
            handle(e->sched, m);
            free(m);
        }
        if (!quit)
            sched_tend(e->sched);
        if (!quit && sched_has_work(e->sched))
            sched_step(e->sched);
    }
    sched_free(e->sched);
    return NULL;
}

static enum status start_thread(struct engine *e, struct err *err) {
    int rc = thread_start(&e->thread, run, e);
    if (rc)
        return err_set(err, ST_NOMEM, "can't start the engine's thread: %s", strerror(rc));
    return ST_OK;
}

/* ---- sizes ---- */

struct byte_count {
    struct model *m;
    uint64_t all, per_token;
};

/* Of an embedding a token reads one row, of the experts those that it is sent to. */
static enum status count_one(void *user, const struct arch_slot *s, struct err *err) {
    struct byte_count *c = user;
    const struct hparams *hp = &c->m->hp;
    const void *field = arch_field(c->m, s);
    uint64_t bytes, read;
    (void)err;
    if (s->t->kind == TENSOR_NORM || s->t->kind == TENSOR_VECTOR) {
        bytes = read = arch_dim(s->t->k, hp) * sizeof(float);
    } else {
        const struct linear *l = field;
        bytes = read = weight_bytes(&l->w);
        if (field == &c->m->head && l->w.data == c->m->embd.w.data)
            bytes = 0; /* tied */
        if ((field == &c->m->embd || field == &c->m->pos) && l->w.Np)
            read = bytes / (uint64_t)l->w.Np;
        if (s->t->kind == TENSOR_EXPERTS)
            read = bytes * (uint64_t)hp->n_expert_used / (uint64_t)hp->n_expert;
    }
    c->all += bytes;
    c->per_token += read;
    return ST_OK;
}

/* All weights, and those that one decoded token reads. */
static void count_bytes(struct model *m, uint64_t *all, uint64_t *per_token) {
    struct byte_count c = {.m = m};
    arch_visit(m->arch, &m->hp, count_one, &c, NULL); /* count_one() cannot fail */
    *all = c.all;
    *per_token = c.per_token;
}

/* What the graphs are opened with. */
struct pool_plan {
    int n_block, min_block;
    int gpu_block;                  /* on a GPU, where the host's memory is no measure */
    size_t block_bytes, both_bytes; /* of a KV block: the model's; with the draft model's */
};

static int blocks_of(size_t n) {
    return n < MAX_BLOCKS ? (int)n : MAX_BLOCKS;
}

/* Blocks of the KV pool: what was asked for, or four contexts in at most an eighth of memory,
 * and always one context and a block for a copy. */
static enum status pool_size(const struct engine_params *p, struct pool_plan *plan, int ctx_tok,
                             struct err *err) {
    size_t one = (size_t)plan->min_block, block_bytes = plan->both_bytes;
    size_t most = memory_bytes() / 8 / block_bytes;
    size_t want = p->kv_bytes ? p->kv_bytes / block_bytes : one * DEFAULT_CONTEXTS;
    if (want < one)
        return err_set(
            err, ST_LIMIT,
            "a KV pool of %zu bytes is too small for one context of %d tokens, which "
            "needs %zu bytes",
            p->kv_bytes, ctx_tok, one * block_bytes);
    plan->gpu_block = blocks_of(want);
    if (!p->kv_bytes && want > most)
        want = most > one ? most : one;
    plan->n_block = blocks_of(want);
    return ST_OK;
}

/* ---- open and close ---- */

static bool tell(const struct engine_params *p, uint64_t done) {
    return !p->progress || p->progress(p->user, "opening the model", done, 1);
}

static enum status choose_ctx(const struct model *m, const struct engine_params *p,
                              int *ctx_tok, struct err *err) {
    int train = m->hp.ctx_train;
    if (p->ctx_tok < 0 || p->ctx_tok == 1)
        return err_set(err, ST_USAGE, "a context of %d tokens, wanted at least 2", p->ctx_tok);
    if (p->ctx_tok > train)
        return err_set(err, ST_LIMIT,
                       "a context of %d tokens was asked for, the model was trained for %d",
                       p->ctx_tok, train);
    *ctx_tok = p->ctx_tok ? p->ctx_tok : train < DEFAULT_CTX_TOK ? train : DEFAULT_CTX_TOK;
    return ST_OK;
}

static const char *model_name(const struct model *m) {
    return m->info.title && m->info.title[0] ? m->info.title : m->info.name;
}

static void fill_info(struct engine *e, const char *path, int ctx_tok, size_t block_bytes) {
    const struct model *m = e->model;
    struct engine_info *i = &e->info;
    int n_gpu = graph_n_gpu(e->graph);
    e->path = xstrdup(path);
    if (n_gpu > 1)
        e->device_words = xasprintf("%s, %d GPUs", graph_device(e->graph), n_gpu);
    else if (graph_is_split(e->graph))
        e->device_words = xasprintf("%s, %d of %d layers", graph_device(e->graph),
                                    graph_gpu_layers(e->graph), m->hp.n_layer);
    else
        e->device_words = xstrdup(graph_device(e->graph));
    *i = (struct engine_info){
        .draft_bytes = i->draft_bytes,
        .path = e->path,
        .name = model_name(m),
        .architecture = m->info.architecture,
        .quant = m->info.quant,
        .device = graph_device(e->graph),
        .device_words = e->device_words,
        .n_gpu = n_gpu,
        .gpu_layers = graph_gpu_layers(e->graph),
        .kernels = graph_kernels(e->graph),
        .device_note = e->device_note ? e->device_note : "",
        .draft = !e->draft_model ? "" : model_name(e->draft_model),
        .license = m->info.license ? m->info.license : "",
        .n_params = m->info.n_params,
        .n_layer = m->hp.n_layer,
        .n_vocab = m->hp.n_vocab,
        .n_embd = m->hp.n_embd,
        .n_head = m->hp.n_head,
        .n_head_kv = m->hp.n_head_kv,
        .ctx_train = m->hp.ctx_train,
        .ctx_tok = ctx_tok,
        .threads = graph_threads(e->graph),
        .kv_bytes_per_tok = block_bytes / KV_BLOCK,
        .kv_tok = graph_n_block(e->graph) * KV_BLOCK,
        .bos = text_bos(m->text),
        .eos = text_eos(m->text),
        .chat_template = m->info.chat_template ? m->info.chat_template : "",
        .system = m->info.system ? m->info.system : "",
        .settings = m->info.settings ? m->info.settings : "",
    };
    count_bytes(e->model, &i->weights_bytes, &i->bytes_per_token);
}

/* A guess at what a token of a prompt costs, from above: two operations a weight, weights of
 * four bits, 50 thousand million operations a second and thread. A large model's first step
 * then does not take many seconds, in which no cancel is seen; a small one's whole prompt
 * mostly fits. */
static double token_cost_us(const struct engine_info *i) {
    return 4.0 * (double)i->bytes_per_token / (50e3 * i->threads);
}

static void close_graphs(struct engine *e) {
    draft_free(e->draft);
    graph_close(e->draft_graph);
    graph_close(e->graph);
    e->draft = NULL;
    e->graph = e->draft_graph = NULL;
}

static void watch_gpus(struct engine *e) {
    e->gpu_watch = xcalloc((size_t)e->info.n_gpu + 1, sizeof(struct nvml_watch *));
    for (int i = 0; i < e->info.n_gpu; i++)
        e->gpu_watch[i] = nvml_watch_new(graph_pci(e->graph, i));
}

static void release(struct engine *e) {
    for (int i = 0; e->gpu_watch && i < e->info.n_gpu; i++)
        nvml_watch_free(e->gpu_watch[i]);
    free(e->gpu_watch);
    mailbox_unref(e->inbox);
    close_graphs(e);
    if (e->draft_model)
        model_close(e->draft_model);
    if (e->model)
        model_close(e->model);
    free(e->path);
    free(e->device_note);
    free(e->device_words);
    free(e->crossovers);
    free(e);
}

/* The model that guesses, and what a block of its KV takes. */
static enum status open_draft(struct engine *e, const struct engine_params *p,
                              size_t *block_bytes, struct err *err) {
    if (!p->draft_path)
        return ST_OK;
    CHECK(model_open(p->draft_path, &e->draft_model, err));
    *block_bytes += graph_kv_block_bytes(e->draft_model, p->kv_type);
    return draft_check(e->draft_model, e->model, err);
}

/* Where the borders between a GPU's kernels are kept. NULL: the usual ones are taken. */
static const char *crossovers_file(struct engine *e, const struct engine_params *p,
                                   enum device device) {
    struct err err = {0};
    if (p->crossovers && device == DEVICE_CUDA && !e->crossovers &&
        path_in(PATH_STATE, "crossovers", &e->crossovers, &err) != ST_OK)
        log_warn("engine: borders between the GPU's kernels are not measured: %s", err.msg);
    return e->crossovers;
}

static enum status open_graphs(struct engine *e, const struct engine_params *p,
                               enum device device, const struct pool_plan *plan,
                               struct err *err) {
    bool fill = device == DEVICE_CUDA && p->gpu_memory_utilization > 0;
    struct graph_params gp = {
        .device = device,
        .tensor_parallel = p->tensor_parallel,
        .threads = p->threads,
        .kv_type = p->kv_type,
        .n_block = fill                    ? MAX_BLOCKS
                   : device == DEVICE_CUDA ? plan->gpu_block
                                           : plan->n_block,
        .host_block = plan->n_block,
        .gpu_layers = p->tensor_parallel > 1 ? 0
                      : p->gpu_layers > 0    ? p->gpu_layers
                                             : GRAPH_FIT,
        .max_logits = SCHED_MAX_LOGITS,
        .crossovers = crossovers_file(e, p, device),
        .room = {.utilization = fill ? p->gpu_memory_utilization : GPU_UTILIZATION,
                 .min_block = plan->min_block,
                 .block_bytes = plan->both_bytes},
    };
    uint64_t ignored;
    if (e->draft_model) {
        count_bytes(e->draft_model, &e->info.draft_bytes, &ignored);
        gp.room.spare_bytes = e->info.draft_bytes + DRAFT_SCRATCH_BYTES;
    }
    CHECK(graph_open(e->model, &gp, &e->graph, err));
    if (!e->draft_model)
        return ST_OK;
    gp.n_block = gp.room.min_block = graph_n_block(e->graph);
    gp.max_logits = SPEC_MAX_SEQ;
    gp.gpu_layers = 0; /* all */
    gp.room.block_bytes = gp.room.spare_bytes = 0;
    gp.tensor_parallel = 1;
    CHECK(graph_open(e->draft_model, &gp, &e->draft_graph, err));
    e->draft = draft_new(e->draft_model, e->draft_graph, gp.n_block, e->model->hp.n_vocab);
    return ST_OK;
}

/* That not all of a model is on the GPU, where nobody asked for that. */
static void note_split(struct engine *e, const struct engine_params *p) {
    int there = graph_gpu_layers(e->graph), all = e->model->hp.n_layer;
    if (p->gpu_layers > 0 || !graph_is_split(e->graph))
        return;
    if (there == all)
        e->device_note = xstrdup("on the GPU are all layers, it has no room for the embedding, "
                                 "which is on the CPU");
    else
        e->device_note =
            xasprintf("on the GPU are %d of %d layers, it has no room for more; the others are "
                      "on the CPU",
                      there, all);
}

/* Who wants several GPUs wants no CPU. */
static enum status check_ranks(const struct engine *e, const struct engine_params *p,
                               struct err *err) {
    int n_layer = e->model->hp.n_layer;
    if (p->device == DEVICE_CPU)
        return err_set(
            err, ST_USAGE,
            "--tensor-parallel %d shares the model among GPUs: it can't be combined "
            "with --device cpu, or --gpu-layers 0; --tensor-parallel 1 takes it back",
            p->tensor_parallel);
    if (p->gpu_layers > 0 && p->gpu_layers < n_layer)
        return err_set(err, ST_USAGE,
                       "--tensor-parallel %d shares all %d layers among GPUs: it can't be "
                       "combined with --gpu-layers %d; --gpu-layers auto, or --tensor-parallel "
                       "1, takes one of them back",
                       p->tensor_parallel, n_layer, p->gpu_layers);
    return ST_OK;
}

/* On the device that was asked for; auto tries a GPU first. */
static enum status open_device(struct engine *e, const struct engine_params *p,
                               const struct pool_plan *plan, struct err *err) {
    struct err why = {0};
    if (p->tensor_parallel > 1) {
        CHECK(check_ranks(e, p, err));
        return open_graphs(e, p, DEVICE_CUDA, plan, err);
    }
    if (p->device != DEVICE_AUTO)
        return open_graphs(e, p, p->device, plan, err);
    if (open_graphs(e, p, DEVICE_CUDA, plan, &why) == ST_OK)
        return ST_OK;
    close_graphs(e);
    log_info("engine: on the CPU: %s", why.msg);
    if (why.code != ST_NOT_FOUND || p->gpu_layers > 0)
        e->device_note = xasprintf("on the CPU: %s", why.msg);
    return open_graphs(e, p, DEVICE_CPU, plan, err);
}

static void wake(void *user) {
    post(user, (struct msg){.type = MSG_WAKE});
}

/* Saved states are of this model, and of what else decides which numbers it computes. Where a
 * model is split they are those of the GPU: as near to what it computes alone as rounding, and
 * the next start may have room for more layers. */
static void keep_states(struct engine *e, const struct engine_params *p, size_t block_bytes) {
    if (!p->kv_dir || !p->kv_dir_bytes)
        return;
    char *form =
        xasprintf("%s %s %s %s %d %zu %d", LLMCHAT_VERSION, STATE_KV, e->info.device,
                  e->info.kernels, (int)graph_kv_type(e->graph), block_bytes, KV_BLOCK);
    struct keep_params k = {.dir = p->kv_dir,
                            .max_bytes = p->kv_dir_bytes,
                            .model = model_hash(e->model),
                            .form = XXH3_64bits(form, strlen(form)),
                            .name = e->info.path,
                            .block_bytes = block_bytes,
                            .wake = wake,
                            .user = e};
    sched_keep(e->sched, &k, p->kv_rest_ms ? p->kv_rest_ms : DEFAULT_REST_MS);
    free(form);
}

enum status engine_open(const char *path, const struct engine_params *params,
                        struct engine **out, struct err *err) {
    static const struct engine_params defaults = {0};
    const struct engine_params *p = params ? params : &defaults;
    struct engine *e = xcalloc(1, sizeof *e);
    enum status st = ST_OK;
    int ctx_tok = 0, n_block = 0;
    if (!tell(p, 0))
        TRY(err_set(err, ST_CANCELLED, "cancelled"));
    TRY(model_open(path, &e->model, err));
    TRY(choose_ctx(e->model, p, &ctx_tok, err));
    struct pool_plan plan = {.min_block = kv_blocks(ctx_tok) + 1};
    plan.block_bytes = plan.both_bytes = graph_kv_block_bytes(e->model, p->kv_type);
    TRY(open_draft(e, p, &plan.both_bytes, err));
    TRY(pool_size(p, &plan, ctx_tok, err));
    TRY(open_device(e, p, &plan, err));
    n_block = graph_n_block(e->graph);
    note_split(e, p);
    fill_info(e, path, ctx_tok, plan.both_bytes);
    watch_gpus(e);
    if (!tell(p, 1))
        TRY(err_set(err, ST_CANCELLED, "cancelled"));
    e->sched =
        sched_new(e->graph, e->model->text, e->model->hp.n_vocab, ctx_tok, n_block, e->draft);
    sched_expect(e->sched, token_cost_us(&e->info));
    e->inbox = mailbox_new(free);
    e->max_waiting = p->max_waiting > 0 ? p->max_waiting : MAX_WAITING;
    keep_states(e, p, plan.block_bytes);
    if (p->swap_bytes)
        sched_swap(e->sched, plan.block_bytes, p->swap_bytes);
    st = start_thread(e, err);
    if (st != ST_OK) {
        sched_free(e->sched);
        goto out;
    }
    log_info("engine: %s, %s, %s (%s), %d threads, context %d, %d KV blocks", path_base(path),
             e->info.quant, e->info.device_words, e->info.kernels, e->info.threads, ctx_tok,
             n_block);
    if (e->draft)
        log_info("engine: draft model %s, %llu bytes", path_base(p->draft_path),
                 (unsigned long long)e->info.draft_bytes);
    *out = e;
    return ST_OK;
out:
    release(e);
    return st;
}

void engine_close(struct engine *e) {
    if (!e)
        return;
    post(e, (struct msg){.type = MSG_QUIT});
    pthread_join(e->thread, NULL);
    release(e);
}

const struct engine_info *engine_info(const struct engine *e) {
    return &e->info;
}

enum status engine_gpu_load(const struct engine *e, int index, struct buf *out,
                            struct err *err) {
    struct nvml_load load;
    assert(index >= 0 && index < e->info.n_gpu);
    CHECK(nvml_watch_get(e->gpu_watch[index], &load, err));
    nvml_text(&load, out);
    return ST_OK;
}

const struct text_model *engine_text(const struct engine *e) {
    return e->model->text;
}

/* ---- sessions ---- */

struct session *session_new(struct engine *e) {
    struct session *s = xcalloc(1, sizeof *s);
    s->engine = e;
    post(e, (struct msg){.type = MSG_NEW, .session = s});
    return s;
}

struct session *session_fork(struct session *src) {
    struct session *s = xcalloc(1, sizeof *s);
    s->engine = src->engine;
    atomic_store(&s->cached_tok, atomic_load(&src->cached_tok));
    post(src->engine, (struct msg){.type = MSG_FORK, .session = s, .src = src});
    return s;
}

void session_free(struct session *s) {
    if (s)
        post(s->engine, (struct msg){.type = MSG_FREE, .session = s});
}

int session_cached_tok(struct session *s) {
    return atomic_load(&s->cached_tok);
}

enum status session_generate(struct session *s, const struct request *r, uint64_t request_id,
                             struct mailbox *events, struct err *err) {
    struct engine *e = s->engine;
    const struct task_limits lim = {.n_vocab = e->info.n_vocab, .ctx_tok = e->info.ctx_tok};
    struct task *t;
    if (r->stream)
        CHECK(engine_can_stream(e, r->stream_ctx, err));
    CHECK(task_new(r, &lim, &t, err));
    if (atomic_load(&s->busy)) { /* set below, by the one thread that uses the session */
        task_free(t);
        return err_set(err, ST_BUSY, "this session is answering already");
    }
    if (atomic_fetch_add(&e->n_waiting, 1) >= e->max_waiting) {
        atomic_fetch_sub(&e->n_waiting, 1);
        task_free(t);
        return err_set(err, ST_QUEUE_FULL, "%d requests are waiting already, the most allowed",
                       e->max_waiting);
    }
    t->queue = &e->n_waiting;
    if (r->priority != PRIORITY_IDLE)
        atomic_store(&s->busy, true);
    t->request_id = request_id;
    t->events = mailbox_ref(events);
    post(e, (struct msg){.type = MSG_SUBMIT, .session = s, .task = t});
    return ST_OK;
}

enum status engine_can_stream(const struct engine *e, int stream_ctx, struct err *err) {
    int ctx = e->info.ctx_tok;
    return shift_check(e->graph, stream_ctx > 0 && stream_ctx < ctx ? stream_ctx : ctx, err);
}

void session_keep(struct session *s, int64_t owner) {
    post(s->engine, (struct msg){.type = MSG_KEEP, .session = s, .owner = owner});
}

void engine_forget(struct engine *e, int64_t owner) {
    post(e, (struct msg){.type = MSG_FORGET, .owner = owner});
}

void session_cancel(struct session *s) {
    post(s->engine, (struct msg){.type = MSG_CANCEL, .session = s});
}

/* ---- evaluation ---- */

enum status engine_evaluate(struct engine *en, struct eval *e, bool (*wait)(void *user),
                            void *user, struct err *err) {
    if (e->n_tok < 1 || e->n_tok > en->info.ctx_tok || e->first < 0 || e->first >= e->n_tok)
        return err_set(err, ST_USAGE, "logits from %d of %d tokens, the context has %d",
                       e->first, e->n_tok, en->info.ctx_tok);
    for (int i = 0; i < e->n_tok; i++)
        if (e->tokens[i] < 0 || e->tokens[i] >= en->info.n_vocab)
            return err_set(err, ST_USAGE, "token %d is %d, the vocabulary has %d", i,
                           e->tokens[i], en->info.n_vocab);
    e->reply = mailbox_new(NULL);
    mailbox_ref(e->reply);
    post(en, (struct msg){.type = MSG_EVAL, .eval = e});
    while (!mailbox_wait(e->reply, 100))
        if (wait && !wait(user))
            atomic_store(&e->cancel, true);
    mailbox_unref(e->reply);
    if (e->st != ST_OK && err)
        *err = e->err;
    return e->st;
}

enum status engine_logits(struct engine *e, const int32_t *tokens, int n_tok, int first,
                          float *out, struct err *err) {
    struct eval job = {.tokens = tokens, .n_tok = n_tok, .first = first, .out = out};
    return engine_evaluate(e, &job, NULL, NULL, err);
}
