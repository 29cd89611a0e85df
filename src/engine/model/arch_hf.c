/*
 * arch_hf.c - hyperparameters from the config.json of a Hugging Face checkpoint, as
 * transformers 4 and 5 write it.
 *
 * Every key that means the same wherever it stands is read here for all architectures, under
 * all its spellings; arch_hf_special.c has the rest. A key that a class doesn't know changes
 * nothing in transformers, though a config may have it, a leftover of the model it was made
 * from; so what not all know is struck out before reading where it means nothing. Two
 * generations differ in RoPE: rope_theta beside rope_scaling, or all of it in rope_parameters,
 * there perhaps once for each type of layer. What a missing key means differs from class to
 * class, so the table's row has defaults, which are put under the config before it is read; a
 * key that is there as null is missing and stays so.
 *
 * A config of several parts (text and vision) keeps what counts in text_config.
 */
#include "engine/model/arch_table.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

enum { MAX_COUNT = 1 << 30 }; /* sums and products of two stay in range until arch_check() */

struct word {
    const char *name;
    int value;
};

/* The value of the word `found` among those that a key may have. */
static enum status choose(const struct hf_json *c, const char *key, const char *found,
                          const struct word *words, size_t n, int *out, struct err *err) {
    struct buf known = {0};
    for (size_t i = 0; i < n; i++) {
        if (strcmp(found, words[i].name) == 0) {
            *out = words[i].value;
            buf_release(&known);
            return ST_OK;
        }
        buf_addf(&known, "%s%s", i ? ", " : "", words[i].name);
    }
    enum status st = err_set(err, ST_UNSUPPORTED, "%s: %s is \"%.40s\", supported: %s", c->file,
                             key, found, buf_str(&known));
    buf_release(&known);
    return st;
}

/* Whether the architecture knows a key that only some have. */
static bool knows(const struct arch *a, const char *key) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    return arch_has_word(a->hf_keys, key) || (a->hf_defaults && strstr(a->hf_defaults, quoted));
}

/* Takes keys out of the config that mean nothing to this architecture. */
static void forget_unknown(const struct arch *a, json_t *config) {
    static const char keys[] =
        "sliding_window use_sliding_window sliding_window_pattern layer_types "
        "rope_local_base_freq partial_rotary_factor rotary_pct rotary_dim rotary_emb_base "
        "attention_multiplier query_pre_attn_scalar attn_logit_softcapping "
        "final_logit_softcapping embedding_multiplier residual_multiplier logit_scale "
        "logits_scaling num_local_experts num_experts moe_intermediate_size "
        "shared_expert_intermediate_size mlp_only_layers decoder_sparse_step norm_topk_prob "
        "hidden_activation activation_function activation rms_norm_eps layer_norm_eps "
        "layer_norm_epsilon norm_epsilon";
    for (const char *p = keys; *p; p += strspn(p, " ")) {
        char key[64];
        size_t n = strcspn(p, " ");
        snprintf(key, sizeof key, "%.*s", (int)n, p);
        if (!knows(a, key))
            json_object_del(config, key);
        p += n;
    }
}

/* Settings that the graph does not do, so that a value other than "off" is refused. */
static enum status refuse(const struct hf_json *c, const char *keys, struct err *err) {
    while (keys && *keys) {
        char key[64];
        size_t n = strcspn(keys, " ");
        snprintf(key, sizeof key, "%.*s", (int)n, keys);
        const json_t *v = hf_get(c, key);
        bool off = !v || json_is_false(v) || (json_is_number(v) && json_number_value(v) == 0) ||
                   (json_is_array(v) && json_array_size(v) == 0);
        char *shown = off ? NULL : json_dumps(v, JSON_ENCODE_ANY);
        if (!off) {
            enum status st =
                err_set(err, ST_UNSUPPORTED, "%s: %s is %.40s, which is not supported", c->file,
                        key, shown ? shown : "set");
            free(shown);
            return st;
        }
        keys += n + (keys[n] == ' ');
    }
    return ST_OK;
}

