/*
 * hf_card.h - what a Hugging Face folder says about itself to people: its title and licence.
 */
#ifndef LLMCHAT_ENGINE_MODEL_HF_CARD_H
#define LLMCHAT_ENGINE_MODEL_HF_CARD_H

/* The name of the folder; of a snapshot in the hub's cache (models--ORG--NAME/snapshots/HASH)
 * the repository's, "NAME". path is absolute. The caller frees; valid UTF-8. */
char *hf_title(const char *path);
/* The licence that README.md's front matter names ("apache-2.0"), or NULL. The caller frees. */
char *hf_license(const char *dir);

#endif
