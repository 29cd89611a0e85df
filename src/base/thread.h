/* thread.h - threads of ours. */
#ifndef LLMCHAT_BASE_THREAD_H
#define LLMCHAT_BASE_THREAD_H

#include <pthread.h>

/* pthread_create() of a thread that takes no signals: they are for who talks to the person.
 * Those of its own faults stay: blocked, they would end the program past the handlers that mend
 * a mapping and restore the terminal. Returns an errno. */
int thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg);

#endif