static enum status read_act(const struct hf_json *c, struct hparams *hp, struct err *err) {
    static const struct word acts[] = {
        {"silu", ACT_SILU},           {"swish", ACT_SILU},
        {"gelu", ACT_GELU_ERF},       {"gelu_python", ACT_GELU_ERF},
        {"gelu_new", ACT_GELU_TANH},  {"gelu_pytorch_tanh", ACT_GELU_TANH},
        {"gelu_fast", ACT_GELU_TANH}, {"relu", ACT_RELU},
        {"relu2", ACT_RELU2},
    };
    const char *name = NULL;
    CHECK(hf_str(c, "hidden_activation|activation_function|activation|hidden_act", false, &name,
                 err));
    return name ? choose(c, "hidden_act", name, acts, COUNT(acts), &hp->act, err) : ST_OK;
}

static enum status read_sizes(const struct hf_json *c, struct hparams *hp, struct err *err) {
    CHECK(hf_int(c, "num_hidden_layers|n_layer|n_layers|num_layers", true, 1, MODEL_MAX_LAYER,
                 &hp->n_layer, err));
    CHECK(hf_int(c, "hidden_size|n_embd|d_model|n_embed", true, 1, 1 << 18, &hp->n_embd, err));
    CHECK(hf_int(c, "num_attention_heads|n_head|n_heads|num_heads", true, 1, 4096, &hp->n_head,
                 err));
    hp->n_head_kv = hp->n_head;
    CHECK(hf_int(c, "num_key_value_heads|num_kv_heads", false, 1, 4096, &hp->n_head_kv, err));
    CHECK(hf_int(c, "head_dim", false, 1, 1024, &hp->head_dim, err));
    if (hp->head_dim == 0 && hp->n_embd % hp->n_head)
        return err_set(err, ST_FORMAT, "%s: hidden_size %d is no multiple of %d heads", c->file,
                       hp->n_embd, hp->n_head);
    if (hp->head_dim == 0)
        hp->head_dim = hp->n_embd / hp->n_head;
    hp->n_ff = 4 * hp->n_embd;
    CHECK(hf_int(c, "intermediate_size|n_inner|ffn_dim|ffn_hidden_size", false, 1, MAX_COUNT,
                 &hp->n_ff, err));
    CHECK(hf_int(c, "max_position_embeddings|n_positions|max_seq_len|seq_length", true, 1,
                 MAX_COUNT, &hp->ctx_train, err));
    CHECK(hf_int(c, "vocab_size", true, 1, MAX_COUNT, &hp->n_vocab, err));
    return hf_num(c, "rms_norm_eps|layer_norm_eps|layer_norm_epsilon|norm_epsilon", true,
                  &hp->norm_eps, err);
}

/* A number that is multiplied and cut to an integer, so in double precision. */
static double number(const struct hf_json *c, const char *keys, double otherwise) {
    const json_t *v = hf_get(c, keys);
    return json_is_number(v) ? json_number_value(v) : otherwise;
}

/* As transformers: factors of a logarithm of how far the context was stretched. */
static float long_attention(const struct hparams *hp) {
    double s = (double)hp->rope_scale, orig = (double)hp->rope_orig_ctx;
    return s <= 1 || orig <= 1 ? 1.0f : (float)sqrt(1 + log(s) / log(orig));
}

/* How far a model reaches: of these kinds max_position_embeddings may be the context before
 * scaling. Of linear ones it is the context after it in most configs, and nothing tells. */
static void reach(struct hparams *hp) {
    double after = (double)hp->rope_orig_ctx * (double)hp->rope_scale;
    bool kind = hp->rope_type == ROPE_DYNAMIC || hp->rope_type == ROPE_YARN;
    if (kind && after > hp->ctx_train && after < MAX_COUNT)
        hp->ctx_train = (int)after;
}

/* The parameters of a kind of scaling; c: the config, p: its rope_scaling or
 * rope_parameters. */
