/*
 * keep.c - see keep.h.
 *
 * Data: a queue of jobs that the keeper's thread takes from the front, one piece of memory
 * through which blocks travel, and the index: the tokens of every file of this model in the
 * folder. The lock guards all of them; the timelines of jobs and the file that is being read
 * are the engine thread's alone. The index is made by the keeper's thread when it starts,
 * without the lock, so that opening a model never waits for a folder; later whoever looks
 * something up reads what is new when the folder has changed.
 *
 * A lookup compares the prompt with each file's tokens. They are few: all tokens of a folder of
 * 4 GB take less than a megabyte.
 *
 * A state is written whole even when a file has most of it, and then takes that file's place.
 * Rejected: files that continue one another (removing one, or one conversation's, strands
 * others), and appending (a reader could meet half of it). Rejected, too: the keeper's thread
 * reading the pool itself; it would do on a CPU, not on a device.
 */
#include "engine/run/keep.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/thread.h"
#include "engine/run/state_file.h"
#include "engine/run/states.h"
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE_BYTES = 4 << 20, CLOSE_US = 2000000, READ_BLOCKS = 64 };

struct job {
    struct job *next;
    int64_t owner;
    bool forget;      /* remove what is kept for owner; else save: */
    struct kv_seq kv; /* a fork; the engine thread's */
    int32_t *tokens;  /* [n_tok] a copy */
    int n_tok, kind;
    int n_read;   /* blocks handed over */
    bool dropped; /* is not to be written any more */
};

struct entry {
    char *name;
    int32_t *tokens; /* [n_tok] */
    int n_tok;       /* 0: a file that is none of this engine's, or damaged */
    int kind;
    int64_t owner;
    bool seen;
};

struct keep {
    struct keep_params p;
    char *dir, *name;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t to_keeper, to_engine;

    struct job *queue; /* the first one is being written, when `writing` */
    struct job *done;  /* the engine thread frees them */
    bool indexed;      /* until then the index is the keeper's thread's alone */
    bool writing, want, quit, ended;
    char *piece; /* [n_piece][block_bytes] */
    int n_piece, n_filled;

    struct entry *entries;
    size_t n_entry;
    struct timespec folder; /* its time when it was read; zeros: never */

    /* the engine thread's */
    struct state_file reading;
    char *block; /* [block_bytes] */
};

/* ---- the index; under the lock, but for the first time ---- */

static void entry_release(struct entry *e) {
    free(e->name);
    free(e->tokens);
}

static struct entry *find_entry(struct keep *k, const char *name) {
    for (size_t i = 0; i < k->n_entry; i++)
        if (strcmp(k->entries[i].name, name) == 0)
            return &k->entries[i];
    return NULL;
}

static void add_entry(struct keep *k, const char *name, const struct state_head *h,
                      const int32_t *tokens) {
    struct entry e = {.name = xstrdup(name), .seen = true};
    if (h) {
        e.n_tok = (int)h->n_tok;
        e.kind = (int)h->kind;
        e.owner = h->owner;
        e.tokens = xreallocarray(NULL, h->n_tok, sizeof *tokens);
        memcpy(e.tokens, tokens, h->n_tok * sizeof *tokens);
    }
    k->entries = xreallocarray(k->entries, k->n_entry + 1, sizeof *k->entries);
    k->entries[k->n_entry++] = e;
}

static bool fits(const struct keep *k, const struct state_head *h) {
    return h->model == k->p.model && h->form == k->p.form && h->block_bytes == k->p.block_bytes;
}

static void index_one(void *user, const char *path, const char *name) {
    struct keep *k = user;
    struct state_file f;
    struct err err;
    uint64_t model;
    if (!states_parse_name(name, &model) || model != k->p.model)
        return;
    struct entry *known = find_entry(k, name);
    if (known) {
        known->seen = true;
        return;
    }
    enum status st = state_open(&f, path, &err);
    if (st == ST_FORMAT) {
        log_warn("%s; it is removed", err.msg);
        unlink(path);
    }
    if (st == ST_UNSUPPORTED)
        add_entry(k, name, NULL, NULL);
    if (st != ST_OK)
        return;
    add_entry(k, name, fits(k, &f.head) ? &f.head : NULL, f.tokens);
    state_close(&f);
}

