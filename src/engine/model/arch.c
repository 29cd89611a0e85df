/*
 * arch.c - see arch.h: the table's lookup, its sizes, and the bounds of hyperparameters.
 *
 * arch_check() is the one gate for numbers from outside, whichever file they come from: behind
 * it every size is small enough that products of two stay in 64 bits, and every relation that
 * the graph relies on holds.
 */
#include "engine/model/arch_table.h"

#include <math.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

bool arch_has_word(const char *list, const char *word) {
    size_t n = strlen(word);
    while (n && list && *list) {
        size_t len = strcspn(list, " ");
        if (len == n && memcmp(list, word, n) == 0)
            return true;
        list += len + (list[len] == ' ');
    }
    return false;
}

/* Row i of all tables, NULL behind the last. */
static const struct arch *row(size_t i) {
    static const struct arch *const tables[] = {arch_llama_rows, arch_gpt_rows};
    for (size_t t = 0; t < COUNT(tables); t++)
        for (const struct arch *a = tables[t]; a->name; a++)
            if (i-- == 0)
                return a;
    return NULL;
}

static enum status unknown(const char *file, const char *what, const char *name, bool hf,
                           struct err *err) {
    struct buf known = {0};
    const struct arch *a;
    const char *last = "";
    for (size_t i = 0; (a = row(i)); i++) {
        const char *s = hf ? a->hf_types : a->name;
        if (s && strcmp(s, last) != 0)
            buf_addf(&known, "%s%s", known.len ? " " : "", s);
        last = s ? s : last;
    }
    enum status st =
        err_set(err, ST_UNSUPPORTED, "%s: %s %.40s is not supported; supported: %s", file, what,
                name, buf_str(&known));
    buf_release(&known);
    return st;
}

enum status arch_find(const char *name, const char *file, const struct arch **out,
                      struct err *err) {
    for (size_t i = 0; (*out = row(i)); i++)
        if (strcmp(name, (*out)->name) == 0)
            return ST_OK;
    return unknown(file, "architecture", name, false, err);
}

enum status arch_find_hf(const char *model_type, const char *file, const struct arch **out,
                         struct err *err) {
    for (size_t i = 0; (*out = row(i)); i++)
        if (arch_has_word((*out)->hf_types, model_type))
            return ST_OK;
    return unknown(file, "model_type", model_type, true, err);
}

uint64_t arch_dim(enum dim d, const struct hparams *hp) {
    switch (d) {
    case DIM_ONE:
        return 1;
    case DIM_EMBD:
        return (uint64_t)hp->n_embd;
    case DIM_WORD:
        return (uint64_t)(hp->n_embd_word ? hp->n_embd_word : hp->n_embd);
    case DIM_WORD_OWN:
        return (uint64_t)hp->n_embd_word;
    case DIM_FF:
        return (uint64_t)hp->n_ff;
    case DIM_Q:
        return (uint64_t)hp->n_head * (uint64_t)hp->head_dim;
    case DIM_KV:
        return (uint64_t)hp->n_head_kv * (uint64_t)hp->head_dim;
    case DIM_HEAD:
        return (uint64_t)hp->head_dim;
    case DIM_Q_EACH:
        return hp->qk_norm_rows == QK_NORM_EACH ? arch_dim(DIM_Q, hp) : 0;
    case DIM_KV_EACH:
        return hp->qk_norm_rows == QK_NORM_EACH ? arch_dim(DIM_KV, hp) : 0;
    case DIM_VOCAB:
        return (uint64_t)hp->n_vocab;
    case DIM_POS:
        return (uint64_t)hp->n_pos;
    case DIM_ROPE_HALF:
        return (uint64_t)hp->rope_dim / 2;
    case DIM_N_HEAD:
        return (uint64_t)hp->n_head;
    case DIM_EXPERTS:
        return (uint64_t)hp->n_expert;
    case DIM_FF_EXPERT:
        return (uint64_t)hp->n_ff_expert;
    case DIM_FF_SHARED:
        return (uint64_t)hp->n_ff_shared;
    }
    return 0;
}

void arch_defaults(struct hparams *hp) {
    *hp = (struct hparams){0};
#define I(f, d) hp->f = d == HP_NEEDED ? 0 : d;
#define F(f, d) hp->f = d == HP_NEEDED ? 0 : d;
    HPARAM_LIST(I, F)
#undef I
#undef F
}

