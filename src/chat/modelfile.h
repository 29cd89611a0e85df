/*
 * modelfile.h - Modelfiles, as people write them for Ollama: what to make a model from, and
 * what to put into it.
 *
 *   FROM ./model.gguf            # a GGUF file, a Hugging Face folder, or an installed model
 *   PARAMETER temperature 0.6    # once for each setting; stop as often as needed
 *   SYSTEM """You are …"""
 *   TEMPLATE """{{ bos_token }}{% for … %}"""     # Jinja, as Hugging Face has them
 *   LICENSE """…"""
 *
 * Instructions in any case; a value is the rest of the line, a text in quotes, or lines between
 * triple quotes; # begins a comment line. A path is relative to the Modelfile's folder.
 */
#ifndef LLMCHAT_CHAT_MODELFILE_H
#define LLMCHAT_CHAT_MODELFILE_H

#include "base/err.h"
#include <stddef.h>

struct modelfile { /* NULL where the file says nothing */
    char *from, *system, *chat_template, *license;
    char *settings; /* JSON object, names of settings.h */
};

/* ST_USAGE and ST_UNSUPPORTED name file and line. On failure out is released. */
enum status modelfile_load(const char *path, struct modelfile *out, struct err *err);
enum status modelfile_parse(const char *text, size_t len, const char *path,
                            struct modelfile *out, struct err *err);
void modelfile_release(struct modelfile *m);

#endif
