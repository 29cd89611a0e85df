/*
 * export.h - conversations to files and back.
 *
 *   md     Markdown: title, a heading a message, raw text
 *   json   everything: the whole tree with ids, states, models, settings, counts; importable
 *   jsonl  one line {"messages":[…]} a branch, as OpenAI's fine-tuning takes it
 *   html   one file, no scripts, light and dark
 *   txt    plain text
 */
#ifndef LLMCHAT_CHAT_EXPORT_H
#define LLMCHAT_CHAT_EXPORT_H

#include "store/store.h"

enum export_format { EXPORT_MD, EXPORT_JSON, EXPORT_JSONL, EXPORT_HTML, EXPORT_TXT, EXPORT_N };
const char *export_format_name(enum export_format f);
bool export_format_parse(const char *s, enum export_format *out);
/* By the ending of a file name (.md .markdown .json .jsonl .html .htm .txt). */
bool export_format_of_path(const char *path, enum export_format *out);
/* A file name made of a title: no separators, no shell characters, no leading dot. The caller
 * frees. */
char *export_file_name(const char *title, enum export_format f);
/* Appends the conversation; whole_tree: every branch (json always holds all), else the active
 * one. */
enum status export_conversation(struct store *s, int64_t conv, enum export_format f,
                                bool whole_tree, struct buf *out, struct err *err);
/* To a file, whole or not at all; an existing file is refused unless replace. */
enum status export_file(struct store *s, int64_t conv, enum export_format f, bool whole_tree,
                        const char *path, bool replace, struct err *err);
enum { IMPORT_MAX_BYTES = 256 << 20 };
/* Reads our json, jsonl of messages, or a JSON list of messages; each conversation gets a new
 * id, in one transaction: all or none. ids (may be NULL) gets the new ids. The message of an
 * error names where in the file. */
enum status import_text(struct store *s, const char *text, size_t len, const char *name,
                        struct strlist *ids, struct err *err);

#endif
