/*
 * help.c - the option tables as --help, as sections of the man page (roff) and as shell
 * completions.
 *
 * llmchat(1) is written by hand where it explains and generated where it lists: `llmchat help
 * --man` prints the sections COMMANDS and SETTINGS, which the build puts into man/llmchat.1.in.
 */
#include "base/utf8.h"
#include "cmd/cmd.h"
#include <stdlib.h>
#include <string.h>

const struct opt help_opts[] = {
    {"man", 0, OPT_FLAG, NULL, 0, "Print the sections of the man page that list commands"},
    {"completion", 0, OPT_CHOICE, "bash|zsh|fish", 0, "Print a completion script for a shell"},
    {0},
};

/* Prints text broken at blanks to `width` cells, each line after the first indented. */
static void wrap(FILE *f, const char *text, int indent, int width) {
    int col = indent;
    while (*text) {
        size_t len = strcspn(text, " \n");
        int cells = (int)utf8_cells(text, len);
        if (col > indent && col + 1 + cells > width) {
            fprintf(f, "\n%*s", indent, "");
            col = indent;
        } else if (col > indent) {
            fputc(' ', f);
            col++;
        }
        fwrite(text, 1, len, f);
        col += cells;
        text += len;
        if (*text == '\n') {
            fprintf(f, "\n%*s", indent, "");
            col = indent;
            text++;
        } else if (*text) {
            text++;
        }
    }
    fputc('\n', f);
}

static void print_opt(FILE *f, const char *left, const char *help) {
    enum { COLUMN = 30 };
    int cells = (int)utf8_cells(left, strlen(left));
    fprintf(f, "  %s%*s", left, cells + 2 < COLUMN ? COLUMN - cells - 2 : 0, "");
    if (cells + 2 >= COLUMN)
        fprintf(f, "\n%*s", COLUMN, "");
    wrap(f, help, COLUMN, 92);
}

static char *opt_left(const struct opt *o) {
    char letter[8] = "    ";
    if (o->letter)
        snprintf(letter, sizeof letter, "-%c, ", o->letter);
    return xasprintf("%s--%s%s%s", letter, o->name, o->arg ? " " : "", o->arg ? o->arg : "");
}

static char *dashed(const char *name) {
    char *s = xstrdup(name);
    for (char *p = s; *p; p++)
        if (*p == '_')
            *p = '-';
    return s;
}

static char *setting_text(const struct setting_def *d) {
    struct buf b = {0};
    buf_adds(&b, d->help);
    if (d->type == SETTING_LIST)
        return buf_take(&b);
    if (d->type == SETTING_WORD) {
        buf_addf(&b, " (default %s)", setting_word(d, (int)d->def));
        return buf_take(&b);
    }
    if (d->is_int64)
        buf_addf(&b, " (%.10g to %lld", d->min, (long long)INT64_MAX);
    else
        buf_addf(&b, " (%.10g to %.10g", d->min, d->max);
    buf_addf(&b, ", default %.10g%s%s)", d->def, d->off ? "; " : "", d->off ? d->off : "");
    return buf_take(&b);
}

static const char *setting_arg(const struct setting_def *d) {
    return d->type == SETTING_LIST ? "TEXT" : d->type == SETTING_WORD ? d->off : "N";
}

static void print_settings(FILE *f) {
    for (size_t i = 0; i < n_setting_defs; i++) {
        char *name = dashed(setting_defs[i].name), *help = setting_text(&setting_defs[i]);
        char *left = xasprintf("    --%s %s", name, setting_arg(&setting_defs[i]));
        print_opt(f, left, help);
        free(left);
        free(help);
        free(name);
    }
}

