/*
 * models.c - `llmchat list`, `show`, `rm`, `cp`: the models on disk.
 */
#include "engine/models.h"
#include "cmd/cmd.h"
#include "engine/text.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

const struct opt list_opts[] = {
    {"json", 0, OPT_FLAG, NULL, 0, "Print a JSON list"},
    {"names", 0, OPT_FLAG, NULL, 0, "Print the names alone, one a line"},
    {0},
};
const struct opt show_opts[] = {
    {"json", 0, OPT_FLAG, NULL, 0, "Print a JSON object"},
    {"template", 0, OPT_FLAG, NULL, 0, "Print the chat template alone"},
    {0},
};
const struct opt rm_opts[] = {{0}};
const struct opt cp_opts[] = {{0}};

static json_t *model_json(const struct model_info *m, bool whole) {
    json_t *j =
        json_pack("{s:o, s:o, s:o, s:o, s:I, s:I, s:i}", "name", json_text(m->name),
                  "architecture", json_text(m->architecture), "quant", json_text(m->quant),
                  "head_quant", json_text(m->head_quant), "parameters", (json_int_t)m->n_params,
                  "bytes", (json_int_t)m->file_bytes, "context", m->ctx_train);
    if (!whole)
        return j;
    json_t *more = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:o}",
        "title", json_text(m->title), "license", json_text(m->license), "source",
        json_text(m->source), "source_sha256", json_text(m->source_sha256), "created",
        json_text(m->created), "path", json_text(m->path), "layers", m->n_layer, "vocab",
        m->n_vocab, "embedding", m->n_embd, "feed_forward", m->n_ff, "heads", m->n_head,
        "kv_heads", m->n_head_kv, "head_dim", m->head_dim, "rope_base", m->rope_base,
        "norm_eps", m->norm_eps, "chat_template", json_text(m->chat_template));
    json_object_set_new(more, "experts", json_integer(m->n_expert));
    json_object_set_new(more, "experts_used", json_integer(m->n_expert_used));
    json_object_set_new(more, "expert_feed_forward", json_integer(m->n_ff_expert));
    json_object_set_new(more, "shared_expert_feed_forward", json_integer(m->n_ff_shared));
    json_object_set_new(more, "system", json_text(m->system));
    json_object_set_new(more, "notes", json_text(m->notes));
    json_t *settings = json_loads(m->settings, 0, NULL);
    json_object_set_new(more, "settings", settings ? settings : json_object());
    json_object_update(j, more);
    json_decref(more);
    return j;
}

/* A file with a name that no command takes; in a completion it could even be shell code. */
static void leave_out_bad_names(struct model_list *l) {
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++) {
        if (models_name_ok(l->v[i].name)) {
            l->v[n++] = l->v[i];
            continue;
        }
        struct err line;
        err_set(&line, ST_FORMAT, "%s: the file's name is no name of a model: rename it",
                l->v[i].path);
        strlist_add(&l->broken, line.msg);
        model_info_release(&l->v[i]);
    }
    l->n = n;
}

static void print_row(const struct model_info *m, int width) {
    char *row =
        xasprintf("%-*s  %-8s  %-5s  %10s  %9s  %7d", width, m->name, m->architecture, m->quant,
                  show_count(m->n_params), show_bytes(m->file_bytes), m->ctx_train);
    put_line("", row);
    free(row);
}

int cmd_list(struct args *a) {
    struct err err = {0};
    struct model_list l = {0};
    if (models_list(&l, &err) != ST_OK)
        return fail(&err);
    leave_out_bad_names(&l);
    if (arg_flag(a, "json")) {
        json_t *all = json_array();
        for (size_t i = 0; i < l.n; i++)
            json_array_append_new(all, model_json(&l.v[i], false));
        put_json(all);
    } else if (arg_flag(a, "names")) {
        for (size_t i = 0; i < l.n; i++)
            puts(l.v[i].name);
    } else {
        int width = 4;
        for (size_t i = 0; i < l.n; i++)
            width = (int)strlen(l.v[i].name) > width ? (int)strlen(l.v[i].name) : width;
        if (l.n)
            printf("%-*s  %-8s  %-5s  %10s  %9s  %7s\n", width, "NAME", "ARCH", "QUANT",
                   "PARAMETERS", "SIZE", "CONTEXT");
        for (size_t i = 0; i < l.n; i++)
            print_row(&l.v[i], width);
        if (!l.n)
            note("No models are installed. Make one: llmchat create NAME --from PATH");
    }
    for (size_t i = 0; i < l.broken.n; i++)
        note("llmchat: %s", l.broken.v[i]);
    model_list_release(&l);
    return 0;
}

