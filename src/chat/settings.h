/*
 * settings.h - the settings that a person can change, in one table.
 *
 * One name each, the same on the command line (--top-k), in the configuration, in the Sampling
 * menu and over HTTP. The table feeds the parser, --help, the man pages, the menu and the
 * checks.
 */
#ifndef LLMCHAT_CHAT_SETTINGS_H
#define LLMCHAT_CHAT_SETTINGS_H

#include "base/err.h"
#include "base/mem.h"
#include "engine/engine.h"

struct settings {
    struct sampling sampling;
    int max_tokens; /* -1: until the context is full; 2048 ends a small model that goes in
                       circles */
    int ctx;        /* context in tokens; 0: the model's, at most 8192 */
    struct strlist stop;
    int speculation; /* enum speculation */
    uint32_t given;  /* bit i: a person chose the i-th of setting_defs; a model may suggest the
                        others */
};

enum setting_type { SETTING_REAL, SETTING_INT, SETTING_WORD, SETTING_LIST };

struct setting_def {
    const char *name; /* "top_k" */
    enum setting_type type;
    size_t offset; /* into struct settings: double, int (int64_t for seed; of a WORD its
                      number), struct strlist */
    bool is_int64;
    double min, max, def, step; /* step: what one key press in the menu changes */
    const char *off;  /* what the value that switches it off is, in words: "1 = off"; NULL none.
                         Of a WORD all its words, "off|auto" */
    const char *help; /* one sentence */
};
extern const struct setting_def setting_defs[];
extern const size_t n_setting_defs;

struct preset {
    const char *name; /* "creative", "balanced", "precise" */
    const char *help;
    double temperature, top_p, min_p;
    int top_k;
};
extern const struct preset presets[];
extern const size_t n_presets;

void settings_init(struct settings *s); /* defaults */
void settings_release(struct settings *s);
void settings_copy(struct settings *dst,
                   const struct settings *src); /* dst is initialised and replaced */
const struct setting_def *
setting_find(const char *name); /* dashes count as underscores; NULL */
/* Parses and checks one value; for `stop` it adds to the list ("" empties it). The message
 * names setting, value and range. */
enum status setting_set(struct settings *s, const struct setting_def *d, const char *value,
                        struct err *err);
double setting_number(const struct settings *s, const struct setting_def *d);
/* One setting from src to dst, and whether it was chosen. */
void setting_copy(struct settings *dst, const struct settings *src,
                  const struct setting_def *d);
/* Word i of a WORD; "" beyond the last. Static storage of the thread. */
const char *setting_word(const struct setting_def *d, int i);
void setting_show(const struct settings *s, const struct setting_def *d,
                  struct buf *out); /* its value as text */
void settings_apply_preset(struct settings *s, const struct preset *p);
/* All settings as one JSON object, and back (unknown names are ignored, wrong values refused).
 */
char *settings_to_json(const struct settings *s); /* the caller frees */
enum status settings_from_json(struct settings *s, const char *json, struct err *err);
/* What nobody chose becomes what a model suggests (JSON as above, "" nothing), else the
 * default. A wrong value is the model's fault: it is logged and left out. */
void settings_suggest(struct settings *s, const char *model_json);

#endif
