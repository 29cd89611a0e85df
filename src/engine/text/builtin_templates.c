/*
 * builtin_templates.c - see builtin_templates.h.
 *
 * A format is what stands around a turn of each role. From that the template is written, in the
 * language that models' own templates are written in, and goes through the same interpreter, so
 * the marking of plain bytes holds here as there: control tokens stand in the template's text,
 * and nothing that comes from a message, its role included, is ever part of one. Tools are not
 * shown.
 *
 * All are lenient: content is a text, null, or a list of parts of which the texts are used;
 * roles may come in any order, and one that is not known counts as the user's. What is left
 * when no rule holds are base models, which continue text: they get the contents, blank lines
 * between, and the answer begins after a blank line. Roles are not written there: "User:" lines
 * teach a base model to write the user's next line as well.
 *
 * Whole templates as strings were tried first: twenty times the same loop, and nobody saw in
 * what they differ.
 */
#include "engine/text/builtin_templates.h"
#include <ctype.h>
#include <string.h>

#define BAR                    "\xef\xbd\x9c" /* U+FF5C, DeepSeek's bar */
#define TURN_OF_COMMAND_R(who) "'<|START_OF_TURN_TOKEN|><|" who "_TOKEN|>'"

static const char end_of_turn[] = "'<|END_OF_TURN_TOKEN|>'";

const struct builtin_template builtin_templates[] = {
    {.name = "chatml",
     .user = {"'<|im_start|>' ~ m.role ~ '\\n'", "'<|im_end|>\\n'"},
     .prompt = "'<|im_start|>assistant\\n'"},
    {.name = "llama2", /* a begin token before every turn of the user's */
     .trim = true,
     .writes_bos = true,
     .user = {"'[INST] '", "' [/INST]'"},
     .answer = {"' '", "' ' ~ eos_token ~ ('' if loop.last else bos_token)"},
     .kept = {"'<<SYS>>\\n'", "'\\n<</SYS>>\\n\\n'"}},
    {.name = "llama3",
     .trim = true,
     .writes_bos = true,
     .user = {"'<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\\n\\n'", "'<|eot_id|>'"},
     .prompt = "'<|start_header_id|>assistant<|end_header_id|>\\n\\n'"},
    {.name = "llama4",
     .trim = true,
     .writes_bos = true,
     .user = {"'<|header_start|>' ~ m.role ~ '<|header_end|>\\n\\n'", "'<|eot|>'"},
     .prompt = "'<|header_start|>assistant<|header_end|>\\n\\n'"},
    {.name = "gemma",
     .trim = true,
     .writes_bos = true,
     .user = {"'<start_of_turn>user\\n'", "'<end_of_turn>\\n'"},
     .answer = {"'<start_of_turn>model\\n'", "'<end_of_turn>\\n'"},
     .kept = {"''", "'\\n\\n'"},
     .prompt = "'<start_of_turn>model\\n'"},
    {.name = "phi3",
     .user = {"'<|user|>\\n'", "'<|end|>\\n'"},
     .answer = {"'<|assistant|>\\n'", "'<|end|>\\n'"},
     .system = {"'<|system|>\\n'", "'<|end|>\\n'"},
     .prompt = "'<|assistant|>\\n'"},
    {.name = "phi4",
     .user = {"'<|im_start|>' ~ m.role ~ '<|im_sep|>'", "'<|im_end|>'"},
     .prompt = "'<|im_start|>assistant<|im_sep|>'"},
    {.name = "mistral",
     .trim = true,
     .writes_bos = true,
     .user = {"'[INST] '", "'[/INST]'"},
     .answer = {"' '", "eos_token"},
     .kept = {"''", "'\\n\\n'"}},
    {.name = "mistral-tekken",
     .trim = true,
     .writes_bos = true,
     .user = {"'[INST]'", "'[/INST]'"},
     .answer = {"''", "eos_token"},
     .kept = {"''", "'\\n\\n'"}},
    {.name = "mistral-v7",
     .trim = true,
     .writes_bos = true,
     .user = {"'[INST] '", "'[/INST]'"},
     .answer = {"' '", "eos_token"},
     .system = {"'[SYSTEM_PROMPT] '", "'[/SYSTEM_PROMPT]'"}},
    {.name = "mistral-v7-tekken",
     .trim = true,
     .writes_bos = true,
     .user = {"'[INST]'", "'[/INST]'"},
     .answer = {"''", "eos_token"},
     .system = {"'[SYSTEM_PROMPT]'", "'[/SYSTEM_PROMPT]'"}},
    {.name = "zephyr",
     .user = {"'<|user|>\\n'", "eos_token ~ '\\n'"},
     .answer = {"'<|assistant|>\\n'", "eos_token ~ '\\n'"},
     .system = {"'<|system|>\\n'", "eos_token ~ '\\n'"},
     .prompt = "'<|assistant|>\\n'"},
    {.name = "deepseek",
     .writes_bos = true,
     .user = {"'<" BAR "User" BAR ">'", "''"},
     .answer = {"'<" BAR "Assistant" BAR ">'", "eos_token"},
     .system = {"''", "''"},
     .prompt = "'<" BAR "Assistant" BAR ">'"},
    {.name = "command-r",
     .trim = true,
     .writes_bos = true,
     .user = {TURN_OF_COMMAND_R("USER"), end_of_turn},
     .answer = {TURN_OF_COMMAND_R("CHATBOT"), end_of_turn},
     .system = {TURN_OF_COMMAND_R("SYSTEM"), end_of_turn},
     .prompt = TURN_OF_COMMAND_R("CHATBOT")},
    {.name = "granite",
     .user = {"'<|start_of_role|>' ~ m.role ~ '<|end_of_role|>'", "'<|end_of_text|>\\n'"},
     .prompt = "'<|start_of_role|>assistant<|end_of_role|>'"},
    {.name = "harmony",
     .user = {"'<|start|>user<|message|>'", "'<|end|>'"},
     .answer = {"'<|start|>assistant<|channel|>final<|message|>'", "'<|end|>'"},
     .system = {"'<|start|>developer<|message|># Instructions\\n\\n'", "'<|end|>'"},
     .prompt = "'<|start|>assistant'"},
    {.name = "kimi",
     .user = {"'<|im_user|>user<|im_middle|>'", "'<|im_end|>'"},
     .answer = {"'<|im_assistant|>assistant<|im_middle|>'", "'<|im_end|>'"},
     .system = {"'<|im_system|>system<|im_middle|>'", "'<|im_end|>'"},
     .prompt = "'<|im_assistant|>assistant<|im_middle|>'"},
    {.name = "glm4",
     .head = "'[gMASK]<sop>'",
     .user = {"'<|user|>\\n'", "''"},
     .answer = {"'<|assistant|>\\n'", "''"},
     .system = {"'<|system|>\\n'", "''"},
     .prompt = "'<|assistant|>'"},
    {.name = "exaone",
     .user = {"'[|user|]'", "'\\n'"},
     .answer = {"'[|assistant|]'", "'[|endofturn|]\\n'"},
     .system = {"'[|system|]'", "'[|endofturn|]\\n'"},
     .prompt = "'[|assistant|]'"},
    {.name = "openchat",
     .writes_bos = true,
     .user = {"'GPT4 Correct User: '", "'<|end_of_turn|>'"},
     .answer = {"'GPT4 Correct Assistant: '", "'<|end_of_turn|>'"},
     .system = {"''", "'<|end_of_turn|>'"},
     .prompt = "'GPT4 Correct Assistant:'"},
    {.name = "vicuna",
     .trim = true,
     .user = {"'USER: '", "'\\n'"},
     .answer = {"'ASSISTANT: '", "eos_token ~ '\\n'"},
     .system = {"''", "'\\n\\n'"},
     .prompt = "'ASSISTANT:'"},
    {.name = "alpaca",
     .trim = true,
     .user = {"'### Instruction:\\n'", "'\\n\\n'"},
     .answer = {"'### Response:\\n'", "eos_token ~ '\\n\\n'"},
     .system = {"''", "'\\n\\n'"},
     .prompt = "'### Response:\\n'"},
    {.name = "eos-joined", .user = {"''", "eos_token"}},
    {.name = "plain",
     .user = {"''", "'\\n\\n' if not loop.last or add_generation_prompt else ''"}},
    {0}};

