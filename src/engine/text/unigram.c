/*
 * unigram.c - see unigram.h.
 *
 * Viterbi over the characters of a word: best[i] is the best sum of a way to write the first i
 * bytes, and where its last token begins. The tokens that begin at a place are found by walking
 * a trie: nodes lie in one array, the children of a node beside one another in the order of
 * their bytes. Most nodes have one child; where there are more, a set of bytes counts which
 * child it is, and the root's are looked up directly. Of equal sums the one that was found
 * first stays, which is what both libraries do. A character that is no token counts as the
 * unknown one, ten below the worst score.
 *
 * SentencePiece adds in f32. So that the sums of a long text keep their digits it counts from
 * zero again, at a place whose best sum is beyond RESET; that decides between near equals, so
 * it is done here too, as its version 0.2.3 has it.
 *
 * Time is bounded by the length of a word times that of the longest token. A "word" may be a
 * whole text. Where no token lies across a place, whatever comes behind it can't change the
 * best way to it: the tokens up to there are given out, and the work begins again behind it,
 * with the sum as it is. So what is worked on stays in the cache.
 */
#include "engine/text/unigram.h"
#include "base/utf8.h"
#include "engine/text/tokenizer.h"
#include <math.h>
#include <stdlib.h>

enum { RESET = 100000 };

/* Below 256: the byte of the only child; NO_CHILD; else SETS and behind: which of the sets. */
enum { NO_CHILD = 256, SETS };

struct node {
    uint32_t child;  /* the first */
    int32_t id;      /* the token that ends here, or -1 */
    uint32_t branch; /* by which bytes one gets to a child, see above */
};

struct byte_set {
    uint64_t bits[4];
    uint8_t below[4]; /* members before each of the four words */
};

struct unigram {
    struct node *node; /* [n_node] the root is 0 */
    size_t n_node, cap;
    struct byte_set *set; /* [n_set] */
    size_t n_set, cap_set;
    uint32_t root[256]; /* child of the root, 0: none */
    double *score;      /* [n_tok] */
    double unknown;
    size_t longest; /* bytes of a token, or of a character */
    bool f32;       /* sums, and what they are compared with */
};

struct unigram_best {
    double score;
    int32_t id;
    uint32_t from; /* UINT32_MAX: nothing ends here */
};

struct unigram_work {
    struct unigram_best *best; /* [cap] from the last place that was settled on */
    size_t cap, reach;         /* best[0 .. reach] have a value */
    uint32_t *cut;             /* [cap] ends of tokens, the last first */
};

struct trie_maker {
    struct unigram *u;
    const struct text_model *t;
    const int32_t *id; /* sorted by text */
};

static size_t key_len(const struct text_model *t, int32_t id) {
    return t->sp_off[id + 1] - t->sp_off[id];
}

static unsigned char key_byte(const struct text_model *t, int32_t id, size_t i) {
    return (unsigned char)t->sp_bytes[t->sp_off[id] + i];
}

static int compare_keys(const void *x, const void *y, void *user) {
    const struct text_model *t = user;
    int32_t a = *(const int32_t *)x, b = *(const int32_t *)y;
    size_t na = key_len(t, a), nb = key_len(t, b);
    int c = memcmp(t->sp_bytes + t->sp_off[a], t->sp_bytes + t->sp_off[b], na < nb ? na : nb);
    return c ? c : na != nb ? (na < nb ? -1 : 1) : (a > b) - (a < b);
}

struct range { /* tokens id[lo .. hi) share the first depth bytes, which are those of node */
    uint32_t node, lo, hi, depth;
};