static void refresh(struct keep *k) {
    struct stat sb;
    if (stat(k->dir, &sb) != 0 ||
        (sb.st_mtim.tv_sec == k->folder.tv_sec && sb.st_mtim.tv_nsec == k->folder.tv_nsec))
        return;
    k->folder = sb.st_mtim;
    for (size_t i = 0; i < k->n_entry; i++)
        k->entries[i].seen = false;
    states_each(k->dir, index_one, k);
    size_t n = 0;
    for (size_t i = 0; i < k->n_entry; i++) {
        if (k->entries[i].seen)
            k->entries[n++] = k->entries[i];
        else
            entry_release(&k->entries[i]);
    }
    k->n_entry = n;
}

/* The file with the longest common beginning; under the lock. */
static struct entry *longest(struct keep *k, int kind, const int32_t *tokens, int n_tok,
                             int *n_common) {
    struct entry *best = NULL;
    *n_common = 0;
    while (!k->indexed)
        pthread_cond_wait(&k->to_engine, &k->lock);
    refresh(k);
    for (size_t i = 0; i < k->n_entry; i++) {
        struct entry *e = &k->entries[i];
        int n = e->kind == kind ? kv_common(e->tokens, e->n_tok, tokens, n_tok) : 0;
        if (n > *n_common) {
            *n_common = n;
            best = e;
        }
    }
    return best;
}

static void remove_entry(struct keep *k, struct entry *e) {
    char *path = path_join(k->dir, e->name);
    unlink(path);
    free(path);
    entry_release(e);
    *e = k->entries[--k->n_entry];
}

/* ---- the keeper's thread ---- */

/* Files of the same conversation that the new one makes useless: it has all of their tokens, or
 * all but the end, as when the text of an answer became other tokens. */
static void supersede(struct keep *k, const struct job *j, const char *name) {
    for (size_t i = k->n_entry; i-- > 0;) {
        struct entry *e = &k->entries[i];
        if (e->owner != j->owner || e->kind != j->kind || strcmp(e->name, name) == 0)
            continue;
        int n = kv_common(e->tokens, e->n_tok, j->tokens, j->n_tok);
        if (n > 0 && n >= e->n_tok - e->n_tok / 8 && e->n_tok <= j->n_tok)
            remove_entry(k, e);
    }
}

/* Waits for the next piece; its blocks, 0: the job was dropped. */
static int next_piece(struct keep *k, const struct job *j) {
    k->n_filled = 0;
    k->want = true;
    pthread_cond_signal(&k->to_engine);
    k->p.wake(k->p.user);
    while (!j->dropped && !k->n_filled)
        pthread_cond_wait(&k->to_keeper, &k->lock);
    k->want = false;
    return j->dropped ? 0 : k->n_filled;
}

/* Under the lock, which is given back while it writes. */
static enum status write_blocks(struct keep *k, const struct job *j, struct state_writer *w,
                                struct err *err) {
    enum status st = ST_OK;
    while (st == ST_OK && w->n_written < w->head.n_block) {
        int n = next_piece(k, j);
        if (n == 0)
            return err_set(err, ST_CANCELLED, "given up");
        pthread_mutex_unlock(&k->lock);
        for (int i = 0; i < n && st == ST_OK; i++)
            st = state_write_block(w, k->piece + (size_t)i * k->p.block_bytes, err);
        pthread_mutex_lock(&k->lock);
    }
    return st;
}

/* Names that keepers of this process write now. The name of a file that is not ready yet has
 * only the process in it, so that two must not write the same one; who comes second need not,
 * since it is the same state. */
static pthread_mutex_t writers_lock = PTHREAD_MUTEX_INITIALIZER;
static struct strlist writers;

static bool begin_name(const char *name) {
    bool taken = false;
    pthread_mutex_lock(&writers_lock);
    for (size_t i = 0; i < writers.n; i++)
        taken = taken || strcmp(writers.v[i], name) == 0;
    if (!taken)
        strlist_add(&writers, name);
    pthread_mutex_unlock(&writers_lock);
    return !taken;
}

