/*
 * event.h - making the events of engine.h.
 */
#ifndef LLMCHAT_ENGINE_RUN_EVENT_H
#define LLMCHAT_ENGINE_RUN_EVENT_H

#include "engine/engine.h"

/* The caller owns it; text is "" and everything else zero. */
struct event *event_new(enum event_type type, uint64_t request_id);

#endif