void help_command(FILE *f, const struct command *c) {
    bool any = c->opts && c->opts->name;
    fprintf(f, "usage: llmchat%s%s%s%s%s\n\n", *c->name ? " " : "", c->name,
            any || c->flags & CMD_SETTINGS ? " [OPTIONS]" : "", *c->usage ? " " : "", c->usage);
    wrap(f, c->summary, 0, 92);
    if (c->details && *c->details) {
        fputc('\n', f);
        wrap(f, c->details, 0, 92);
    }
    fputs("\noptions:\n", f);
    const struct opt *tables[] = {c->opts, common_opts};
    for (size_t t = 0; t < 2; t++)
        for (const struct opt *o = tables[t]; o && o->name; o++) {
            char *left = opt_left(o);
            print_opt(f, left, o->help);
            free(left);
        }
    if (c->flags & CMD_SETTINGS) {
        fputs("\nsettings:\n", f);
        print_settings(f);
    }
    if (c == cmd_table) {
        fputs("\ncommands:\n", f);
        for (const struct command *k = cmd_table + 1; k->summary; k++)
            print_opt(f, k->name, k->summary);
        fputs("\nllmchat COMMAND --help says more about each.\n", f);
    }
}

void help_overview(FILE *f) {
    help_command(f, cmd_table);
}

/* roff: backslashes, leading dots and dashes. */
static void roff(FILE *f, const char *s) {
    bool start = true;
    for (; *s; s++) {
        if (start && (*s == '.' || *s == '\''))
            fputs("\\&", f);
        start = *s == '\n';
        if (*s == '\\')
            fputs("\\e", f);
        else if (*s == '-')
            fputs("\\-", f);
        else
            fputc(*s, f);
    }
    fputc('\n', f);
}

static void man_opts(FILE *f, const struct opt *opts) {
    for (const struct opt *o = opts; o && o->name; o++) {
        fputs(".TP\n", f);
        if (o->letter)
            fprintf(f, "\\fB\\-%c\\fR, ", o->letter);
        fputs("\\fB\\-\\-", f);
        for (const char *s = o->name; *s; s++)
            fputs(*s == '-' ? "\\-" : (char[]){*s, 0}, f);
        fprintf(f, "\\fR%s%s%s\n", o->arg ? " \\fI" : "", o->arg ? o->arg : "",
                o->arg ? "\\fR" : "");
        roff(f, o->help);
    }
}

void help_man(FILE *f) {
    fputs(".SH COMMANDS\nEvery command takes\n.B \\-\\-help\nand says there what this page "
          "says.\n",
          f);
    for (const struct command *c = cmd_table; c->summary; c++) {
        fprintf(f, ".SS \"llmchat%s%s%s%s\"\n", *c->name ? " " : "", c->name,
                *c->usage ? " " : "", c->usage);
        roff(f, c->summary);
        if (c->details && *c->details) {
            fputs(".PP\n", f);
            roff(f, c->details);
        }
        if (c->flags & CMD_SETTINGS)
            fputs(".PP\nTakes every setting below as an option.\n", f);
        man_opts(f, c->opts);
    }
    fputs(".SH SETTINGS\n", f);
    for (size_t i = 0; i < n_setting_defs; i++) {
        char *name = dashed(setting_defs[i].name), *help = setting_text(&setting_defs[i]);
        fputs(".TP\n\\fB\\-\\-", f);
        for (const char *s = name; *s; s++)
            fputs(*s == '-' ? "\\-" : (char[]){*s, 0}, f);
        fprintf(f, "\\fR \\fI%s\\fR\n", setting_arg(&setting_defs[i]));
        roff(f, help);
        free(help);
        free(name);
    }
}

/* All option words of a command, separated by blanks. */
static void option_words(struct buf *b, const struct command *c) {
    const struct opt *tables[] = {c->opts, common_opts};
    for (size_t t = 0; t < 2; t++)
        for (const struct opt *o = tables[t]; o && o->name; o++)
            buf_addf(b, "%s--%s", b->len ? " " : "", o->name);
    for (size_t i = 0; c->flags & CMD_SETTINGS && i < n_setting_defs; i++) {
        char *name = dashed(setting_defs[i].name);
        buf_addf(b, " --%s", name);
        free(name);
    }
}

static bool takes_model(const struct command *c) {
    return strncmp(c->usage, "MODEL", 5) == 0 || strncmp(c->usage, "NAME", 4) == 0;
}

/* The words of a command's usage "list|prune", with a blank before each; nothing where the
 * usage is of another kind. */