static void end_name(const char *name) {
    pthread_mutex_lock(&writers_lock);
    for (size_t i = 0; i < writers.n; i++)
        if (strcmp(writers.v[i], name) == 0) {
            free(writers.v[i]);
            writers.v[i--] = writers.v[--writers.n];
        }
    if (!writers.n)
        strlist_release(&writers);
    pthread_mutex_unlock(&writers_lock);
}

/* Under the lock, which is given back while it works on files. */
static enum status write_state(struct keep *k, const struct job *j, const char *name,
                               struct err *err) {
    struct state_writer w;
    const struct state_head head = {.model = k->p.model,
                                    .form = k->p.form,
                                    .owner = j->owner,
                                    .block_bytes = k->p.block_bytes,
                                    .n_tok = (uint32_t)j->n_tok,
                                    .kind = (uint32_t)j->kind};
    char *path = path_join(k->dir, name);
    pthread_mutex_unlock(&k->lock);
    enum status st = path_make_dirs(k->dir, err); /* a person may have emptied the cache */
    if (st == ST_OK && !states_make_room(k->dir, k->p.max_bytes,
                                         state_file_bytes((uint64_t)j->n_tok, k->p.block_bytes,
                                                          strlen(k->name))))
        st = err_set(err, ST_LIMIT, "%d tokens: larger than what may be kept", j->n_tok);
    if (st == ST_OK)
        st = state_write_begin(&w, path, &head, j->tokens, k->name, err);
    if (st == ST_OK) {
        pthread_mutex_lock(&k->lock);
        st = write_blocks(k, j, &w, err);
        pthread_mutex_unlock(&k->lock);
        if (st == ST_OK)
            st = state_write_end(&w, err);
        else
            state_write_abort(&w);
    }
    pthread_mutex_lock(&k->lock);
    if (st == ST_OK && !find_entry(k, name))
        add_entry(k, name, &w.head, j->tokens);
    free(path);
    return st;
}

static void save(struct keep *k, const struct job *j) {
    struct err err;
    int n;
    struct entry *e = longest(k, j->kind, j->tokens, j->n_tok, &n);
    if (e && n == j->n_tok) { /* there already */
        struct state_file f;
        char *path = path_join(k->dir, e->name);
        if (state_open(&f, path, &err) == ST_OK) {
            state_touch(&f);
            state_close(&f);
        }
        free(path);
        return;
    }
    char *name = states_name(k->p.model, j->tokens, (size_t)j->n_tok, k->p.form);
    e = find_entry(k, name);
    if (e) /* damaged */
        remove_entry(k, e);
    if (begin_name(name)) {
        if (write_state(k, j, name, &err) == ST_OK)
            supersede(k, j, name);
        else if (err.code != ST_CANCELLED)
            log_warn("a state is not kept: %s", err.msg);
        end_name(name);
    }
    free(name);
}

static void forget(struct keep *k, int64_t owner) {
    pthread_mutex_unlock(&k->lock);
    states_remove_owner(k->dir, owner);
    pthread_mutex_lock(&k->lock);
}

static void *work(void *arg) {
    struct keep *k = arg;
    states_sweep(k->dir);
    refresh(k);
    pthread_mutex_lock(&k->lock);
    k->indexed = true;
    pthread_cond_signal(&k->to_engine);
    for (;;) {
        while (!k->queue && !k->quit)
            pthread_cond_wait(&k->to_keeper, &k->lock);
        struct job *j = k->queue;
        if (!j)
            break;
        k->writing = true;
        if (j->forget)
            forget(k, j->owner);
        else if (!j->dropped)
            save(k, j);
        k->writing = false;
        k->queue = j->next;
        j->next = k->done;
        k->done = j;
        pthread_cond_signal(&k->to_engine);
        k->p.wake(k->p.user);
    }
    k->ended = true;
    pthread_cond_signal(&k->to_engine);
    pthread_mutex_unlock(&k->lock);
    return NULL;
}

/* ---- the engine thread: saving ---- */

