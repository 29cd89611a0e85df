/*
 * event.c - events: one allocation for the event, one for its text, one for its alternatives.
 *
 * An event is made by the engine thread and belongs to who takes it out of the mailbox; the
 * mailbox's drop function is event_free, which therefore takes a void pointer.
 */
#include "engine/run/event.h"

#include "base/clock.h"
#include "base/mem.h"
#include <stdlib.h>

struct event *event_new(enum event_type type, uint64_t request_id) {
    struct event *e = xcalloc(1, sizeof *e);
    e->type = type;
    e->request_id = request_id;
    e->at_us = clock_us();
    e->token = -1;
    e->text = xstrdup("");
    return e;
}

void event_free(void *event) {
    struct event *e = event;
    if (!e)
        return;
    free(e->text);
    free(e->alt);
    free(e);
}

const char *finish_name(enum finish f) {
    static const char *const names[] = {"stop", "length", "cancel", "error"};
    return (unsigned)f < sizeof names / sizeof *names ? names[f] : "error";
}
