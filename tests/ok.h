/* ok.h - for tests of calls that return a status: behind cmocka.h. */
#ifndef LLMCHAT_TESTS_OK_H
#define LLMCHAT_TESTS_OK_H

#include "base/err.h"

static struct err e; /* of the last call */
#define OK(call)                                                                               \
    do {                                                                                       \
        e = (struct err){0};                                                                   \
        if ((call) != ST_OK)                                                                   \
            fail_msg("%s: %s", #call, e.msg);                                                  \
    } while (0)

#endif