static void push(struct keep *k, struct job *j) {
    struct job **at = &k->queue;
    while (*at)
        at = &(*at)->next;
    *at = j;
    pthread_cond_signal(&k->to_keeper);
}

/* Drops what waits for the owner: all of it, or with `by` what is not begun and is the
 * beginning of that. */
static void drop_waiting(struct keep *k, int64_t owner, const struct job *by) {
    for (struct job *j = k->queue; j; j = j->next) {
        bool begun = k->writing && j == k->queue;
        if (j->forget || j->owner != owner || (by && begun))
            continue;
        if (by && (by->kind != j->kind ||
                   kv_common(j->tokens, j->n_tok, by->tokens, by->n_tok) < j->n_tok))
            continue;
        j->dropped = true;
        kv_seq_release(k->p.pool, &j->kv);
    }
}

void keep_save(struct keep *k, const struct kv_seq *kv, int n_tok, int64_t owner) {
    assert(n_tok <= kv->n_tok);
    if (n_tok < KEEP_MIN_TOK || n_tok > STATE_MAX_TOK || kv->hidden || kv->moved_from)
        return;
    struct job *j = xcalloc(1, sizeof *j);
    *j = (struct job){.owner = owner, .n_tok = n_tok, .kind = kv->kind};
    j->tokens = xreallocarray(NULL, (size_t)n_tok, sizeof *j->tokens);
    memcpy(j->tokens, kv->tokens, (size_t)n_tok * sizeof *j->tokens);
    kv_fork(k->p.pool, &j->kv, kv);
    pthread_mutex_lock(&k->lock);
    drop_waiting(k, owner, j);
    push(k, j);
    pthread_mutex_unlock(&k->lock);
}

void keep_forget(struct keep *k, int64_t owner) {
    struct job *j = xcalloc(1, sizeof *j);
    *j = (struct job){.owner = owner, .forget = true};
    pthread_mutex_lock(&k->lock);
    drop_waiting(k, owner, NULL);
    push(k, j);
    pthread_mutex_unlock(&k->lock);
}

static void fill_piece(struct keep *k, struct job *j) {
    int left = kv_blocks(j->n_tok) - j->n_read;
    int n = left < k->n_piece ? left : k->n_piece;
    for (int i = 0; i < n; i++, j->n_read++) {
        int used = j->n_tok - j->n_read * KV_BLOCK;
        graph_read_block(k->p.graph, j->kv.blocks[j->n_read], used < KV_BLOCK ? used : KV_BLOCK,
                         k->piece + (size_t)i * k->p.block_bytes);
    }
    if (graph_failed(k->p.graph)) /* the files of before are better */
        j->dropped = true;
    if (n == left || j->dropped)
        kv_seq_release(k->p.pool, &j->kv);
    k->n_filled = n;
    k->want = false;
    pthread_cond_signal(&k->to_keeper);
}

/* True when that gave blocks back. */
static bool free_done(struct keep *k) {
    bool gave = false;
    for (struct job *j; (j = k->done);) {
        k->done = j->next;
        gave = gave || j->kv.n_block > 0;
        kv_seq_release(k->p.pool, &j->kv);
        free(j->tokens);
        free(j);
    }
    return gave;
}

/* Under the lock. */
static void pump(struct keep *k) {
    free_done(k);
    if (k->want && !k->queue->dropped)
        fill_piece(k, k->queue);
}

void keep_pump(struct keep *k) {
    pthread_mutex_lock(&k->lock);
    pump(k);
    pthread_mutex_unlock(&k->lock);
}

bool keep_give_up(struct keep *k) {
    struct job *last = NULL;
    pthread_mutex_lock(&k->lock);
    bool gave = free_done(k);
    for (struct job *j = k->queue; j && !gave; j = j->next)
        if (j->kv.n_block)
            last = j;
    if (last) {
        gave = true;
        last->dropped = true;
        kv_seq_release(k->p.pool, &last->kv);
        pthread_cond_signal(&k->to_keeper);
    }
    pthread_mutex_unlock(&k->lock);
    return gave;
}

