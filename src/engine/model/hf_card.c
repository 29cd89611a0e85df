/*
 * hf_card.c - title and licence of a Hugging Face folder. See hf_card.h.
 *
 * A model card is README.md with YAML between two lines "---". Of that one line counts,
 * "license: apache-2.0", or "license_name: …" where the licence is "other"; a whole YAML reader
 * would be a lot of attack surface for a word that is only shown. config.json's _name_or_path
 * is no title: it names what a model was made from, or a folder of its maker's.
 */
#include "engine/model/hf_card.h"

#include "base/path.h"
#include "base/utf8.h"
#include <stdlib.h>
#include <string.h>

static const size_t max_card_bytes = 64u << 10; /* the front matter comes first */

char *hf_title(const char *path) {
    const char *name = path_base(path), *hub = NULL;
    size_t len = strlen(name);
    for (const char *p = strstr(path, "/models--"); p; p = strstr(p + 1, "/models--"))
        if (strstr(p, "/snapshots/"))
            hub = p + 9;
    if (hub) { /* behind the organisation, if there is one */
        len = strcspn(hub, "/");
        name = hub;
        const char *org = memmem(hub, len, "--", 2);
        if (org) {
            len -= (size_t)(org + 2 - hub);
            name = org + 2;
        }
    }
    struct buf clean = {0};
    utf8_scrub(&clean, name, len);
    char *title = xstrdup(buf_str(&clean));
    buf_release(&clean);
    return title;
}

/* The value of "key: value" in the lines before "---", if it is a plain word. */
static char *card_value(const char *lines, const char *key) {
    static const char word[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                               "._+-";
    size_t n = strlen(key);
    for (const char *p = lines; *p; p += strcspn(p, "\n"), p += *p == '\n') {
        if (strncmp(p, "---", 3) == 0)
            break;
        if (strncmp(p, key, n) != 0 || p[n] != ':')
            continue;
        p += n + 1;
        p += strspn(p, " \t\"'");
        size_t len = strspn(p, word);
        const char *end = p + len + strspn(p + len, " \t\"'\r");
        return len && len <= 64 && (*end == '\n' || !*end) ? xstrndup(p, len) : NULL;
    }
    return NULL;
}

char *hf_license(const char *dir) {
    char *path = path_join(dir, "README.md"), *license = NULL;
    struct buf text = {0};
    enum status st = file_read(path, max_card_bytes, &text, NULL);
    const char *p = buf_str(&text);
    if ((st == ST_OK || st == ST_LIMIT) && strncmp(p, "---", 3) == 0 && strchr(p, '\n')) {
        license = card_value(strchr(p, '\n') + 1, "license");
        if (license && strcmp(license, "other") == 0) {
            free(license);
            license = card_value(strchr(p, '\n') + 1, "license_name");
        }
    }
    buf_release(&text);
    free(path);
    return license;
}