static enum status read_scaling(const struct hf_json *c, const struct hf_json *p,
                                struct hparams *hp, struct err *err) {
    bool truncate = true;
    hp->rope_orig_ctx = hp->ctx_train;
    CHECK(hf_int(p, "original_max_position_embeddings", false, 1, MAX_COUNT, &hp->rope_orig_ctx,
                 err));
    CHECK(hf_int(c, "original_max_position_embeddings", false, 1, MAX_COUNT, &hp->rope_orig_ctx,
                 err));
    bool ratio = hp->rope_type == ROPE_YARN || hp->rope_type == ROPE_LONG;
    hp->rope_scale = (float)hp->ctx_train / (float)hp->rope_orig_ctx;
    CHECK(hf_num(p, "factor", !ratio, &hp->rope_scale, err));
    CHECK(hf_num(p, "attention_factor", false, &hp->rope_attn_factor, err));
    CHECK(hf_num(p, "beta_fast", false, &hp->rope_beta_fast, err));
    CHECK(hf_num(p, "beta_slow", false, &hp->rope_beta_slow, err));
    CHECK(hf_num(p, "mscale", false, &hp->rope_mscale, err));
    CHECK(hf_num(p, "mscale_all_dim", false, &hp->rope_mscale_all_dim, err));
    CHECK(hf_num(p, "low_freq_factor", hp->rope_type == ROPE_LLAMA3, &hp->rope_low_freq, err));
    CHECK(
        hf_num(p, "high_freq_factor", hp->rope_type == ROPE_LLAMA3, &hp->rope_high_freq, err));
    CHECK(hf_bool(p, "truncate", &truncate, err));
    hp->rope_truncate = truncate;
    if (hp->rope_type == ROPE_DYNAMIC)
        hp->rope_orig_ctx = hp->ctx_train;
    if (hp->rope_type == ROPE_LONG && hp->rope_attn_factor == 0)
        hp->rope_attn_factor = long_attention(hp);
    reach(hp);
    return ST_OK;
}

static enum status read_rope_type(const struct hf_json *p, int *type, struct err *err) {
    static const struct word types[] = {
        {"default", ROPE_DEFAULT}, {"linear", ROPE_LINEAR}, {"dynamic", ROPE_DYNAMIC},
        {"llama3", ROPE_LLAMA3},   {"yarn", ROPE_YARN},     {"longrope", ROPE_LONG},
        {"su", ROPE_LONG},
    };
    const char *name = "default";
    *type = ROPE_DEFAULT;
    CHECK(hf_str(p, "rope_type|type", false, &name, err));
    return choose(p, "rope_type", name, types, COUNT(types), type, err);
}

/* rope_parameters for each type of layer: *p becomes that of full attention, and sliding layers
 * have a base of their own. */
static enum status split_layers(const struct hf_json *c, struct hf_json *p, struct hparams *hp,
                                struct err *err) {
    struct hf_json full, sliding;
    int type;
    CHECK(hf_child(p, "full_attention", &full, err));
    CHECK(hf_child(p, "sliding_attention", &sliding, err));
    CHECK(hf_num(c, "rope_local_base_freq", false, &hp->rope_base_local, err));
    if (!full.root && !sliding.root)
        return ST_OK;
    CHECK(read_rope_type(&sliding, &type, err));
    CHECK(hf_num(&sliding, "rope_theta", false, &hp->rope_base_local, err));
    if (type != ROPE_DEFAULT)
        return err_set(err, ST_UNSUPPORTED,
                       "%s: rope_type of sliding_attention is not \"default\"", c->file);
    *p = full;
    return ST_OK;
}

static enum status read_rope(const struct arch *a, const struct hf_json *c, struct hparams *hp,
                             struct err *err) {
    struct hf_json p;
    CHECK(hf_child(c, "rope_scaling|rope_parameters", &p, err));
    CHECK(split_layers(c, &p, hp, err));
    CHECK(refuse(&p, "llama_4_scaling_beta mrope_section", err));
    CHECK(hf_num(c, "rope_theta|rotary_emb_base", false, &hp->rope_base, err));
    CHECK(hf_num(&p, "rope_theta", false, &hp->rope_base, err));
    double part = number(c, "partial_rotary_factor|rotary_pct", 1);
    if (knows(a, "partial_rotary_factor"))
        part = number(&p, "partial_rotary_factor", part);
    if (!(part >= 0 && part <= 1))
        return err_set(err, ST_FORMAT, "%s: partial_rotary_factor is %g, wanted 0..1", c->file,
                       part);
    hp->rope_dim = (int)((double)hp->head_dim * part);
    CHECK(hf_int(c, "rotary_dim", false, 0, 1024, &hp->rope_dim, err));
    CHECK(read_rope_type(&p, &hp->rope_type, err));
    return hp->rope_type == ROPE_DEFAULT ? ST_OK : read_scaling(c, &p, hp, err);
}

/* A list with an entry for each layer: *list NULL when there is none. */
static enum status layer_list(const struct hf_json *c, const char *key,
                              const struct hparams *hp, json_t **list, struct err *err) {
    *list = hf_get(c, key);
    if (*list && (!json_is_array(*list) || json_array_size(*list) != (size_t)hp->n_layer))
        return err_set(err, ST_FORMAT, "%s: %s is no list of %d entries, one for each layer",
                       c->file, key, hp->n_layer);
    return ST_OK;
}

