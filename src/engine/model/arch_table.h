/*
 * arch_table.h - what the files of the architecture table share: its rows, and the readers of
 * what only one architecture has.
 *
 * A special reader runs after what all architectures have in common was read, and may look at
 * and change all of it.
 */
#ifndef LLMCHAT_ENGINE_MODEL_ARCH_TABLE_H
#define LLMCHAT_ENGINE_MODEL_ARCH_TABLE_H

#include "engine/model/arch.h"

/* Each ends with a row without a name. Rows of one name share their tensors. */
extern const struct arch arch_llama_rows[], arch_gpt_rows[];

/* The defaults of HPARAM_LIST, then the architecture's traits. */
void arch_traits_apply(const struct arch *a, struct hparams *hp);
bool arch_has_experts(const struct arch *a);
/* Whether word is one of the words of list ("llama mistral"; NULL has none). */
bool arch_has_word(const char *list, const char *word);
/* Layers 0 .. n_layer - 1 for which (layer + 1) is no multiple of `every` get these flags;
 * every = 0: all of them. */
void arch_flag_layers(struct hparams *hp, int every, unsigned flags);
/* Layers without LAYER_WINDOW get LAYER_NO_ROPE. */
void arch_no_rope_in_full_layers(struct hparams *hp);

typedef enum status arch_gguf_special(const struct gguf *g, struct hparams *hp,
                                      struct err *err);
arch_gguf_special gguf_cohere2, gguf_exaone4, gguf_gemma, gguf_gemma2, gguf_gemma3,
    gguf_gptneox, gguf_gptoss, gguf_granite, gguf_olmo2, gguf_phi3, gguf_qwen2moe, gguf_smollm3,
    gguf_stablelm;

typedef enum status arch_hf_special(const struct hf_json *config, struct hparams *hp,
                                    struct err *err);
arch_hf_special hf_bigcode, hf_cohere, hf_cohere2, hf_exaone4, hf_falcon, hf_gemma, hf_gpt2,
    hf_gptneo, hf_gptneox, hf_gptoss, hf_mpt, hf_olmo3, hf_opt, hf_phi3, hf_qwen, hf_qwen2moe,
    hf_smollm3, hf_stablelm;

#endif
