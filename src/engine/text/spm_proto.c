#include "engine/text/hf_maker.h"
enum status hf_read_sentencepiece(struct hf_maker *m, struct err *err) {
    return err_set(err, ST_UNSUPPORTED, "%s: tokenizer.model", m->dir);
}
