/*
 * mailbox.h - messages between threads.
 *
 * A mailbox is a first-in first-out queue with a wake descriptor: the descriptor is readable
 * while the queue is not empty (of messages that were added quietly from mailbox_wake() on), so
 * a thread can wait for it beside a terminal or a socket with poll(). Any thread may put, one
 * takes. A message belongs to who holds it; what is left when the mailbox is freed goes to
 * drop().
 */
#ifndef LLMCHAT_BASE_MAILBOX_H
#define LLMCHAT_BASE_MAILBOX_H

#include <stdbool.h>

struct mailbox;

struct mailbox *mailbox_new(void (*drop)(void *msg));
/* For each party that holds the mailbox: ref before handing it to a thread, unref when done;
 * the last one frees it. */
struct mailbox *mailbox_ref(struct mailbox *m);
void mailbox_unref(struct mailbox *m);
void mailbox_put(struct mailbox *m, void *takes_msg);
/* As put, but who waits is not woken: mailbox_wake(), or the next put, does that. Several
 * messages for one reader then cost one change of threads. */
void mailbox_add(struct mailbox *m, void *takes_msg);
void mailbox_wake(struct mailbox *m);
/* The oldest message, or NULL when there is none now. */
void *mailbox_take(struct mailbox *m);
/* Waits for a message at most timeout_ms (-1: for ever); NULL when none came in time. */
void *mailbox_wait(struct mailbox *m, int timeout_ms);
int mailbox_fd(struct mailbox *m);

#endif
