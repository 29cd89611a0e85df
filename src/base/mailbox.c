/*
 * mailbox.c - see mailbox.h.
 *
 * A linked list under a mutex, and a pipe. A byte is put into the pipe when there is something
 * for who waits and taken out when the queue becomes empty, under the same mutex, so "readable"
 * and "not empty" never disagree for longer than a lock is held, but for mailbox_add(). A
 * condition variable would be lighter between two threads, but could not be waited for beside a
 * terminal; an eventfd would save one descriptor, but is not there on every system.
 */
#include "base/mailbox.h"
#include "base/clock.h"
#include "base/mem.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct node {
    void *msg;
    struct node *next;
};

struct mailbox {
    pthread_mutex_t lock;
    struct node *head, **tail;
    int rfd, wfd;
    bool told; /* the byte is in the pipe */
    int refs;
    void (*drop)(void *);
};

struct mailbox *mailbox_new(void (*drop)(void *msg)) {
    struct mailbox *m = xcalloc(1, sizeof *m);
    pthread_mutex_init(&m->lock, NULL);
    m->tail = &m->head;
    m->drop = drop;
    m->refs = 1;
    int fds[2];
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0) {
        perror("llmchat: no file descriptor left for a mailbox");
        abort();
    }
    m->rfd = fds[0];
    m->wfd = fds[1];
    return m;
}

struct mailbox *mailbox_ref(struct mailbox *m) {
    pthread_mutex_lock(&m->lock);
    m->refs++;
    pthread_mutex_unlock(&m->lock);
    return m;
}

void mailbox_unref(struct mailbox *m) {
    if (!m)
        return;
    pthread_mutex_lock(&m->lock);
    int refs = --m->refs;
    pthread_mutex_unlock(&m->lock);
    if (refs > 0)
        return;
    while (m->head) {
        struct node *n = m->head;
        m->head = n->next;
        if (m->drop)
            m->drop(n->msg);
        free(n);
    }
    close(m->rfd);
    close(m->wfd);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

/* Tells who waits that there is something; under the lock. */
static void tell(struct mailbox *m) {
    if (!m->head || m->told)
        return;
    ssize_t wrote = write(m->wfd, "", 1);
    assert(wrote == 1); /* at most one byte is ever in the pipe */
    (void)wrote;
    m->told = true;
}

static void append(struct mailbox *m, void *takes_msg, bool wake) {
    struct node *n = xmalloc(sizeof *n);
    *n = (struct node){.msg = takes_msg};
    pthread_mutex_lock(&m->lock);
    *m->tail = n;
    m->tail = &n->next;
    if (wake)
        tell(m);
    pthread_mutex_unlock(&m->lock);
}

void mailbox_put(struct mailbox *m, void *takes_msg) {
    append(m, takes_msg, true);
}

void mailbox_add(struct mailbox *m, void *takes_msg) {
    append(m, takes_msg, false);
}

void mailbox_wake(struct mailbox *m) {
    pthread_mutex_lock(&m->lock);
    tell(m);
    pthread_mutex_unlock(&m->lock);
}

void *mailbox_take(struct mailbox *m) {
    pthread_mutex_lock(&m->lock);
    struct node *n = m->head;
    if (n) {
        m->head = n->next;
        if (!m->head)
            m->tail = &m->head;
        if (!m->head && m->told) {
            char byte;
            ssize_t got = read(m->rfd, &byte, 1);
            assert(got == 1);
            (void)got;
            m->told = false;
        }
    }
    pthread_mutex_unlock(&m->lock);
    if (!n)
        return NULL;
    void *msg = n->msg;
    free(n);
    return msg;
}

void *mailbox_wait(struct mailbox *m, int timeout_ms) {
    int64_t until = clock_us() + (int64_t)timeout_ms * 1000;
    for (;;) {
        void *msg = mailbox_take(m);
        if (msg)
            return msg;
        int left = -1;
        if (timeout_ms >= 0) {
            int64_t us = until - clock_us();
            if (us <= 0)
                return NULL;
            left = (int)((us + 999) / 1000);
        }
        struct pollfd p = {.fd = m->rfd, .events = POLLIN};
        poll(&p, 1, left);
    }
}

int mailbox_fd(struct mailbox *m) {
    return m->rfd;
}