static const char said[] =
    "{%- macro said(c) -%}"
    "{%- if c is string -%}{{ c }}{%- elif c is not none and c is not mapping -%}"
    "{%- for part in c -%}"
    "{%- if part is mapping and part.text is defined -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- endmacro -%}";

/* A turn; kept: what a system message said before comes first. */
static void turn(const struct builtin_template *b, const char *const around[2], bool kept,
                 struct buf *out) {
    buf_addf(out, "{{ %s }}", around[0]);
    if (kept)
        buf_addf(out,
                 "{%%- if s.kept -%%}{{ %s ~ s.kept ~ %s }}{%%- set s.kept = '' -%%}"
                 "{%%- endif -%%}",
                 b->kept[0], b->kept[1]);
    buf_addf(out, "{{ said(m.content)%s }}{{ %s }}", b->trim ? "|trim" : "", around[1]);
}

void builtin_text(const struct builtin_template *b, struct buf *out) {
    bool kept = b->kept[0] != NULL;
    buf_adds(out, said);
    if (b->writes_bos)
        buf_adds(out, "{{ bos_token }}");
    if (b->head)
        buf_addf(out, "{{ %s }}", b->head);
    buf_adds(out, "{%- set s = namespace(kept='') -%}{%- for m in messages -%}");
    if (kept) /* several are one; at the very end there is no turn to wait for */
        buf_addf(out,
                 "{%%- if m.role == 'system' and not loop.last -%%}"
                 "{%%- set s.kept = s.kept ~ ('\\n\\n' if s.kept else '') ~ "
                 "(said(m.content)%s) -%%}{%%- elif m.role == 'assistant' -%%}",
                 b->trim ? "|trim" : "");
    else
        buf_adds(out, "{%- if m.role == 'assistant' -%}");
    turn(b, b->answer[0] ? b->answer : b->user, false, out);
    if (b->system[0]) {
        buf_adds(out, "{%- elif m.role == 'system' -%}");
        turn(b, b->system, false, out);
    }
    buf_adds(out, "{%- else -%}");
    turn(b, b->user, kept, out);
    buf_adds(out, "{%- endif -%}{%- endfor -%}");
    if (b->prompt)
        buf_addf(out, "{%%- if add_generation_prompt -%%}{{ %s }}{%%- endif -%%}", b->prompt);
}

