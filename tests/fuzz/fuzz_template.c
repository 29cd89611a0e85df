/*
 * fuzz_template.c - any bytes as a chat template and as the JSON it renders. What lies before
 * the first NUL is the template, what lies behind it the variables. Whatever comes out must be
 * marked byte for byte and valid UTF-8.
 */
#include "base/utf8.h"
#include "engine/text/jinja.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - data) : size;
    char *text = xstrndup((const char *)data, n);
    char *vars = nul ? xstrndup((const char *)nul + 1, size - n - 1) : NULL;
    struct rendered r = {0};
    struct err err;
    struct jinja_input in = {.template_text = text,
                             .template_len = n,
                             .messages_json = "[{\"role\": \"user\", \"content\": \"Hi\"}]",
                             .vars_json = vars,
                             .bos = "<s>",
                             .eos = "</s>",
                             .add_generation_prompt = true,
                             .now_unix = 1750000000};
    if (jinja_render(&in, &r, &err) == ST_OK &&
        (r.text.len != r.plain.len || !utf8_valid(buf_str(&r.text), r.text.len)))
        abort();
    buf_release(&r.text);
    buf_release(&r.plain);
    free(text);
    free(vars);
    return 0;
}