static unsigned n_bits(uint64_t x) { /* baseline processors have no instruction for it */
    x -= x >> 1 & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
    return (unsigned)(((x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u >> 56);
}

/* By which bytes, bits, the children of a node are reached. */
static uint32_t add_branch(struct unigram *u, const uint64_t bits[4], size_t n,
                           unsigned char last) {
    if (n <= 1)
        return n == 0 ? NO_CHILD : last;
    if (u->n_set == u->cap_set) {
        u->cap_set = u->cap_set ? 2 * u->cap_set : 256;
        u->set = xreallocarray(u->set, u->cap_set, sizeof *u->set);
    }
    struct byte_set *s = &u->set[u->n_set];
    unsigned below = 0;
    for (int i = 0; i < 4; i++) {
        s->bits[i] = bits[i];
        s->below[i] = (uint8_t)below;
        below += n_bits(bits[i]);
    }
    return (uint32_t)(SETS + u->n_set++);
}

/* The children of one node; they become ranges of their own at the end of the queue. */
static void add_children(struct trie_maker *m, struct range r, struct range *queue,
                         size_t *n_queue) {
    struct unigram *u = m->u;
    uint64_t bits[4] = {0};
    unsigned char b = 0;
    while (r.lo < r.hi &&
           key_len(m->t, m->id[r.lo]) == r.depth) { /* of equal texts the first */
        if (u->node[r.node].id < 0)
            u->node[r.node].id = m->id[r.lo];
        r.lo++;
    }
    u->node[r.node].child = (uint32_t)u->n_node;
    while (r.lo < r.hi) {
        b = key_byte(m->t, m->id[r.lo], r.depth);
        uint32_t end = r.lo;
        while (end < r.hi && key_byte(m->t, m->id[end], r.depth) == b)
            end++;
        if (u->n_node == u->cap) {
            u->cap *= 2;
            u->node = xreallocarray(u->node, u->cap, sizeof *u->node);
        }
        u->node[u->n_node] = (struct node){.id = -1};
        queue[(*n_queue)++] = (struct range){(uint32_t)u->n_node, r.lo, end, r.depth + 1};
        bits[b >> 6] |= 1ull << (b & 63);
        u->n_node++;
        r.lo = end;
    }
    u->node[r.node].branch = add_branch(u, bits, u->n_node - u->node[r.node].child, b);
}

/* 0: none */
static uint32_t child_of(const struct unigram *u, uint32_t node, unsigned char byte) {
    uint32_t branch = u->node[node].branch, child = u->node[node].child;
    if (branch < NO_CHILD)
        return branch == byte ? child : 0;
    if (branch == NO_CHILD)
        return 0;
    const struct byte_set *s = &u->set[branch - SETS];
    uint64_t bits = s->bits[byte >> 6], bit = 1ull << (byte & 63);
    return bits & bit ? child + s->below[byte >> 6] + n_bits(bits & (bit - 1)) : 0;
}

/* ids [n] of tokens that text may become. Breadth first, so that children lie together. */
static void build_trie(struct unigram *u, const struct text_model *t, int32_t *id, size_t n) {
    struct trie_maker m = {u, t, id};
    size_t total = 1, n_queue = 0;
    qsort_r(id, n, sizeof *id, compare_keys, (void *)t);
    for (size_t i = 0; i < n; i++)
        total += key_len(t, id[i]);
    struct range *queue = xreallocarray(NULL, total, sizeof *queue);
    u->cap = 1024;
    u->node = xreallocarray(NULL, u->cap, sizeof *u->node);
    u->node[u->n_node++] = (struct node){.id = -1};
    queue[n_queue++] = (struct range){0, 0, (uint32_t)n, 0};
    for (size_t i = 0; i < n_queue; i++)
        add_children(&m, queue[i], queue, &n_queue);
    for (unsigned b = 0; b < 256; b++)
        u->root[b] = child_of(u, 0, (unsigned char)b);
    free(queue);
}

enum status unigram_build(const struct text_model *t, const struct vocab_data *v,
                          bool as_sentencepiece, struct unigram **out, struct err *err) {
    if (!v->scores && !v->scores64)
        return err_set(err, ST_FORMAT, "a Unigram tokenizer needs a score for each token");
    struct unigram *u = xcalloc(1, sizeof *u);
    int32_t *id = xreallocarray(NULL, t->n_tok, sizeof *id);
    size_t n = 0;
    double low = INFINITY;
    u->f32 = as_sentencepiece;
    u->longest = 4;
    u->score = xcalloc(t->n_tok, sizeof *u->score);
    for (uint32_t i = 0; i < t->n_tok; i++) {
        int type = v->types ? v->types[i] : VOCAB_NORMAL;
        double s = v->scores64 ? v->scores64[i] : v->scores[i];
        bool piece = isfinite(s) && type != VOCAB_UNUSED;
        u->score[i] = isfinite(s) ? s : 0;
        bool counts = as_sentencepiece ? type == VOCAB_NORMAL : piece;
        if (counts && u->score[i] < low)
            low = u->score[i];
        if (key_len(t, (int32_t)i) == 0 || (t->flags[i] & TOKEN_CONTROL) || !piece ||
            (as_sentencepiece && type == VOCAB_BYTE))
            continue;
        id[n++] = (int32_t)i;
        if (key_len(t, (int32_t)i) > u->longest)
            u->longest = key_len(t, (int32_t)i);
    }
    for (uint32_t i = 0; as_sentencepiece && v->types && i < t->n_tok; i++)
        if (v->types[i] == VOCAB_USER_DEFINED) /* better than all others together */
            u->score[i] = (double)(float)(0.1 * ((double)key_len(t, (int32_t)i) - 1));
    u->unknown = as_sentencepiece ? (double)((float)low - 10.0f) : low - 10;
    build_trie(u, t, id, n);
    free(id);
    *out = u;
    return ST_OK;
}

void unigram_free(struct unigram *u) {
    if (!u)
        return;
    free(u->node);
    free(u->set);
    free(u->score);
    free(u);
}

struct unigram_work *unigram_work_new(void) {
    return xcalloc(1, sizeof(struct unigram_work));
}

void unigram_work_free(struct unigram_work *w) {
    if (!w)
        return;
    free(w->best);
    free(w->cut);
    free(w);
}

static void offer(const struct unigram *u, struct unigram_work *w, size_t to, double score,
                  int32_t id, size_t from) {
    struct unigram_best *best = w->best;
    if (u->f32)
        score = (double)(float)score;
    while (w->reach < to)
        best[++w->reach].from = UINT32_MAX;
    if (best[to].from != UINT32_MAX && !(score > best[to].score))
        return;
    best[to] = (struct unigram_best){score, id, (uint32_t)from};
}

/* Every token that begins with s [len], which is at `at` from the settled place. */
static void offer_tokens(const struct unigram *u, struct unigram_work *w, const char *s,
                         size_t len, size_t at, size_t n_char) {
    double base = w->best[at].score;
    bool single = false;
    uint32_t node = u->root[(unsigned char)s[0]];
    for (size_t i = 1; node != 0; i++) {
        int32_t id = u->node[node].id;
        if (id >= 0) {
            offer(u, w, at + i, u->score[id] + base, id, at);
            single = single || i == n_char;
        }
        if (i == len)
            break;
        node = child_of(u, node, (unsigned char)s[i]);
    }
    if (!single)
        offer(u, w, at + n_char, u->unknown + base, -1, at);
}

/* What was reached from before `at` counts from the best sum there, see above. */
static void reset_sums(const struct unigram *u, struct unigram_work *w, size_t at) {
    double offset = w->best[at].score;
    if (!u->f32 || fabs(offset) <= RESET)
        return;
    for (size_t i = at; i <= w->reach; i++)
        if (i == at || w->best[i].from != UINT32_MAX)
            w->best[i].score = (double)(float)(w->best[i].score - offset);
}

/* A stretch that is no token: its bytes, or the unknown token. */
static void add_unknown(const struct text_model *t, const char *s, size_t len,
                        struct tok_list *out) {
    bool all = t->byte_fallback;
    for (size_t i = 0; i < len && all; i++)
        all = t->byte_id[(unsigned char)s[i]] >= 0;
    for (size_t i = 0; i < len && all; i++)
        tok_list_add(out, t->byte_id[(unsigned char)s[i]]);
    if (!all && t->unk >= 0)
        tok_list_add(out, t->unk);
}

/* The best way to best[end], of the text s that begins at best[0]. */
static void add_best(const struct text_model *t, const struct unigram_work *w, const char *s,
                     size_t end, struct tok_list *out) {
    const struct unigram_best *best = w->best;
    size_t n = 0;
    for (size_t i = end; i > 0; i = best[i].from)
        w->cut[n++] = (uint32_t)i;
    while (n > 0) {
        size_t to = w->cut[--n], from = best[to].from;
        if (best[to].id >= 0) {
            tok_list_add(out, best[to].id);
            continue;
        }
        /* unknown characters beside one another are one, but each has its bytes: the same */
        while (t->fuse_unk && n > 0 && best[w->cut[n - 1]].id < 0)
            to = w->cut[--n];
        add_unknown(t, s + from, to - from, out);
    }
}

static void reserve(struct unigram_work *w, size_t n) {
    if (n <= w->cap)
        return;
    w->cap = 2 * n;
    w->best = xreallocarray(w->best, w->cap, sizeof *w->best);
    w->cut = xreallocarray(w->cut, w->cap, sizeof *w->cut);
}

void unigram_word(const struct text_model *t, struct unigram_work *w, const char *word,
                  size_t len, struct tok_list *out) {
    const struct unigram *u = t->unigram;
    size_t settled = 0;
    reserve(w, u->longest + 1);
    w->reach = 0;
    w->best[0].score = 0;
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        size_t n = utf8_decode(word + i, len - i, &cp), at = i - settled;
        /* not between unknown characters, which may have to be one */
        if (at > 0 && w->reach == at && w->best[at].id >= 0) {
            add_best(t, w, word + settled, at, out);
            w->best[0].score = w->best[at].score;
            w->reach = 0;
            settled = i;
            at = 0;
        }
        reserve(w, at + u->longest + 1);
        reset_sums(u, w, at);
        offer_tokens(u, w, word + i, len - i, at, n);
        i += n;
    }
    add_best(t, w, word + settled, len - settled, out);
}