const struct builtin_rule builtin_rules[] = {
    {"llama4", .marks = {"<|header_start|>", "<|header_end|>", "<|eot|>"}},
    {"llama3", .marks = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}},
    {"command-r", .marks = {"<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>",
                            "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"}},
    {"deepseek", .marks = {"<" BAR "User" BAR ">", "<" BAR "Assistant" BAR ">"}},
    {"granite", .marks = {"<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"}},
    {"gemma", .marks = {"<start_of_turn>", "<end_of_turn>"}},
    {"harmony", .marks = {"<|start|>", "<|channel|>", "<|message|>", "<|end|>"}},
    {"kimi", .marks = {"<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>"}},
    {"phi4", .marks = {"<|im_start|>", "<|im_sep|>", "<|im_end|>"}},
    {"chatml", .marks = {"<|im_start|>", "<|im_end|>"}},
    {"glm4", .marks = {"[gMASK]", "<sop>", "<|user|>", "<|assistant|>"}},
    {"phi3", .marks = {"<|user|>", "<|assistant|>", "<|end|>"}},
    {"exaone", .marks = {"[|user|]", "[|assistant|]", "[|endofturn|]"}},
    {"mistral-v7-tekken", .marks = {"[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"},
     .bytes = true},
    {"mistral-v7", .marks = {"[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"}},
    {"mistral-tekken", .marks = {"[INST]", "[/INST]"}, .bytes = true},
    {"mistral", .marks = {"[INST]", "[/INST]"}},
    {"openchat", .marks = {"<|end_of_turn|>"}},
    {"zephyr", .marks = {"<|system|>", "<|user|>", "<|assistant|>"}, .eos = true},
    {"llama2", .words = {"llama2", "chat"}},
    {"zephyr", .words = {"tinyllama", "chat"}, .eos = true},
    {"zephyr", .words = {"zephyr"}, .eos = true},
    {"mistral", .words = {"mistral", "instruct"}},
    {"mistral", .words = {"mixtral", "instruct"}},
    {"vicuna", .words = {"vicuna"}},
    {"alpaca", .words = {"alpaca"}},
    {"eos-joined", .arch = "gpt2", .eos = true},
    {.use = "plain"},
    {0}};

const struct builtin_template *builtin_find(const char *name) {
    for (const struct builtin_template *b = builtin_templates; b->name; b++)
        if (strcmp(b->name, name) == 0)
            return b;
    return NULL;
}

static bool has_mark(const struct text_model *t, const char *mark) {
    struct tok_list l = {0};
    struct err e;
    bool one = text_encode(t, mark, strlen(mark), &(struct encode_opts){.special = true}, &l,
                           &e) == ST_OK &&
               l.n == 1 && text_is_control(t, l.v[0]);
    tok_list_release(&l);
    return one;
}

static bool rule_holds(const struct builtin_rule *r, const struct text_model *t,
                       const char *arch, const char *letters, bool bytes) {
    if ((r->arch && strcmp(r->arch, arch) != 0) || (r->bytes && !bytes) ||
        (r->eos && text_eos(t) < 0))
        return false;
    for (int i = 0; i < BUILTIN_WORDS && r->words[i]; i++)
        if (!strstr(letters, r->words[i]))
            return false;
    for (int i = 0; i < BUILTIN_MARKS && r->marks[i]; i++)
        if (!has_mark(t, r->marks[i]))
            return false;
    return true;
}

const struct builtin_template *builtin_choose(const struct text_model *t, const char *arch,
                                              const char *name, bool bytes) {
    char letters[256]; /* the name's letters and digits in lower case */
    size_t n = 0;
    for (; *name && n < sizeof letters - 1; name++)
        if (isalnum((unsigned char)*name))
            letters[n++] = (char)tolower((unsigned char)*name);
    letters[n] = '\0';
    const struct builtin_rule *r = builtin_rules;
    while (!rule_holds(r, t, arch, letters, bytes)) /* the last one always does */
        r++;
    return builtin_find(r->use);
}
