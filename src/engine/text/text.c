/*
 * text.c - see text.h: opening, and what a text model says about itself.
 *
 * A text model holds copies, so the file it was read from is closed again at once; one that
 * was cut meanwhile gave zeros, and no text model. Which kind
 * of file a path is, is seen from its first bytes and not from its name.
 */
#include "engine/text.h"
#include "base/path.h"
#include "engine/model/container.h"
#include "engine/model/gguf.h"
#include "engine/text/hf_tokenizer.h"
#include "engine/text/text_internal.h"
#include "engine/text/tokenizer.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What was found in a file that was cut meanwhile counts for nothing, errors included. */
static enum status whole(struct file_map map, const char *name, enum status st,
                         struct text_model **out, struct err *err) {
    struct err cut = {0};
    if (file_map_intact(map, name, &cut) == ST_OK)
        return st;
    tokenizer_free(*out);
    *out = NULL;
    *err = cut;
    return ST_IO;
}

static enum status open_gguf(const char *path, struct text_model **out, struct err *err) {
    struct gguf *g;
    struct vocab_data v;
    CHECK(gguf_open(path, &g, err));
    enum status st = vocab_from_gguf(&v, g, err);
    if (st == ST_OK) {
        st = text_from_vocab(&v, out, err);
        if (st != ST_OK)
            err_prefix(err, "%s", gguf_name(g));
        vocab_release(&v);
    }
    st = whole(gguf_map(g), gguf_name(g), st, out, err);
    gguf_close(g);
    return st;
}

static enum status open_container(const char *path, struct text_model **out, struct err *err) {
    struct container *c;
    struct vocab_data v;
    CHECK(container_open(path, &c, err));
    enum status st = vocab_from_container(&v, c, err);
    if (st == ST_OK) {
        st = text_from_vocab(&v, out, err);
        if (st != ST_OK)
            err_prefix(err, "%s", container_name(c));
        vocab_release(&v);
    }
    st = whole(container_map(c), container_name(c), st, out, err);
    container_close(c);
    return st;
}

static enum status open_folder(const char *path, struct text_model **out, struct err *err) {
    struct vocab_data v;
    CHECK(vocab_from_hf(&v, path, 0, err));
    enum status st = text_from_vocab(&v, out, err);
    if (st != ST_OK)
        err_prefix(err, "%s", path_base(path));
    vocab_release(&v);
    return st;
}

enum status text_open(const char *path, struct text_model **out, struct err *err) {
    *out = NULL;
    struct stat sb;
    if (stat(path, &sb) != 0)
        return err_set(err, errno == ENOENT ? ST_NOT_FOUND : ST_IO, "%s: %s", path,
                       strerror(errno));
    if (S_ISDIR(sb.st_mode))
        return open_folder(path, out, err);
    if (!S_ISREG(sb.st_mode))
        return err_set(err, ST_FORMAT, "%s: not a regular file", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, ST_IO, "%s: %s", path, strerror(errno));
    char magic[4] = {0};
    ssize_t n = read(fd, magic, sizeof magic);
    close(fd);
    return n == 4 && memcmp(magic, "GGUF", 4) == 0 ? open_gguf(path, out, err)
                                                   : open_container(path, out, err);
}

void text_close(struct text_model *t) {
    tokenizer_free(t);
}

static bool in_vocab(const struct text_model *t, int32_t token) {
    return token >= 0 && (uint32_t)token < t->n_tok;
}

int text_n_vocab(const struct text_model *t) {
    return (int)t->n_tok;
}

int text_bos(const struct text_model *t) {
    return t->bos;
}

int text_eos(const struct text_model *t) {
    return t->eos;
}

bool text_adds_bos(const struct text_model *t) {
    return t->adds_bos;
}

bool text_is_eog(const struct text_model *t, int32_t token) {
    return in_vocab(t, token) && (t->flags[token] & TOKEN_EOG);
}

bool text_is_control(const struct text_model *t, int32_t token) {
    return in_vocab(t, token) && (t->flags[token] & TOKEN_CONTROL);
}