void arch_traits_apply(const struct arch *a, struct hparams *hp) {
    const struct arch_traits *t = &a->traits;
    arch_defaults(hp);
    hp->norm_kind = t->norm;
    hp->act = t->act;
    hp->residual = t->residual;
    hp->alibi = t->pos == POS_ALIBI ? ALIBI_ADDED : ALIBI_NONE;
    hp->qk_norm_rows = t->norm_rows;
    hp->expert_norm = t->expert_norm;
    hp->rope_type = ROPE_DEFAULT;
    hp->rope_base = 10000;
    hp->rope_scale = 1;
}

bool arch_has_experts(const struct arch *a) {
    for (const struct arch_tensor *t = a->layer; t->name; t++)
        if (t->kind == TENSOR_EXPERTS)
            return true;
    return false;
}

void arch_flag_layers(struct hparams *hp, int every, unsigned flags) {
    for (int i = 0; i < hp->n_layer && i < MODEL_MAX_LAYER; i++)
        if (every == 0 || (i + 1) % every)
            hp->layer[i] |= (uint8_t)flags;
}

void arch_no_rope_in_full_layers(struct hparams *hp) {
    for (int i = 0; i < hp->n_layer; i++)
        if (!(hp->layer[i] & LAYER_WINDOW))
            hp->layer[i] |= LAYER_NO_ROPE;
}

static enum status check_ints(const struct hparams *hp, const char *file, struct err *err) {
    const struct {
        const char *name;
        int value, min, max;
    } bounds[] = {
        {"layers", hp->n_layer, 1, MODEL_MAX_LAYER},
        {"vocabulary", hp->n_vocab, 1, 1 << 22},
        {"embedding", hp->n_embd, 1, 1 << 18},
        {"embedding of a word", hp->n_embd_word, 0, 1 << 18},
        {"feed-forward", hp->n_ff, 1, 1 << 20},
        {"heads", hp->n_head, 1, 4096},
        {"KV heads", hp->n_head_kv, 1, 4096},
        {"head size", hp->head_dim, 1, 1024},
        {"rope dimensions", hp->rope_dim, 0, 1024},
        {"context", hp->ctx_train, 1, 1 << 28},
        {"context before scaling", hp->rope_orig_ctx, 0, 1 << 28},
        {"positions", hp->n_pos, 0, 1 << 24},
        {"sliding window", hp->window, 0, 1 << 30},
        {"experts", hp->n_expert, 0, 1024},
        {"experts of a token", hp->n_expert_used, 0, 64},
        {"feed-forward of an expert", hp->n_ff_expert, 0, 1 << 20},
        {"feed-forward of the shared expert", hp->n_ff_shared, 0, 1 << 20},
        {"kind of rope", hp->rope_type, ROPE_DEFAULT, ROPE_LONG},
        {"kind of norm", hp->norm_kind, NORM_RMS, NORM_LAYER},
        {"activation", hp->act, ACT_SILU, ACT_GPT_OSS},
        {"kind of residual", hp->residual, RESIDUAL_PRE, RESIDUAL_POST},
        {"rope_truncate", hp->rope_truncate, 0, 1},
        {"alibi", hp->alibi, ALIBI_NONE, ALIBI_FALCON},
        {"qk_norm_rows", hp->qk_norm_rows, QK_NORM_HEADS, QK_NORM_EACH},
        {"expert_norm", hp->expert_norm, 0, 1},
        {"expert_sigmoid", hp->expert_sigmoid, 0, 1},
    };
    for (size_t i = 0; i < COUNT(bounds); i++)
        if (bounds[i].value < bounds[i].min || bounds[i].value > bounds[i].max)
            return err_set(err, ST_FORMAT, "%s: %s is %d, wanted %d..%d", file, bounds[i].name,
                           bounds[i].value, bounds[i].min, bounds[i].max);
    return ST_OK;
}

