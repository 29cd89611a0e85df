/*
 * create.c - `llmchat create NAME --from PATH` and `llmchat create NAME -f MODELFILE`.
 */
#include "chat/modelfile.h"
#include "cmd/cmd.h"
#include "engine/models.h"

const struct opt create_opts[] = {
    {"from", 0, OPT_TEXT, "PATH", 0,
     "A GGUF file, a Hugging Face folder, or an installed model"},
    {"file", 'f', OPT_TEXT, "MODELFILE", 0,
     "A Modelfile: FROM, PARAMETER, SYSTEM, TEMPLATE (Jinja), LICENSE"},
    {"quant", 0, OPT_CHOICE, "nf4|int8|bf16|f32|keep", 0,
     "Linear layers (default keep where PATH is quantised already, else nf4)"},
    {"head-quant", 0, OPT_CHOICE, "nf4|int8|bf16|f32|keep", 0,
     "Token embedding and output head (default int8 beside nf4 and int8, else as --quant)"},
    {"force", 0, OPT_FLAG, NULL, 0, "Replace an installed model of this name"},
    {0},
};

static int create(struct args *a, const struct modelfile *file) {
    struct err err = {0};
    struct create_params p = {
        .name = a->pos[0],
        .from = arg_text(a, "from") ? arg_text(a, "from") : file->from,
        .system = file->system,
        .chat_template = file->chat_template,
        .license = file->license,
        .settings = file->settings,
        .quant = QUANT_N,
        .head_quant = QUANT_N,
        .replace = arg_flag(a, "force"),
        .progress = progress_show,
    };
    if (arg_text(a, "quant"))
        quant_parse(arg_text(a, "quant"), &p.quant);
    if (arg_text(a, "head-quant"))
        quant_parse(arg_text(a, "head-quant"), &p.head_quant);
    interrupt_catch();
    enum status st = models_create(&p, &err);
    if (st == ST_EXISTS)
        return failf(st, "%s; --force replaces it", err.msg);
    if (st != ST_OK)
        return fail(&err);
    progress_clear();
    struct model_info m = {0};
    if (models_info(p.name, &m, &err) != ST_OK)
        return fail(&err);
    struct err line; /* what the file says about itself is made safe as errors are */
    err_set(&line, ST_OK, "%s: %s, %s parameters, %s, %s", m.name, m.architecture,
            show_count(m.n_params), m.quant, show_bytes(m.file_bytes));
    note("%s", line.msg);
    if (*m.notes)
        note("not kept exactly:\n%s", m.notes);
    model_info_release(&m);
    return 0;
}

int cmd_create(struct args *a) {
    struct err err = {0};
    struct modelfile file = {0};
    if (!arg_text(a, "from") && !arg_text(a, "file"))
        return failf(ST_USAGE,
                     "create needs --from PATH (a GGUF file, a Hugging Face folder, or "
                     "an installed model), or -f MODELFILE");
    if (arg_text(a, "file") && modelfile_load(arg_text(a, "file"), &file, &err) != ST_OK)
        return fail(&err);
    int rc = create(a, &file);
    modelfile_release(&file);
    return rc;
}
