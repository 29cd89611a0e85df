/*
 * fuzz_yaml.c - any bytes as configuration and as a prompt: an error or a value, never more.
 */
#include "chat/config.h"
#include "chat/prompts.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct config c;
    struct prompt p;
    struct err err;
    const char *text = size ? (const char *)data : "";
    if (config_parse(text, size, "fuzz.yaml", &c, &err) == ST_OK)
        config_release(&c);
    if (prompt_parse(text, size, "fuzz.yaml", &p, &err) == ST_OK) {
        free(prompt_fill(&p, NULL));
        prompt_release(&p);
    }
    return 0;
}
