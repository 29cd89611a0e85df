/*
 * log.h - the program's diary: $XDG_STATE_HOME/llmchat/llmchat.log, bounded to about a megabyte
 * (one older file is kept). For the person who looks into a problem; nothing that a user must
 * see is said only here, and no text of a conversation is written to it. Safe from every
 * thread. Before log_open() calls are dropped.
 */
#ifndef LLMCHAT_BASE_LOG_H
#define LLMCHAT_BASE_LOG_H

void log_open(void); /* silent when the folder can't be written */
void log_close(void);
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