/* The model's own, or the built-in one that its vocabulary chooses. */
static void print_templates(const struct model_info *m) {
    struct text_model *t = NULL;
    struct buf b = {0};
    struct err err;
    const char *name;
    if (text_open(m->path, &t, &err) != ST_OK)
        buf_addf(&b, "no tokenizer: %s", err.msg);
    else if (*m->chat_template)
        buf_adds(&b, "the model's own (show --template)");
    else if (!text_template_name(t, 0))
        buf_addf(&b, "none: the built-in one %s is used", text_builtin_template(t));
    for (size_t i = 0; t && (name = text_template_name(t, i)); i++)
        buf_addf(&b, "%s%s", b.len ? ", " : "", name);
    put_line("template      ", buf_str(&b));
    buf_release(&b);
    text_close(t);
}

static void print_experts(const struct model_info *m) {
    if (m->n_expert == 0)
        return;
    printf("experts       %d with a feed-forward of %d, %d of them for each token", m->n_expert,
           m->n_ff_expert, m->n_expert_used);
    if (m->n_ff_shared > 0)
        printf(", and one of %d for all", m->n_ff_shared);
    putchar('\n');
}

/* What the file says about itself may be anything: put_line makes it safe. */
static void print_model(const struct model_info *m) {
    struct buf quant = {0}, source = {0};
    buf_addf(&quant, "%s, embedding and head %s", m->quant, m->head_quant);
    buf_addf(&source, "%s%s%s", m->source, *m->source_sha256 ? ", sha256 " : "",
             m->source_sha256);
    put_line("name          ", m->name);
    if (*m->title)
        put_line("title         ", m->title);
    put_line("architecture  ", m->architecture);
    printf("parameters    %s (%d layers, embedding %d, feed-forward %d)\n",
           show_count(m->n_params), m->n_layer, m->n_embd, m->n_ff);
    print_experts(m);
    printf("attention     %d heads of %d, %d for keys and values\n", m->n_head, m->head_dim,
           m->n_head_kv);
    printf("context       %d tokens", m->ctx_train);
    if (m->rope_base > 0)
        printf(" (rope base %g)", m->rope_base);
    putchar('\n');
    printf("vocabulary    %d tokens\n", m->n_vocab);
    put_line("quantisation  ", quant.p);
    printf("size          %s\n", show_bytes(m->file_bytes));
    put_lines("license       ", *m->license ? m->license : "not stated");
    print_templates(m);
    if (*m->system)
        put_lines("system        ", m->system);
    if (*m->settings)
        put_line("settings      ", m->settings);
    if (*m->notes)
        put_lines("not exact     ", m->notes);
    put_line("source        ", source.p);
    if (*m->created)
        put_line("created       ", m->created);
    put_line("file          ", m->path);
    buf_release(&quant);
    buf_release(&source);
}

int cmd_show(struct args *a) {
    struct err err = {0};
    struct model_info m = {0};
    if (models_info(a->pos[0], &m, &err) != ST_OK)
        return fail(&err);
    if (arg_flag(a, "json")) {
        put_json(model_json(&m, true));
    } else if (arg_flag(a, "template")) {
        put_text(m.chat_template, strlen(m.chat_template));
    } else {
        print_model(&m);
    }
    model_info_release(&m);
    return 0;
}

int cmd_rm(struct args *a) {
    int rc = 0;
    for (int i = 0; i < a->n_pos; i++) {
        struct err err = {0};
        if (models_remove(a->pos[i], &err) != ST_OK)
            rc = fail(&err);
    }
    return rc;
}

int cmd_cp(struct args *a) {
    struct err err = {0};
    return models_copy(a->pos[0], a->pos[1], &err) == ST_OK ? 0 : fail(&err);
}