/* Which layers see a window: said layer by layer, or every one but each n-th, or all. */
static enum status read_windows(const struct hf_json *c, struct hparams *hp, struct err *err) {
    static const struct word types[] = {{"full_attention", 0},
                                        {"sliding_attention", LAYER_WINDOW}};
    bool use = true;
    int every = 0, flag;
    json_t *list;
    CHECK(hf_int(c, "sliding_window", false, 0, MAX_COUNT, &hp->window, err));
    CHECK(hf_bool(c, "use_sliding_window", &use, err));
    CHECK(layer_list(c, "layer_types", hp, &list, err));
    for (int i = 0; list && i < hp->n_layer; i++) {
        const char *name = json_string_value(json_array_get(list, (size_t)i));
        CHECK(choose(c, "layer_types", name ? name : "", types, COUNT(types), &flag, err));
        hp->layer[i] |= (uint8_t)flag;
    }
    if (!list) {
        CHECK(hf_int(c, "sliding_window_pattern", false, 0, MODEL_MAX_LAYER, &every, err));
        arch_flag_layers(hp, every, LAYER_WINDOW);
    }
    for (int i = 0; (!use || hp->window == 0) && i < hp->n_layer; i++)
        hp->layer[i] &= (uint8_t)~LAYER_WINDOW;
    if (!use)
        hp->window = 0;
    for (int i = 0; hp->rope_base_local > 0 && i < hp->n_layer; i++)
        if (hp->layer[i] & LAYER_WINDOW)
            hp->layer[i] |= LAYER_LOCAL_ROPE;
    return ST_OK;
}

/* Layers with experts: each `step`-th, but those listed in mlp_only_layers. */
static enum status flag_experts(const struct hf_json *c, struct hparams *hp, struct err *err) {
    const json_t *dense = hf_get(c, "mlp_only_layers");
    int step = 1;
    CHECK(hf_int(c, "decoder_sparse_step", false, 1, MODEL_MAX_LAYER, &step, err));
    for (int i = 0; i < hp->n_layer; i++)
        if ((i + 1) % step == 0)
            hp->layer[i] |= LAYER_EXPERTS;
    if (dense && !json_is_array(dense))
        return err_set(err, ST_FORMAT, "%s: mlp_only_layers is no list", c->file);
    for (size_t i = 0; i < json_array_size(dense); i++) {
        json_int_t l = json_integer_value(json_array_get(dense, i));
        if (l >= 0 && l < hp->n_layer)
            hp->layer[l] &= (uint8_t)~LAYER_EXPERTS;
    }
    return ST_OK;
}

static enum status read_experts(const struct hf_json *c, struct hparams *hp, struct err *err) {
    bool norm = hp->expert_norm;
    CHECK(hf_int(c, "num_local_experts|num_experts", false, 0, MAX_COUNT, &hp->n_expert, err));
    if (hp->n_expert == 0)
        return ST_OK;
    CHECK(hf_int(c, "num_experts_per_tok", true, 1, MAX_COUNT, &hp->n_expert_used, err));
    hp->n_ff_expert = hp->n_ff;
    CHECK(hf_int(c, "moe_intermediate_size", false, 1, MAX_COUNT, &hp->n_ff_expert, err));
    CHECK(hf_int(c, "shared_expert_intermediate_size", false, 0, MAX_COUNT, &hp->n_ff_shared,
                 err));
    CHECK(hf_bool(c, "norm_topk_prob", &norm, err));
    hp->expert_norm = norm;
    return flag_experts(c, hp, err);
}

/* Factors and caps that several families have, each under a name of its own. */
static enum status read_factors(const struct hf_json *c, struct hparams *hp, struct err *err) {
    float divisor = 0, query = 0;
    CHECK(hf_num(c, "query_pre_attn_scalar", false, &query, err));
    if (query > 0)
        hp->att_scale = 1 / sqrtf(query);
    CHECK(hf_num(c, "attention_multiplier", false, &hp->att_scale, err));
    CHECK(hf_num(c, "attn_logit_softcapping", false, &hp->att_cap, err));
    CHECK(hf_num(c, "final_logit_softcapping", false, &hp->logit_cap, err));
    CHECK(hf_num(c, "embedding_multiplier", false, &hp->embd_scale, err));
    CHECK(hf_num(c, "residual_multiplier", false, &hp->residual_scale, err));
    CHECK(hf_num(c, "logit_scale", false, &hp->logit_scale, err));
    CHECK(hf_num(c, "logits_scaling", false, &divisor, err));
    if (divisor != 0)
        hp->logit_scale = 1 / divisor;
    return ST_OK;
}