static enum status check_floats(const struct hparams *hp, const char *file, struct err *err) {
    const struct {
        const char *name;
        float value, min, max;
    } bounds[] = {
        {"norm epsilon", hp->norm_eps, 1e-30f, 1},
        {"rope base", hp->rope_base, 1, 1e12f},
        {"rope base of sliding layers", hp->rope_base_local, 0, 1e12f},
        {"rope scale", hp->rope_scale, 1e-3f, 1e6f},
        {"rope attention factor", hp->rope_attn_factor, 0, 1e3f},
        {"rope beta_fast", hp->rope_beta_fast, 1e-3f, 1e6f},
        {"rope beta_slow", hp->rope_beta_slow, 1e-3f, 1e6f},
        {"rope mscale", hp->rope_mscale, 0, 1e3f},
        {"rope mscale_all_dim", hp->rope_mscale_all_dim, 0, 1e3f},
        {"rope low_freq_factor", hp->rope_low_freq, 1e-3f, 1e6f},
        {"rope high_freq_factor", hp->rope_high_freq, 1e-3f, 1e6f},
        {"attention scale", hp->att_scale, 0, 1e6f},
        {"attention soft cap", hp->att_cap, 0, 1e6f},
        {"logit soft cap", hp->logit_cap, 0, 1e6f},
        {"logit scale", hp->logit_scale, -1e6f, 1e6f},
        {"embedding scale", hp->embd_scale, -1e6f, 1e6f},
        {"residual scale", hp->residual_scale, -1e6f, 1e6f},
        {"expert scale", hp->expert_scale, -1e6f, 1e6f},
    };
    for (size_t i = 0; i < COUNT(bounds); i++)
        if (!(bounds[i].value >= bounds[i].min && bounds[i].value <= bounds[i].max))
            return err_set(err, ST_FORMAT, "%s: %s is %g, wanted %g..%g", file, bounds[i].name,
                           (double)bounds[i].value, (double)bounds[i].min,
                           (double)bounds[i].max);
    return ST_OK;
}

/* What the flags of the layers need. */
static enum status check_layers(const struct hparams *hp, const char *file, struct err *err) {
    unsigned all = 0;
    for (int i = 0; i < hp->n_layer; i++)
        all |= hp->layer[i];
    if (all > (LAYER_WINDOW | LAYER_NO_ROPE | LAYER_LOCAL_ROPE | LAYER_EXPERTS))
        return err_set(err, ST_FORMAT, "%s: a layer has flags %u that are not known", file,
                       all);
    if (all & LAYER_WINDOW && hp->window < 1)
        return err_set(err, ST_FORMAT, "%s: there are sliding layers and no sliding window",
                       file);
    if (all & LAYER_LOCAL_ROPE && !(hp->rope_base_local >= 1))
        return err_set(err, ST_FORMAT, "%s: rope base of sliding layers is %g, wanted 1..1e12",
                       file, (double)hp->rope_base_local);
    if (all & LAYER_EXPERTS && (hp->n_expert < 1 || hp->n_expert_used < 1 ||
                                hp->n_expert_used > hp->n_expert || hp->n_ff_expert < 1))
        return err_set(err, ST_FORMAT,
                       "%s: a token uses %d of %d experts of size %d: wanted at least one of "
                       "each, and no more used than there are",
                       file, hp->n_expert_used, hp->n_expert, hp->n_ff_expert);
    return ST_OK;
}

static enum status check_heads(const struct hparams *hp, const char *file, struct err *err) {
    if (hp->n_head % hp->n_head_kv)
        return err_set(err, ST_FORMAT, "%s: %d heads are no multiple of %d KV heads", file,
                       hp->n_head, hp->n_head_kv);
    if (hp->n_head * hp->head_dim > 1 << 20)
        return err_set(err, ST_FORMAT, "%s: %d heads of %d are too large", file, hp->n_head,
                       hp->head_dim);
    if (hp->head_dim % 2 || hp->rope_dim % 2 || hp->rope_dim > hp->head_dim)
        return err_set(
            err, ST_FORMAT,
            "%s: %d rope dimensions of a head of %d, wanted an even number of an even one",
            file, hp->rope_dim, hp->head_dim);
    if (hp->rope_type == ROPE_LLAMA3 && !(hp->rope_high_freq > hp->rope_low_freq))
        return err_set(err, ST_FORMAT,
                       "%s: rope high_freq_factor is %g, wanted more than low_freq_factor, %g",
                       file, (double)hp->rope_high_freq, (double)hp->rope_low_freq);
    if ((hp->rope_type == ROPE_DYNAMIC || hp->rope_type == ROPE_YARN) && hp->rope_dim < 4)
        return err_set(err, ST_FORMAT,
                       "%s: %d rope dimensions, wanted 4 or more for this kind of scaling",
                       file, hp->rope_dim);
    if (hp->rope_type == ROPE_YARN && !(hp->rope_base > 1))
        return err_set(err, ST_FORMAT, "%s: rope base is %g, wanted more than 1", file,
                       (double)hp->rope_base);
    return ST_OK;
}

enum status arch_check(const struct hparams *hp, const char *file, struct err *err) {
    CHECK(check_ints(hp, file, err));
    CHECK(check_floats(hp, file, err));
    CHECK(check_heads(hp, file, err));
    return check_layers(hp, file, err);
}