static void usage_words(struct buf *b, const struct command *c) {
    if (!strchr(c->usage, '|') ||
        strspn(c->usage, "abcdefghijklmnopqrstuvwxyz|") != strlen(c->usage))
        return;
    buf_addc(b, ' ');
    for (const char *s = c->usage; *s; s++)
        buf_addc(b, *s == '|' ? ' ' : *s);
}

/* One line of a shell's `case` for each option with a choice of words: after --NAME come these.
 * An option's name means the same in every command. */
static void choice_case(FILE *f, const char *name, const char *words, const char *before,
                        const char *after) {
    fprintf(f, "    --%s) %s", name, before);
    for (const char *s = words; *s; s++)
        fputc(*s == '|' ? ' ' : *s, f);
    fprintf(f, "%s ;;\n", after);
}

static void choice_cases(FILE *f, const char *before, const char *after) {
    struct strlist seen = {0};
    for (const struct command *c = cmd_table; c->summary; c++)
        for (const struct opt *o = c->opts; o && o->name; o++) {
            bool known = o->type != OPT_CHOICE;
            for (size_t i = 0; i < seen.n; i++)
                known |= strcmp(seen.v[i], o->name) == 0;
            if (known)
                continue;
            strlist_add(&seen, o->name);
            choice_case(f, o->name, o->arg, before, after);
        }
    for (size_t i = 0; i < n_setting_defs; i++) {
        char *name = dashed(setting_defs[i].name);
        bool known = setting_defs[i].type != SETTING_WORD;
        for (size_t k = 0; k < seen.n; k++)
            known |= strcmp(seen.v[k], name) == 0;
        if (!known)
            choice_case(f, name, setting_defs[i].off, before, after);
        free(name);
    }
    strlist_release(&seen);
}

static void completion_bash(FILE *f) {
    struct buf b = {0};
    fputs("# bash completion for llmchat, made by `llmchat help --completion bash`\n"
          "_llmchat() {\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} cmd=${COMP_WORDS[1]} words=\n"
          "    case ${COMP_WORDS[COMP_CWORD-1]} in\n",
          f);
    choice_cases(f, "words=\"", "\"");
    fputs("    *) if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words=\"", f);
    for (const struct command *c = cmd_table + 1; c->summary; c++)
        fprintf(f, "%s ", c->name);
    option_words(&b, cmd_table);
    fprintf(f, "%s\"\n    else\n        case $cmd in\n", buf_str(&b));
    for (const struct command *c = cmd_table + 1; c->summary; c++) {
        buf_clear(&b);
        option_words(&b, c);
        usage_words(&b, c);
        fprintf(f, "        %s) words=\"%s%s\" ;;\n", c->name, buf_str(&b),
                takes_model(c) ? " $(llmchat list --names 2>/dev/null)" : "");
    }
    buf_release(&b);
    fputs("        esac\n    fi ;;\n    esac\n"
          "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
          "    [ -n \"${COMPREPLY[*]}\" ] || COMPREPLY=($(compgen -f -- \"$cur\"))\n}\n"
          "complete -F _llmchat llmchat\n",
          f);
}

/* Inside single quotes of a shell. */
static void quoted(FILE *f, const char *s) {
    for (; *s; s++)
        fputs(*s == '\'' ? "'\\''" : *s == '[' || *s == ']' ? "|" : (char[]){*s, 0}, f);
}

static void completion_zsh(FILE *f) {
    struct buf b = {0};
    option_words(&b, cmd_table);
    fputs("#compdef llmchat\n# made by `llmchat help --completion zsh`\n"
          "case $words[CURRENT-1] in\n",
          f);
    choice_cases(f, "compadd -- ", "; return");
    fprintf(f,
            "esac\nif (( CURRENT == 2 )) && [[ $words[2] == -* ]]; then\n"
            "    compadd -- %s\n    return\nelif (( CURRENT == 2 )); then\n"
            "    local -a cmds=(\n",
            buf_str(&b));
    for (const struct command *c = cmd_table + 1; c->summary; c++) {
        fprintf(f, "        '%s:", c->name);
        quoted(f, c->summary);
        fputs("'\n", f);
    }
    fputs("    )\n    _describe command cmds\n    return\nfi\n"
          "local options= models= what=\ncase $words[2] in\n",
          f);
    for (const struct command *c = cmd_table + 1; c->summary; c++) {
        buf_clear(&b);
        option_words(&b, c);
        fprintf(f, "    %s) options='%s'%s", c->name, buf_str(&b),
                takes_model(c) ? " models=1" : "");
        buf_clear(&b);
        usage_words(&b, c);
        fprintf(f, " what='%s' ;;\n", buf_str(&b));
    }
    buf_release(&b);
    fputs("esac\nif [[ $words[CURRENT] == -* ]]; then\n    compadd -- ${=options}\n    return\n"
          "fi\n[[ -z $what ]] || compadd -- ${=what}\n[[ -z $models ]] || compadd -- "
          "${(f)\"$(llmchat list --names 2>/dev/null)\"}\n"
          "_files\n",
          f);
}