static int list_seqs(const struct job *j, const struct kv_seq **out, int n, int most) {
    for (; j; j = j->next, n++)
        if (n < most)
            out[n] = &j->kv;
    return n;
}

int keep_seqs(struct keep *k, const struct kv_seq **out, int most) {
    if (!k)
        return 0;
    pthread_mutex_lock(&k->lock);
    int n = list_seqs(k->queue, out, 0, most);
    n = list_seqs(k->done, out, n, most);
    pthread_mutex_unlock(&k->lock);
    return n;
}

/* ---- the engine thread: loading ---- */

static void end_reading(struct keep *k) {
    state_close(&k->reading);
}

/* The file is not chosen again. */
static void not_again(struct keep *k, const char *name) {
    pthread_mutex_lock(&k->lock);
    struct entry *e = find_entry(k, name);
    if (e)
        e->n_tok = 0;
    pthread_mutex_unlock(&k->lock);
}

/* Opens the file that has most of the tokens, unless it is open; how many of them it has. */
static int choose(struct keep *k, int kind, const int32_t *tokens, int n_tok) {
    struct err err;
    int n;
    pthread_mutex_lock(&k->lock);
    struct entry *e = longest(k, kind, tokens, n_tok, &n);
    char *path = e ? path_join(k->dir, e->name) : NULL;
    pthread_mutex_unlock(&k->lock);
    if (!path || (k->reading.path && strcmp(k->reading.path, path) == 0)) {
        free(path);
        return n;
    }
    end_reading(k);
    bool ok = state_open(&k->reading, path, &err) == ST_OK && fits(k, &k->reading.head) &&
              (int)k->reading.head.kind == kind;
    if (!ok) { /* removed since, or damaged */
        end_reading(k);
        not_again(k, path_base(path));
        free(path);
        return 0;
    }
    free(path);
    state_touch(&k->reading);
    return kv_common(k->reading.tokens, (int)k->reading.head.n_tok, tokens, n_tok);
}

/* It is not used again, and removed where that is possible. */
static void damaged(struct keep *k, const struct err *err) {
    log_warn("%s; it is removed", err->msg);
    not_again(k, path_base(k->reading.path));
    unlink(k->reading.path);
    end_reading(k);
}

/* Blocks of the file that are read side by side. */
struct batch_read {
    const struct state_file *file;
    int first;             /* block */
    void *to[READ_BLOCKS]; /* [n] */
    bool ok[READ_BLOCKS];
};

/* A block that holds tokens of kv already is not overwritten before it was checked. */
static bool in_place(const struct keep *k, const struct kv_seq *kv) {
    return kv->n_tok % KV_BLOCK == 0 && graph_host_block(k->p.graph, 0) != NULL;
}

static void read_item(void *ctx, int item, int thread) {
    struct batch_read *r = ctx;
    struct err err;
    (void)thread;
    r->ok[item] =
        state_read_block(r->file, (uint32_t)(r->first + item), r->to[item], &err) == ST_OK;
}

/* Blocks that come next in kv, for tokens up to n and of max_bytes at most, but one at least:
 * more than one where each can be read straight to its place. */
static int batch_blocks(const struct keep *k, const struct kv_seq *kv, int n,
                        size_t max_bytes) {
    size_t left = (size_t)(kv_blocks(n) - kv->n_tok / KV_BLOCK);
    size_t most = max_bytes / k->p.block_bytes;
    size_t room = (size_t)kv_available(k->p.pool);
    if (room < most) /* where the last one finds none, those before are read */
        most = room;
    if (!in_place(k, kv) || most < 1)
        most = 1;
    most = most < READ_BLOCKS ? most : READ_BLOCKS;
    return (int)(left < most ? left : most);
}

/* Reads n blocks of the file to those that kv has reserved. Returns how many came whole; what
 * is wrong with the next one is in err. */
