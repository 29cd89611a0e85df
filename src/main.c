/*
 * main.c - the table of commands, nothing else.
 */
#include "base/file_map.h"
#include "cmd/cmd.h"
#include <locale.h>
#include <signal.h>

const struct command cmd_table[] = {
    {"", "", "Chat with a language model in the terminal, or run one of the commands",
     "Without a command the terminal interface opens. F1 there lists the keys.", 0, 0,
     CMD_CONFIG, ui_opts, cmd_ui},
    {"run", "MODEL [PROMPT...]", "Answer one prompt on standard output as it streams",
     "MODEL is an installed model, one of our files, or a GGUF file, of which a converted "
     "copy is kept in the cache folder.\n"
     "The words of PROMPT are joined by blanks; standard input, when it is not a terminal, "
     "follows after an empty line. Without a prompt on a terminal the interface opens with "
     "this model. The prompt goes through the model's chat template as a user's message; "
     "--raw gives it to the model as it is; of the ways to go on when the context is full "
     "(context_full) it knows stream, since there are no turns to leave out.\n"
     "With --json there is one object a line: type token (id, text) for each token and last "
     "type done.",
     1, -1, CMD_SETTINGS, run_opts, cmd_run},
    {"create", "NAME", "Make a model from a GGUF file or a folder",
     "Linear layers are quantised to 4-bit NF4 in groups of 64 with double-quantised "
     "scales; the token embedding and output head to int8, unless --head-quant says "
     "otherwise. The model appears whole or not at all.",
     1, 1, 0, create_opts, cmd_create},
    {"list", "", "List installed models", "", 0, 0, 0, list_opts, cmd_list},
    {"show", "NAME",
     "Show what a model is: architecture, sizes, quantisation, template, licence", "", 1, 1, 0,
     show_opts, cmd_show},
    {"rm", "NAME...", "Remove models", "", 1, -1, 0, rm_opts, cmd_rm},
    {"cp", "NAME NEW", "Copy a model under another name", "", 2, 2, 0, cp_opts, cmd_cp},
    {"kv", "list|prune", "List or remove the saved states of conversations",
     "When a stored conversation is left, the keys and values that the model has computed for "
     "it are saved in the cache folder, so that it goes on at once after a restart. kv list "
     "shows "
     "them; kv prune removes those that its options name, and what is damaged; without options "
     "only that. What is removed is only computed again. The configuration (kv_cache) says how "
     "much they may take; "
     "those that were not used for longest make room.",
     1, 1, 0, kv_opts, cmd_kv},
    {"chats", "", "List stored conversations, the latest first", "", 0, 0, 0, chats_opts,
     cmd_chats},
    {"search", "WORDS...", "Find words in all conversations",
     "All words must occur in a message or a title; \"words in quotes\" must occur "
     "together. The beginning of a word finds it; Chinese and Japanese text is found by any "
     "run of its characters. With --json the role of a hit is that of its message, or title.",
     1, -1, 0, search_opts, cmd_search},
    {"export", "ID", "Write a conversation to a file or standard output",
     "Formats: md, json (everything, importable), jsonl (OpenAI fine-tuning messages), html "
     "(one file), txt. Without --format the ending of the file's name decides, else it is "
     "md.",
     1, 1, 0, export_opts, cmd_export},
    {"import", "FILE...", "Read conversations from json or jsonl files",
     "Takes what export --format json or jsonl writes, and JSON lists of messages. A file "
     "is imported whole or not at all. \"-\" is standard input. Prints the numbers of the "
     "new conversations.",
     1, -1, 0, import_opts, cmd_import},
    {"tokenize", "MODEL", "Turn standard input into token ids, or back",
     "MODEL is an installed model, one of our files, or a GGUF file, which needs no tensors.",
     1, 1, 0, tokenize_opts, cmd_tokenize},
    {"template", "[MODEL]", "Turn messages into prompt text with a chat template",
     "Messages are a JSON list, or an object with \"messages\" and perhaps \"tools\". "
     "Without MODEL --template-file is needed, and the begin and end tokens are empty.",
     0, 1, 0, template_opts, cmd_template},
    {"eval", "MODEL", "Measure perplexity on a text",
     "Perplexity as llama.cpp's tool defines it: windows of --ctx tokens, the second half "
     "of each counts. Nothing is taken from the configuration.",
     1, 1, 0, eval_opts, cmd_eval},
    {"bench", "MODEL", "Measure speed: prefill, decode, latencies, throughput",
     "A row for each combination of -d, -p, -n and -b: all sequences prefill, then all decode "
     "together. Prompts are random tokens, new for each run, so that nothing comes from the "
     "cache; a run of the same shape, but of 512 and 128 tokens at most, warms up, the median "
     "of the others is printed, with the standard "
     "deviation. ttft is the time to the first token, itl the time between two tokens of a "
     "sequence; read is what decode moves (the weights once a step, and the KV of every "
     "sequence) as a share of the memory bandwidth, which is measured first, but for a GPU.\n"
     "With --num-prompts it sends that many requests, which join and leave as they come, and "
     "prints what vLLM's serving benchmark prints. Ctrl-C ends it; what was measured until "
     "then is printed. Nothing is taken from the configuration.",
     1, 1, 0, bench_opts, cmd_bench},
    {"doctor", "", "Show what was found: processor, libraries, folders, database, models", "",
     0, 0, 0, doctor_opts, cmd_doctor},
    {"help", "[COMMAND]", "Show help, the man page's lists, or completions", "", 0, 1, 0,
     help_opts, cmd_help},
    {0},
};

int main(int argc, char **argv) {
    signal(SIGXFSZ, SIG_IGN); /* a file-size limit is a failed write, not the end */
    file_map_guard();         /* a model whose file is cut is a message, not the end */
    setlocale(LC_ALL, "");
    setlocale(LC_NUMERIC, "C");
    return cmd_main(argc, argv);
}
