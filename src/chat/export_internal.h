/* export_internal.h - between the files of the export only. */
#ifndef LLMCHAT_CHAT_EXPORT_INTERNAL_H
#define LLMCHAT_CHAT_EXPORT_INTERNAL_H

#include "chat/export.h"

#define EXPORT_FORMAT_NAME "llmchat-conversation"
#define EXPORT_VERSION     1

/* Appends text as HTML: every character that means something there is escaped, invalid UTF-8
 * mended. */
void html_escape(struct buf *out, const char *s, size_t len);
/* Appends Markdown as HTML: no raw HTML, links to http, https and mailto only, no images. */
void html_markdown(struct buf *out, const char *s, size_t len);
void export_html(const struct conversation *c, const struct message_list *l, bool tree,
                 struct buf *out);
/* "you", "llmchat", "system", "tool", "summary" as headings show it. */
const char *export_speaker(const struct message *m);

#endif