static int read_batch(struct keep *k, const struct kv_seq *kv, int n, struct err *err) {
    struct batch_read r = {.file = &k->reading, .first = kv->n_tok / KV_BLOCK};
    bool direct = in_place(k, kv);
    for (int i = 0; i < n; i++)
        r.to[i] = direct ? graph_host_block(k->p.graph, kv->blocks[r.first + i]) : k->block;
    graph_parallel(k->p.graph, n, read_item, &r);
    for (int i = 0; i < n; i++)
        if (!r.ok[i] && /* again, to hear what it is */
            state_read_block(r.file, (uint32_t)(r.first + i), r.to[i], err) != ST_OK)
            return i;
    if (!direct)
        graph_write_block(k->p.graph, kv->blocks[r.first], k->block);
    return n;
}

bool keep_load(struct keep *k, struct kv_seq *kv, const int32_t *tokens, int n_tok,
               size_t max_bytes) {
    struct err err;
    if (kv->moved_from)
        return false;
    int n = choose(k, kv->kind, tokens, n_tok);
    n = n < n_tok - 1 ? n : n_tok - 1;
    for (size_t got = 0; kv->n_tok < n && got < max_bytes;) {
        int first = kv->n_tok / KV_BLOCK, want = batch_blocks(k, kv, n, max_bytes - got);
        int end = (first + want) * KV_BLOCK < n ? (first + want) * KV_BLOCK : n;
        if (!kv_reserve(k->p.pool, kv, end - kv->n_tok)) {
            n = 0;
            break;
        }
        int came = read_batch(k, kv, want, &err);
        if (came < want)
            end = (first + came) * KV_BLOCK;
        if (end > kv->n_tok)
            kv_commit(k->p.pool, kv, tokens + kv->n_tok, end - kv->n_tok);
        if (came < want) {
            damaged(k, &err);
            return true; /* another file may have it */
        }
        got += (size_t)want * k->p.block_bytes;
    }
    if (kv->n_tok < n)
        return true;
    end_reading(k);
    return false;
}

/* ---- open and close ---- */

static void release(struct keep *k) {
    end_reading(k);
    free_done(k);
    for (size_t i = 0; i < k->n_entry; i++)
        entry_release(&k->entries[i]);
    free(k->entries);
    free(k->piece);
    free(k->block);
    free(k->dir);
    free(k->name);
    pthread_cond_destroy(&k->to_keeper);
    pthread_cond_destroy(&k->to_engine);
    pthread_mutex_destroy(&k->lock);
    free(k);
}

struct keep *keep_open(const struct keep_params *p) {
    struct keep *k = xcalloc(1, sizeof *k);
    pthread_condattr_t attr;
    assert(p->block_bytes > 0);
    k->p = *p;
    k->dir = xstrdup(p->dir);
    k->name = xstrdup(p->name);
    k->reading.fd = -1;
    k->n_piece = p->block_bytes < PIECE_BYTES ? (int)(PIECE_BYTES / p->block_bytes) : 1;
    k->piece = xreallocarray(NULL, (size_t)k->n_piece, p->block_bytes);
    k->block = xmalloc(p->block_bytes);
    pthread_mutex_init(&k->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&k->to_keeper, &attr);
    pthread_cond_init(&k->to_engine, &attr);
    pthread_condattr_destroy(&attr);
    int rc = p->block_bytes > STATE_MAX_BLOCK_BYTES ? E2BIG : thread_start(&k->thread, work, k);
    if (rc == 0)
        return k;
    log_warn("states are not kept: %s", strerror(rc));
    release(k);
    return NULL;
}

void keep_close(struct keep *k) {
    if (!k)
        return;
    int64_t until = clock_us() + CLOSE_US;
    pthread_mutex_lock(&k->lock);
    k->quit = true;
    pthread_cond_signal(&k->to_keeper);
    const struct timespec at = {.tv_sec = until / 1000000, .tv_nsec = until % 1000000 * 1000};
    while (!k->ended) {
        pump(k);
        if (clock_us() < until) {
            pthread_cond_timedwait(&k->to_engine, &k->lock, &at);
            continue;
        }
        for (struct job *j = k->queue; j; j = j->next)
            j->dropped = !j->forget;
        pthread_cond_signal(&k->to_keeper);
        pthread_cond_wait(&k->to_engine, &k->lock);
    }
    pthread_mutex_unlock(&k->lock);
    pthread_join(k->thread, NULL);
    release(k);
}