/* Up to where the name of an option stands; the condition is fish code. */
static void fish_start(FILE *f, const struct command *c) {
    if (c == cmd_table)
        fputs("complete -c llmchat -n __fish_use_subcommand", f);
    else
        fprintf(f, "complete -c llmchat -n '__fish_seen_subcommand_from %s'", c->name);
}

static void fish_opt(FILE *f, const struct command *c, const struct opt *o) {
    fish_start(f, c);
    fprintf(f, " -l %s", o->name);
    if (o->letter)
        fprintf(f, " -s %c", o->letter);
    if (o->type == OPT_CHOICE) {
        fputs(" -x -a '", f);
        for (const char *s = o->arg; *s; s++)
            fputc(*s == '|' ? ' ' : *s, f);
        fputc('\'', f);
    } else if (o->type != OPT_FLAG) {
        fputs(" -r", f);
    }
    fputs(" -d '", f);
    quoted(f, o->help);
    fputs("'\n", f);
}

static void completion_fish(FILE *f) {
    fputs("# fish completion for llmchat, made by `llmchat help --completion fish`\n", f);
    for (const struct command *c = cmd_table; c->summary; c++) {
        if (c != cmd_table) {
            fprintf(f, "complete -c llmchat -n __fish_use_subcommand -f -a %s -d '", c->name);
            quoted(f, c->summary);
            fputs("'\n", f);
        }
        for (const struct opt *o = c->opts; o && o->name; o++)
            fish_opt(f, c, o);
        for (const struct opt *o = common_opts; o->name; o++)
            fish_opt(f, c, o);
        for (size_t i = 0; c->flags & CMD_SETTINGS && i < n_setting_defs; i++) {
            char *name = dashed(setting_defs[i].name);
            fish_start(f, c);
            fprintf(f, " -l %s -x", name);
            if (setting_defs[i].type == SETTING_WORD) {
                fputs(" -a '", f);
                for (const char *s = setting_defs[i].off; *s; s++)
                    fputc(*s == '|' ? ' ' : *s, f);
                fputc('\'', f);
            }
            fputs(" -d '", f);
            quoted(f, setting_defs[i].help);
            fputs("'\n", f);
            free(name);
        }
        struct buf words = {0};
        usage_words(&words, c);
        if (words.len) {
            fish_start(f, c);
            fprintf(f, " -x -a '%s'\n", words.p + 1);
        }
        buf_release(&words);
        if (takes_model(c)) {
            fish_start(f, c);
            fputs(" -a '(llmchat list --names 2>/dev/null)'\n", f);
        }
    }
}

int cmd_help(struct args *a) {
    const char *shell = arg_text(a, "completion");
    if (arg_flag(a, "man")) {
        help_man(stdout);
    } else if (shell && strcmp(shell, "bash") == 0) {
        completion_bash(stdout);
    } else if (shell && strcmp(shell, "zsh") == 0) {
        completion_zsh(stdout);
    } else if (shell) {
        completion_fish(stdout);
    } else if (a->n_pos == 0) {
        help_overview(stdout);
    } else {
        const struct command *c = cmd_table + 1;
        while (c->summary && strcmp(c->name, a->pos[0]) != 0)
            c++;
        if (!c->summary)
            return failf(ST_USAGE, "unknown command \"%s\" (llmchat --help lists them)",
                         a->pos[0]);
        help_command(stdout, c);
    }
    return 0;
}