/* LongRoPE is its lists of factors; without them it would be no scaling at all. */
static enum status check_factors(const struct hf_json *c, struct err *err) {
    static const char *const keys[] = {"short_factor", "long_factor"};
    struct hf_json p;
    CHECK(hf_child(c, "rope_scaling|rope_parameters", &p, err));
    for (size_t i = 0; i < COUNT(keys); i++)
        if (json_array_size(hf_get(&p, keys[i])) == 0)
            return err_set(err, ST_FORMAT,
                           "%s: rope_type \"longrope\" has no %s, wanted a list of numbers",
                           c->file, keys[i]);
    return ST_OK;
}

static enum status read_all(const struct arch *a, const struct hf_json *c, struct hparams *hp,
                            struct err *err) {
    CHECK(refuse(c, a->hf_refused, err));
    CHECK(read_sizes(c, hp, err));
    CHECK(read_act(c, hp, err));
    if (a->traits.pos == POS_ROPE)
        CHECK(read_rope(a, c, hp, err));
    if (a->traits.pos == POS_LEARNED)
        hp->n_pos = hp->ctx_train;
    CHECK(read_windows(c, hp, err));
    CHECK(read_factors(c, hp, err));
    if (arch_has_experts(a))
        CHECK(read_experts(c, hp, err));
    if (a->hf_special)
        CHECK(a->hf_special(c, hp, err));
    if (hp->rope_type == ROPE_LONG)
        CHECK(check_factors(c, err));
    return arch_check(hp, c->file, err);
}

/* The part of a config that describes the text model. */
static enum status text_part(const struct hf_json *config, struct hf_json *out,
                             struct err *err) {
    CHECK(hf_child(config, "text_config", out, err));
    if (!out->root)
        *out = *config;
    return ST_OK;
}

enum status arch_from_hf(const struct arch *a, const struct hf_json *config, struct hparams *hp,
                         struct err *err) {
    struct hf_json c;
    arch_traits_apply(a, hp);
    CHECK(text_part(config, &c, err));
    c.root = json_copy(c.root);
    forget_unknown(a, c.root);
    json_t *defaults = a->hf_defaults ? json_loads(a->hf_defaults, 0, NULL) : NULL;
    assert(!a->hf_defaults || defaults);
    json_object_update_missing(c.root, defaults);
    enum status st = read_all(a, &c, hp, err);
    json_decref(defaults);
    json_decref(c.root);
    return st;
}

enum status arch_of_config(const struct hf_json *config, const struct arch **out,
                           struct err *err) {
    const char *type = NULL, *part = NULL;
    struct hf_json text;
    const struct arch *inner;
    CHECK(hf_str(config, "model_type", true, &type, err));
    CHECK(arch_find_hf(type, config->file, out, err));
    CHECK(text_part(config, &text, err));
    CHECK(hf_str(&text, "model_type", false, &part, err));
    CHECK(arch_find_hf(part ? part : type, config->file, &inner, err));
    if (inner != *out)
        return err_set(err, ST_UNSUPPORTED,
                       "%s: text_config of a %.40s model is of type %.40s, not supported there",
                       config->file, type, part);
    return ST_OK;
}

enum status arch_rope_factors(const struct hf_json *config, const char *which, int max,
                              float *out, int *n, struct err *err) {
    struct hf_json c, p;
    *n = 0;
    CHECK(text_part(config, &c, err));
    CHECK(hf_child(&c, "rope_scaling|rope_parameters", &p, err));
    const json_t *list = hf_get(&p, which);
    if (!list)
        return ST_OK;
    if (!json_is_array(list) || json_array_size(list) > (size_t)max)
        return err_set(err, ST_FORMAT, "%s: %s is no list of at most %d numbers", config->file,
                       which, max);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_number(v) || !(json_number_value(v) > 0 && json_number_value(v) < 1e6))
            return err_set(err, ST_FORMAT, "%s: number %zu of %s is not above 0 and below 1e6",
                           config->file, i, which);
        out[i] = (float)json_number_value(v);
    }
    *n = (int)json_array_size(list);
    return ST_OK;
}
