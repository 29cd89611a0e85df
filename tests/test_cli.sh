#!/bin/sh
# test_cli.sh - the commands as a script calls them: what they print, where, and with which exit code.
#
# Everything runs in a folder of its own with a tiny random model, so that answers are babble but the same each time.
set -u
: "${LLMCHAT_BIN:?}" "${MKMODEL:?}"
here=$(cd "$(dirname "$0")" && pwd) || exit 1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
LLMCHAT_HOME=$tmp/home
export LLMCHAT_HOME
unset XDG_CONFIG_HOME XDG_DATA_HOME XDG_STATE_HOME XDG_CACHE_HOME
cd "$tmp" || exit 1
bad=0

# run ARGS…: calls llmchat without standard input; out, err and rc hold what came.
run() {
    rc=0
    "$LLMCHAT_BIN" "$@" >out 2>err </dev/null || rc=$?
}
pass() { echo "ok $1"; }
fail() {
    echo "not ok $1 (exit $rc)"
    sed 's/^/   out: /' out | head -n 20
    sed 's/^/   err: /' err | head -n 20
    bad=1
}
# is WHAT RC [OUT-PATTERN [ERR-PATTERN]]: checks the last run; "-" means empty.
is() {
    if [ "$rc" != "$2" ]; then fail "$1"; return; fi
    for pair in "out ${3:-}" "err ${4:-}"; do
        file=${pair%% *} want=${pair#* }
        [ -n "$want" ] || continue
        if [ "$want" = - ]; then
            [ ! -s "$file" ] || { fail "$1"; return; }
        else
            grep -qE -e "$want" "$file" || { fail "$1"; return; }
        fi
    done
    pass "$1"
}
# json FILE PYTHON-EXPRESSION over d (the object) or lines (the objects of a file of lines)
json() {
    python3 - "$1" "$2" <<'PY'
import json, sys
text = open(sys.argv[1], encoding="utf-8").read()
lines = []
try:
    d = json.loads(text)
except ValueError:
    d = None
    lines = [json.loads(l) for l in text.splitlines()]
else:
    lines = [d]
sys.exit(0 if eval(sys.argv[2]) else 1)
PY
}
is_json() {
    if [ "$rc" = "$2" ] && json "$3" "$4"; then pass "$1"; else fail "$1"; fi
}

# -- usage ------------------------------------------------------------------
run --version; is "--version" 0 '^llmchat [0-9]' -
run --help; is "--help lists the commands on standard output" 0 '^  tokenize' -
for c in run create list show rm cp kv chats search export import tokenize template eval bench doctor help; do
    run $c --help
    is "$c --help" 0 "^usage: llmchat $c" -
done
run nonsense; is "an unknown command is usage" 2 - 'unknown command "nonsense"'
run list --nonsense; is "an unknown option is usage" 2 - 'unknown option --nonsense'
run run; is "a missing argument is usage" 2 - 'missing arguments'
run create x --quant q9 --from y; is "a wrong choice names the choices" 2 - 'nf4\|int8\|bf16\|f32'
run bench x -n zero; is "a wrong number names the option" 2 - '--output zero'
run run m hi --top-k=-5; is "a setting out of range is named" 2 - 'top_k'
run run m hi --temperature warm; is "a setting that is no number is named" 2 - 'temperature'

# -- completions ------------------------------------------------------------
for shell in bash zsh fish; do
    run help --completion $shell; is "completion for $shell" 0 'head-quant' -
    if ! command -v $shell >/dev/null 2>&1; then echo "skip completion for $shell is understood: no $shell here"; continue; fi
    rc=0; $shell -n out 2>err || rc=$?; is "completion for $shell is understood" 0 '' -
done
cat >try.bash <<'SH'
. "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_llmchat
echo "${COMPREPLY[*]}"
SH
if command -v bash >/dev/null 2>&1; then
    "$LLMCHAT_BIN" help --completion bash >c.bash
    rc=0; bash try.bash c.bash llmchat create x --quant '' >out 2>err || rc=$?; is "completion of a choice" 0 '^nf4 int8 bf16 f32 keep$' -
    rc=0; bash try.bash c.bash llmchat run m --typ >out 2>err || rc=$?; is "completion of a setting" 0 '^--typical-p$' -
    rc=0; bash try.bash c.bash llmchat kv p >out 2>err || rc=$?; is "completion of a sub-command's word" 0 '^prune$' -
    rc=0; bash try.bash c.bash llmchat exp >out 2>err || rc=$?; is "completion of a command" 0 '^export$' -
fi

# -- nothing installed ------------------------------------------------------
run list; is "no models: empty list, advice on stderr" 0 - 'llmchat create'
run list --json; is "no models: an empty JSON list" 0 '^\[\]$'
run run smollm2 hello; is "no model: exit 1 and what to do" 1 - 'smollm2'
run show smollm2; is "show of a model that is not there" 1 - 'smollm2'
run chats; is "no conversations" 0 -

# -- models -----------------------------------------------------------------
"$MKMODEL" tiny.gguf || exit 1
run create tiny; is "create without --from is usage" 2 - '--from'
run create tiny --from missing.gguf; is "create from a missing file" 1 - 'missing.gguf'
head -c 5000 tiny.gguf >cut.gguf
run create tiny --from cut.gguf; is "create from a cut file names it" 1 - 'cut.gguf'
if [ -z "$(find "$LLMCHAT_HOME" -name '*.safetensors*')" ]; then pass "a failed create leaves nothing"; else fail "a failed create leaves nothing"; fi
run create 'a/b' --from tiny.gguf; is "a bad name is refused" 2 - 'name'
run create tiny --from tiny.gguf; is "create" 0 - 'nf4'
run create tiny --from tiny.gguf; is "an existing name is not replaced" 1 - 'exists already; --force'
run create other --from ./missing/x; is "a path that is not there is no name" 1 - './missing/x: there is no such file or folder'
echo '{"a": 1, "b": 2}' >some.json; : >nothing
run create other --from some.json; is "a file of another kind is told what is wanted" 1 - 'some.json: neither a GGUF file'
run run ./some.json hi; is "by run, too" 1 - 'some.json: neither a GGUF file'
run create other --from nothing; is "an empty file is called that" 1 - 'nothing: an empty file'
run create other --from ''; is "create from nothing" 1 - 'model or file named ""'
run create tiny --from tiny.gguf --force; is "--force replaces" 0
for q in int8 bf16 f32; do
    run create tiny-$q --from tiny.gguf --quant $q; is "create --quant $q" 0
done
run list --names; is "list --names" 0 '^tiny-bf16$'
run list --json; is_json "list --json" 0 out 'len(d)==4 and d[0]["name"]=="tiny" and d[0]["quant"]=="nf4" and d[0]["context"]==512'
run show tiny --json; is_json "show --json" 0 out 'd["layers"]==2 and d["license"]=="mit" and "im_start" in d["chat_template"] and len(d["source_sha256"])==64'
run show tiny; is "show" 0 'llama'
run show ./tiny.gguf --json; is_json "show of a GGUF file" 0 out 'd["layers"]==2 and d["quant"]=="F32" and d["license"]=="mit" and d["parameters"]>0 and d["bytes"]>0'
run cp ./tiny.gguf copy; is "cp of a GGUF file says what to do" 2 - 'create'
run cp tiny copy; is "cp" 0
run cp tiny copy; is "cp onto an existing name is refused" 1 - 'already'
# shellcheck disable=SC2016
cp home/data/models/tiny.safetensors 'home/data/models/$(touch pwned).safetensors'
run list --names; is "a file with a name that is none is told and left out" 0 '' 'is no name of a model'
if ! grep -q pwned out; then pass "so that completions can trust names"; else fail "so that completions can trust names"; fi
rm home/data/models/*pwned*
run rm copy; is "rm" 0
run rm copy; is "rm of what is not there" 1 - 'copy'

# -- Modelfiles and folders -------------------------------------------------
# refused WHAT RC PATTERN TEXT: a Modelfile with FROM and TEXT, which starts in line 2
refused() {
    printf 'FROM tiny.gguf\n%b\n' "$4" >Modelfile
    run create made -f Modelfile; is "Modelfile: $1" "$2" - "$3"
}
refused "an instruction that is none" 2 'Modelfile:2: .*not FRM' 'FRM x'
refused "a parameter that is none" 1 'Modelfile:3: no such parameter: mirostat' '# two\nPARAMETER mirostat 1'
refused "a parameter without a name" 2 'Modelfile:2: PARAMETER wants' 'PARAMETER'
refused "a value out of range" 2 'Modelfile:2: temperature: hot' 'PARAMETER temperature hot'
refused "quotes that stay open" 2 'Modelfile:2: no closing' 'SYSTEM """never'
refused "a template of another language" 1 'Modelfile:2: .*Go' 'TEMPLATE """{{ .Prompt }}"""'
refused "a template that is none" 1 'TEMPLATE: chat template: line 2' 'TEMPLATE """a\n{% for"""'
refused "what would change the weights" 1 'Modelfile:2: not supported: ADAPTER' 'ADAPTER x'
printf 'from ./tiny.gguf\r\nPARAMETER num_ctx 64\nPARAMETER stop "<x>"\nPARAMETER stop END\n%s\n' \
    'SYSTEM """You are
  brief.
"""
LICENSE mine
TEMPLATE """{{ messages[0].content }}!"""' >Modelfile
run create made -f Modelfile; is "a Modelfile makes a model" 0
run show made --json; is_json "with what it says" 0 out 'd["system"]=="You are\n  brief.\n" and d["license"]=="mine" and d["settings"]=={"ctx":64,"stop":["<x>","END"]} and d["chat_template"].endswith("!")'
run show made; is "a text of several lines is shown as such" 0 '^                brief\.$'
run rm made
mkdir only tokens
cp tiny.gguf only/
run create made --from only; is "a folder of one GGUF file is that file" 0
run create only --from only --force; run create only --from only --quant int8 --force
is "a folder in the current one goes before the model of its name" 0 - 'int8'
run rm only; is "rm of it" 0
run rm made
cp tiny.gguf only/second.gguf
run create made --from only/; is "of two, one must be named" 2 - 'second.gguf, tiny.gguf'
run show only; is "for every command" 2 - 'second.gguf'
printf '{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}' >tokens/tokenizer.json
rc=0; printf ab | "$LLMCHAT_BIN" tokenize tokens >out 2>err || rc=$?
is "tokenize wants no tensors of a folder, however it is named" 0 '^2$'

# -- run --------------------------------------------------------------------
run run tiny --temperature 0 --max-tokens 8 hello world; is "run prints an answer" 0 '' -
if [ "$(wc -c <out)" -ge 8 ]; then pass "an answer of 8 tokens"; else fail "an answer of 8 tokens"; fi
cp out first
run run tiny --temperature 0 --max-tokens 8 hello world
if cmp -s out first; then pass "greedy answers are the same"; else fail "greedy answers are the same"; fi
run run tiny --seed 7 --max-tokens 8 hi; cp out first; run run tiny --seed 7 --max-tokens 8 hi
if cmp -s out first; then pass "same seed, same answer"; else fail "same seed, same answer"; fi
rc=0; printf 'hello' | "$LLMCHAT_BIN" run tiny --temperature 0 --max-tokens 8 --json >out 2>err || rc=$?
is_json "run --json: tokens, then done" 0 out 'all(l["type"]=="token" for l in lines[:-1]) and lines[-1]["type"]=="done" and lines[-1]["completion_tokens"]==len(lines)-1 and lines[-1]["finish_reason"] in ("stop","length") and all(k in lines[-1] for k in "prompt_tokens cached_tokens prompt_us decode_us ttft_us seed".split())'
rm -f lines
for seed in 1 2 3 4 5 6; do
    run run tiny --temperature 2 --seed $seed --max-tokens 3 --json hi; cat out >>lines
    run run tiny --temperature 2 --seed $seed --max-tokens 3 --json --raw hi; cat out >>lines
done
is_json "half a character at the end has no line of its own" 0 lines 'all(l["id"]>=0 for l in lines if l["type"]=="token") and sum(l["type"]=="token" for l in lines)==sum(l.get("completion_tokens",0) for l in lines) and any("\ufffd" in l.get("text","") for l in lines)'
rc=0; printf '\377\376' | "$LLMCHAT_BIN" run tiny >out 2>err || rc=$?
is "invalid UTF-8 on standard input" 1 - 'invalid UTF-8 at byte 0'
run run tiny; is "an empty prompt is refused" 2 - 'empty'
head -c 20000 /dev/zero | tr '\0' 'x' >long
rc=0; "$LLMCHAT_BIN" run tiny <long >out 2>err || rc=$?
is "a prompt longer than the context: numbers in the message" 1 - '512'
run run ./tiny.gguf --temperature 0 --max-tokens 4 hi; is "run takes a GGUF file" 0
run run tiny --raw --temperature 0 --max-tokens 4 'once upon'; is "run --raw" 0
run run tiny --save --temperature 0 --max-tokens 4 remember the tides; is "run --save" 0 '' 'stored as conversation 1'
run run tiny --chat 1 --temperature 0 --max-tokens 4 --json and the moon
is_json "run --chat continues" 0 out 'lines[-1]["prompt_tokens"]>20'
run run tiny --chat 99 hi; is "run --chat of what is not there" 1 - '99'

# -- speculation ------------------------------------------------------------
"$MKMODEL" small.gguf seed=2 layers=1 && "$MKMODEL" foreign.gguf merges=9 || exit 1
run create small --from small.gguf; is "a model that can guess" 0
run create foreign --from foreign.gguf; is "a model with another vocabulary" 0
# said: the tokens of the last run, without the line of counts
said() { grep -v '"done"' out; }
for t in 0 0.8; do
    run run tiny --temperature $t --seed 3 --max-tokens 80 --json --speculation off tell me a tale of the tides; said >without
    is_json "--speculation off guesses nothing" 0 out 'lines[-1]["drafted_tokens"]==0'
    for how in "--speculation auto" "--speculation lookup" "--speculation draft --draft tiny" "--speculation auto --draft small"; do
        # shellcheck disable=SC2086
        run run tiny --temperature $t --seed 3 --max-tokens 80 --json $how tell me a tale of the tides; said >with
        if [ "$rc" = 0 ] && cmp -s without with; then pass "$how at temperature $t changes no token"; else fail "$how at temperature $t changes no token"; fi
    done
done
run run tiny --temperature 0 --max-tokens 80 --json --speculation draft --draft tiny tell me a tale of the tides
is_json "a model that guesses for itself is right" 0 out 'lines[-1]["drafted_tokens"]==lines[-1]["accepted_tokens"]>0'
run run tiny --raw --temperature 0 --max-tokens 80 --json --speculation draft --draft tiny tell me a tale of the tides
is_json "run --raw --draft" 0 out 'lines[-1]["accepted_tokens"]>0'
run run tiny --draft foreign hi; is "a draft model with another vocabulary is refused" 1 - 'draft model has 268 tokens, the model 279'
run run tiny --draft nobody hi; is "a draft model that is not there" 1 - 'nobody'
run run tiny --speculation maybe hi; is "speculation has its words" 2 - 'off\|auto\|lookup\|draft'
mkdir -p home/config
run cp tiny twin; is "a copy of the model" 0
echo 'draft_model: twin' >home/config/config.yaml
run run tiny --temperature 0 --max-tokens 80 --json --speculation draft tell me a tale of the tides
is_json "draft_model of the configuration" 0 out 'lines[-1]["accepted_tokens"]>0'
run run tiny --raw --temperature 0 --max-tokens 80 --json --speculation draft tell me a tale of the tides
is_json "also with --raw" 0 out 'lines[-1]["accepted_tokens"]>0'
run run twin --temperature 0 --max-tokens 80 --json --speculation draft tell me a tale of the tides
is_json "which does not guess for itself" 0 out 'lines[-1]["drafted_tokens"]==0'
echo 'draft_model: nobody' >home/config/config.yaml
run run tiny --temperature 0 --max-tokens 8 hi; is "a configured draft model that is not there is left out" 0 '' -
echo 'draft_model: foreign' >home/config/config.yaml
run run tiny --temperature 0 --max-tokens 8 hi; is "a configured draft model that does not fit is left out" 0 '' -
run run tiny --raw --temperature 0 --max-tokens 8 hi; is "also with --raw" 0 '' -
rm home/config/config.yaml
run bench tiny -p 16 -n 40 -r 1 --draft tiny --json; is_json "bench --draft" 0 out 'd[0]["drafted_tokens"]==d[0]["accepted_tokens"]>0'
# guesses of a draft model that is not there
run run tiny --speculation draft hi; is "--speculation draft without one is usage" 2 - '--speculation draft: there is no draft model; name one with --draft MODEL, or draft_model in .*config.yaml'
run run tiny --raw --speculation draft hi; is "with --raw, too" 2 - 'there is no draft model'
run bench tiny -p 16 -n 4 -r 1 --speculation draft; is "and bench" 2 - '--speculation draft: there is no draft model; name one with --draft MODEL'
printf 'sampling: {speculation: draft}\n' >home/config/config.yaml
run run tiny --max-tokens 4 hi; is "the configuration's is a notice" 0 '' '^speculation draft: there is no draft model; name one with --draft MODEL, or draft_model in .*config.yaml'
run run tiny --raw --max-tokens 4 hi; is "with --raw, too" 0 '' '^speculation draft: there is no draft model'
printf 'sampling: {speculation: draft}\ndraft_model: foreign\n' >home/config/config.yaml
run run tiny --max-tokens 4 hi; is "so is one that does not fit" 0 '' '^speculation draft: nothing is guessed; the draft model foreign '
run run tiny --max-tokens 4 --speculation auto hi; is "and nothing for those who don't want it" 0 '' -
rm home/config/config.yaml
run bench tiny -p 16 -n 40 -r 1 --json; is_json "bench guesses nothing unless asked" 0 out 'd[0]["drafted_tokens"]==0'
run rm small; run rm foreign; run rm twin

# -- conversations ----------------------------------------------------------
run chats --json; is_json "chats --json" 0 out 'len(d)==1 and d[0]["messages"]==4 and d[0]["model"]=="tiny" and "tides" in d[0]["title"]'
run search tides; is "search finds" 0 'tides'
run search tides --json; is_json "search --json" 0 out 'd[0]["id"]==1 and d[0]["role"]=="user"'
esc=$(printf '\033')
run search tides --color always; is "search --color always marks the hit" 0 "$esc\\[1m"
run search tides; if grep -q "$esc" out; then fail "no colour in a file"; else pass "no colour in a file"; fi
run search zebra; is "search that finds nothing" 0 - 'Nothing'
for f in md json jsonl html txt; do
    run export 1 --format $f; is "export $f" 0 'tides'
    run export 1 -o chat.$f; is "export to a file" 0 -
done
run export 1 -o chat.md; is "export does not replace a file" 1 - 'chat.md'
run export 1 -o chat.md --force; is "export --force replaces" 0
run import chat.json; is "import json" 0 '^2$'
run import chat.jsonl --json; is "import jsonl" 0 '^\[3\]$'
run export 2 --format txt; cp out two; run export 1 --format txt
if cmp -s out two; then pass "what was exported comes back whole"; else fail "what was exported comes back whole"; fi
printf '{"messages":[' >broken.json
run import broken.json; is "a broken import names file and place" 1 - 'broken.json'
run export 77; is "export of what is not there" 1 - '77'

# -- what a conversation remembers, and what not -----------------------------
run run tiny --save --temperature 0 --max-tokens 2 --stop 'a "b"' --stop c hi; is "run --save again" 0 '' 'conversation 4'
run run tiny --chat 4 --stop z --max-tokens 2 hi; run export 4 --format json
is_json "--stop replaces what is remembered, as it was typed" 0 out 'd["settings"]["stop"]==["z"] and d["messages"][1]["settings"]["stop"]==["a \"b\"","c"]'
run run tiny --raw --chat 4 hi; is "--raw knows no conversation" 2 - '--raw'
mkdir -p home/config
printf 'prompt: translator\n' >home/config/config.yaml
run run tiny --save --temperature 0 --max-tokens 2 hi; run export 5 --format json
is_json "the command line comes before the configured prompt" 0 out 'd["messages"][1]["settings"]["temperature"]==0 and d["messages"][1]["settings"]["top_p"]==0.9'
printf '\nprompt: nowhere\n' >home/config/config.yaml
run run tiny hi; is "a configured prompt that is not there: file and line" 1 - 'config.yaml:2: prompt: .*nowhere'
rm home/config/config.yaml
# a reply whose process died is marked by whatever command comes next
python3 - "$LLMCHAT_HOME/data/chats.db" <<'PY'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("UPDATE message SET state = 'streaming', finish = '', writer = 'gone/1/1' "
           "WHERE id = (SELECT max(id) FROM message WHERE conv = 5)")
db.commit()
PY
run export 5 --format json; is_json "a reply of a dead process" 0 out 'd["messages"][-1]["state"]=="interrupted"'

run run ./tiny.gguf --save --max-tokens 2 by path; is "run --save with a path" 0
run chats; is "a model named by its path is shown by its name" 0 'by path  \[tiny.gguf\]'
head -c 300 /dev/zero | tr '\0' 'y' >much
rc=0; "$LLMCHAT_BIN" run tiny --save --max-tokens 2 <much >out 2>err || rc=$?
rc=0; "$LLMCHAT_BIN" run tiny --chat 7 --max-tokens 2 <much >out 2>err || rc=$?
is "a full context: what to set, and where" 1 - 'context_full to summarise, drop or stream in .*config.yaml'
printf 'context_full: stream\n' >home/config/config.yaml
run run tiny --chat 7 --max-tokens 2 --json and on
is_json "a full context that streams" 0 out 'lines[-1]["dropped_tokens"]>0 and lines[-1]["finish_reason"] in ("stop", "length")'
rc=0; "$LLMCHAT_BIN" run tiny --raw --ctx 128 --max-tokens 2 --json <much >out 2>err || rc=$?
is_json "--raw streams, too" 0 out 'lines[-1]["dropped_tokens"]>0 and lines[-1]["completion_tokens"]==2'
printf 'context_full: drop\n' >home/config/config.yaml
rc=0; "$LLMCHAT_BIN" run tiny --raw --ctx 128 --max-tokens 2 --json <much >out 2>err || rc=$?
is "--raw has nothing to drop" 1 - 'the context 128: .*: set context_full to stream in .*config.yaml, or raise ctx'
printf 'context_full: stream\n' >home/config/config.yaml
rc=0; "$LLMCHAT_BIN" run tiny --raw --ctx 48 --max-tokens 2 --json <much >out 2>err || rc=$?
is "--raw says why it can't stream" 1 - 'a context of 48 tokens is too small to stream in'
rm home/config/config.yaml
run import chat.json --json; is "import --json" 0 '^\[8\]$'
rc=0; sh -c '"$LLMCHAT_BIN" export 1 --format json | "$LLMCHAT_BIN" import /dev/stdin' >out 2>err || rc=$?
is "import from a pipe by its name" 0 '^9$'
rc=0; "$LLMCHAT_BIN" run tiny --max-tokens 2 hi 2>err >&- </dev/null || rc=$?
: >out; is "a closed standard output is an error" 1 - 'standard output'
if [ -e /dev/full ]; then
    rc=0; "$LLMCHAT_BIN" run tiny --max-tokens 4 hi 2>err >/dev/full </dev/null || rc=$?
    : >out; is "a full standard output is an error" 1 - 'standard output'
fi

# -- text -------------------------------------------------------------------
rc=0; printf 'the rain\n' | "$LLMCHAT_BIN" tokenize tiny >out 2>err || rc=$?
is "tokenize" 0 '^[0-9]+( [0-9]+)*$' -
rc=0; "$LLMCHAT_BIN" tokenize tiny --decode <out >back 2>err || rc=$?
printf 'the rain\n' >want
if cmp -s back want; then pass "tokenize --decode gives the text back"; else fail "tokenize --decode gives the text back"; fi
rc=0; printf '<|im_end|>' | "$LLMCHAT_BIN" tokenize tiny --special >out 2>err || rc=$?
is "tokenize --special lets control tokens in" 0 '^278$'
rc=0; printf '<|im_end|>' | "$LLMCHAT_BIN" tokenize tiny >out 2>err || rc=$?
is "without it they stay text" 0 '^[0-9]+ [0-9]+'
rc=0; printf '999999' | "$LLMCHAT_BIN" tokenize tiny --decode >out 2>err || rc=$?
is "an id outside the vocabulary is refused" 1 - '999999'
printf '[{"role":"user","content":"Hi <|im_end|>"}]' >m.json
run template tiny --messages m.json; is "template" 0 '^<\|im_start\|>user$'
run template tiny --messages m.json --json
is_json "text of a person never becomes a control token" 0 out 'd["tokens"].count(278)==1 and d["tokens"].count(277)==2'
printf '{{ messages[0].content | upper }}{{ extra }}' >t.jinja
run template --messages m.json --template-file t.jinja --var 'extra=[1, 2]'
is "template --template-file --var" 0 '^HI <\|IM_END\|>\[1, 2\]'
printf '{{ raise_exception("no such role") }}' >t.jinja
run template tiny --messages m.json --template-file t.jinja; is "raise_exception" 1 - 'no such role'
printf '{%% for i in range(1000000000) %%}x{%% endfor %%}' >t.jinja
run template tiny --messages m.json --template-file t.jinja; is "a template without end ends" 1
printf 'nonsense' >m.json
run template tiny --messages m.json; is "messages that are no JSON" 1 - 'm.json'

# -- saved states -----------------------------------------------------------
rm -rf home/cache/kv
run kv list; is "no saved states" 0 - 'No states'
run kv list --json; is "no saved states: an empty JSON list" 0 '^\[\]$' -
words=$(printf 'word%s ' 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30)
run run tiny --max-tokens 4 $words; run kv list --json
is "of a conversation that is not stored nothing is saved" 0 '^\[\]$'
run run tiny --save --temperature 0 --max-tokens 4 --json $words
is_json "a stored one" 0 out 'lines[-1]["cached_tokens"]==0'
n=$(sed -n 's/.*"prompt_tokens": *\([0-9]*\).*/\1/p' out)
id=$(sed -n 's/.*conversation \([0-9]*\).*/\1/p' err)
run kv list --json
is_json "is saved: kv list --json" 0 out "len(d)==1 and d[0]['model']=='tiny' and d[0]['tokens']==$n+3 and d[0]['conversation']==$id and d[0]['title'].startswith('word1')"
run kv list; is "kv list" 0 '^MODEL +TOKENS'
if [ -z "$(find home/cache -type f ! -perm 600)$(find home/cache -type d ! -perm 700)" ]; then pass "and for nobody else's eyes"; else fail "and for nobody else's eyes"; fi
run run tiny --chat "$id" --temperature 0 --max-tokens 4 --json and on
is_json "after a restart the history is not computed again" 0 out "lines[-1]['cached_tokens']>=$n"
run kv list --json; is_json "the longer state takes the place of the first" 0 out 'len(d)==1'
run run tiny-f32 --save --max-tokens 4 $words
run kv; is "kv alone" 2 - 'missing'
run kv remove; is "kv wants list or prune" 2 - 'list or prune'
run kv prune; is "kv prune alone leaves what is whole, and says how to choose" 0 - '^None is damaged. .*--all'
dir=home/cache/kv
cp "$(find $dir -name '*.kv' | head -n 1)" state
python3 - state $dir <<'PY'
import sys
text = open(sys.argv[1], "rb").read()
def put(name, at):
    bad = bytearray(text)
    bad[at] ^= 4
    open(f"{sys.argv[2]}/{name}-00000000000000ff.kv", "wb").write(bad)
put("0" * 15 + "1", 2)   # where it says what it is
put("0" * 15 + "2", 40)  # in the head's numbers
put("0" * 15 + "3", 7)   # the version
open(f"{sys.argv[2]}/{'0' * 15}4-00000000000000ff.kv", "wb").write(bytes(len(text)))  # after a power failure
PY
run kv list
is "kv list shows what is damaged" 0 '^MODEL' '0001-00000000000000ff.kv: damaged; llmchat kv prune'
is "and in the head" 0 '' '0002-00000000000000ff.kv: damaged'
is "and what is empty" 0 '' '0004-00000000000000ff.kv: damaged'
is "a file of another version is not damaged" 0 '' '0003-00000000000000ff.kv: no state that this version'
run kv prune; is "kv prune removes what is damaged" 0 - '^3 removed, [1-9]'
run kv list --json; is_json "and nothing else" 0 out 'len(d)==2'
if [ -e $dir/0000000000000003-00000000000000ff.kv ]; then pass "nor what another version may use"; else fail "nor what another version may use"; fi
rm $dir/0000000000000003-00000000000000ff.kv
run kv prune --all --model tiny; is "kv prune --all is all" 2 - '--all'
run kv prune --to much; is "kv prune --to nonsense" 2 - 'must be a size'
run kv prune --json; is "kv prune has no --json" 2 - '--json'
run kv list --all; is "kv list chooses nothing" 2 - '--all'
run kv prune --older 1; is "kv prune --older" 0 - '^0 removed'
run kv prune --model tiny; is "kv prune --model" 0 - '^1 removed'
run kv list --json; is_json "leaves the other's" 0 out '[s["model"] for s in d]==["tiny-f32"]'
run kv prune --to 1G; is "kv prune --to what there is room for" 0 - '^0 removed'
printf 'kv_cache: 0\n' >home/config/config.yaml
run run tiny --save --max-tokens 4 $words; run kv list --json; is_json "kv_cache: 0 saves nothing" 0 out 'len(d)==1'
rm home/config/config.yaml
run run tiny --save --max-tokens 4 $words; run kv prune --to 0; is "kv prune --to 0" 0 - '^2 removed'
run cp tiny brief; run rm tiny; run cp brief tiny
run run brief --save --max-tokens 4 $words; run rm brief; run kv list --json
is_json "a model with two names keeps its states" 0 out 'len(d)==1'
run rm tiny; run kv list --json; is_json "they go with the model" 0 out 'len(d)==0'
ln -s /dev/zero home/cache/kv/0000000000000001-0000000000000001.kv
run kv list; is "kv list names what it can't read" 0 - '0000000000000001.kv: no state'
run kv prune --all; is "kv prune --all removes it" 0 - '^1 removed'
run create tiny --from tiny.gguf

# -- eval, bench, doctor ----------------------------------------------------
for i in 1 2 3 4 5 6 7 8; do printf 'The tide comes in and the tide goes out, and it is the moon that pulls it. %s\n' $i; done >page.txt
run eval tiny-f32 --text page.txt --ctx 64 --json; is_json "eval --json" 0 out 'd["perplexity"]>1 and d["tokens"]>0'
run eval tiny-f32 --text page.txt --ctx 64 --save-logits base.kl; is "eval --save-logits" 0
run eval tiny-f32 --text page.txt --ctx 64 --kl-base base.kl --json; is_json "a model against itself: KL 0, top-1 1" 0 out 'abs(d["kl"])<1e-6 and d["top1"]==1'
run eval tiny-f32 --text page.txt --ctx 64 --kv-type bf16 --kl-base base.kl --json; is_json "eval --kv-type bf16 --kl-base" 0 out '0<d["kl"]<1e-3'
run eval tiny-f32 --text page.txt --ctx 64 --kv-type int8 --kl-base base.kl --json; is_json "eval --kv-type int8 --kl-base" 0 out '0<d["kl"]<1e-3'
run eval tiny-f32 --text page.txt --ctx 64 --kv-type fp8 --kl-base base.kl --json; is_json "eval --kv-type fp8 --kl-base" 0 out '0<d["kl"]<1e-2'
run eval tiny-f32 --text page.txt --ctx 64 --kv-type f32 --kl-base base.kl --json; is_json "auto is f32 for weights of f32" 0 out 'abs(d["kl"])<1e-6'
run eval tiny-f32 --text page.txt --kv-type int4; is "eval: a type of KV that there is not" 2 - '--kv-type int4: must be one of auto\|f32\|f16\|bf16\|int8\|fp8'
run run tiny --kv-type fp4 hi; is "run: a type of KV that there is not" 2 - '--kv-type fp4: must be one of auto\|f32\|f16\|bf16\|int8\|fp8'
run --kv-type fp4; is "and the interface" 2 - '--kv-type fp4: must be one of auto\|f32\|f16\|bf16\|int8\|fp8'
echo 'kv_type: int4' >home/config/config.yaml
run run tiny hi; is "and the configuration" 1 - 'config.yaml:1: kv_type: int4 given, auto, f32, f16, bf16, int8 or fp8 wanted'
echo 'kv_type: bf16' >home/config/config.yaml
run run tiny --max-tokens 8 --kv-type int8 hi; is "run --kv-type" 0 '' -
run run tiny --max-tokens 8 --kv-type fp8 hi; is "run --kv-type fp8" 0 '' -
rm home/config/config.yaml
run run tiny --save --max-tokens 3 --json --kv-type fp8 $words
n=$(sed -n 's/.*"prompt_tokens": *\([0-9]*\).*/\1/p' out); id=$(sed -n 's/.*conversation \([0-9]*\).*/\1/p' err)
run run tiny --chat "$id" --max-tokens 3 --json --kv-type fp8 and on; is_json "a state of fp8 is used by fp8" 0 out "lines[-1]['cached_tokens']>=$n>0"
run run tiny --chat "$id" --max-tokens 3 --json --kv-type int8 and on; is_json "and by no other type" 0 out "lines[-1]['cached_tokens']==0"
run run tiny --raw --temperature 0 --max-tokens 40 --json --kv-type int8 --speculation draft --draft tiny tell me a tale of the tides
is_json "a draft model has the same type of KV" 0 out 'lines[-1]["drafted_tokens"]==lines[-1]["accepted_tokens"]>0'
for kind in f32:128 f16:64 bf16:64 int8:40 fp8:32; do # two heads of 16 numbers, and int8's two scales
    run bench tiny -p 16 -n 8 -r 1 --kv-type ${kind%:*} --json
    is_json "bench --kv-type ${kind%:*}" 0 out "d[0]['kv_bytes_per_context_token']==2*2*${kind#*:}"
done
run eval tiny --text missing.txt; is "eval of a missing text" 1 - 'missing.txt'
run bench tiny -p 16 -n 8 -r 1 --json; is_json "bench --json" 0 out 'd[0]["prefill_tok_s"]>0 and d[0]["decode_tok_s"]>0 and d[0]["prompt_tokens"]==16 and all(k in d[0] for k in "model quant device threads batch output_tokens ttft_us bytes_per_token bandwidth_share".split())'
run bench tiny-f32 -p 61 -n 13 -r 1; is "bench of a model with wide KV" 0 '^ +61 +13 +1 '
run bench tiny -p 16,32 -n 4 -n 8 -b 1,3 -r 3 --json
is_json "bench has a row for each combination" 0 out '[(r["prompt_tokens"],r["output_tokens"],r["batch"]) for r in d]==[(p,n,b) for p in (16,32) for n in (4,8) for b in (1,3)]'
is_json "tokens a second times the time are the tokens" 0 out 'all(len(r["prefill_runs_us"])==r["runs"]==3 and abs(r["prefill_tok_s"]*sorted(r["prefill_runs_us"])[1]/1e6/(r["prompt_tokens"]*r["batch"])-1)<1e-6 and abs(r["decode_tok_s"]*sorted(r["decode_runs_us"])[1]/1e6/((r["output_tokens"]-1)*r["batch"])-1)<1e-6 for r in d)'
is_json "spread and percentiles are in order" 0 out 'all(r[k+"_min"]<=r[k]<=r[k+"_max"] and r[k+"_stddev"]>=0 for r in d for k in ("prefill_tok_s","decode_tok_s","ttft_us")) and all(0<r["itl_p50_us"]<=r["itl_p95_us"]<=r["itl_p99_us"] for r in d)'
is_json "gaps between tokens add up to the decode time" 0 out 'all(r["itl_mean_us"]*(r["output_tokens"]-1)<=max(r["decode_runs_us"])*1.000001 for r in d)'
is_json "bytes of a token: weights shared by the batch, and KV of the context" 0 out 'all(abs(r["bytes_per_token"]-r["weight_bytes_per_step"]/r["batch"]-r["kv_bytes_per_context_token"]*(r["prompt_tokens"]+r["output_tokens"]/2))<1 and r["weight_bytes_per_step"]>0 and r["kv_bytes_per_context_token"]==2*2*16*2*2 for r in d)'
# bytes_per_token is a whole number
is_json "the share of the bandwidth is bytes times tokens over it" 0 out 'all(abs(r["bandwidth_share"]*r["bandwidth_bytes_s"]/(r["decode_tok_s"]*r["bytes_per_token"])-1)<=0.5/r["bytes_per_token"]+1e-6 for r in d)'
run bench tiny -p 16,300 -n 8 -b 1,64 -r 2; is "bench as a table" 0 '^ +300 +8 +64 +[0-9.]+ \+-'
if awk 'length($0) > 80 { exit 1 }' out; then pass "which fits 80 columns"; else fail "which fits 80 columns"; fi
run bench tiny -d 0,48 -p 1 -n 8 -b 2 -r 2 --json
is_json "bench at a depth computes only what is new" 0 out '[(r["depth"],r["prompt_tokens"]) for r in d]==[(0,1),(48,1)] and d[1]["bytes_per_token"]-d[0]["bytes_per_token"]==48*d[0]["kv_bytes_per_context_token"]'
run bench tiny -d 48 -p 16 -n 8 -r 1; is "and says so in the table" 0 '^ +16 @ 48 +8 +1 '
run bench tiny -p 16, ; is "a list with a hole is usage" 2 - '--prompt 16,: must be whole numbers'
run bench tiny -p 16,0 -n 8; is "and one with a number too small" 2 - '--prompt 16,0'
run bench tiny -b 257; is "bench: too many sequences" 2 - '--batch 257: must be at most 256'
run bench tiny -p 500 -n 100; is "bench: more than the context" 1 - 'more than the model.s context of 512'
run bench tiny --prompt-len 8; is "bench: --prompt-len alone" 2 - '--prompt-len goes with --num-prompts'
run bench tiny --num-prompts 3 -p 8; is "bench: -p with --num-prompts" 2 - '--prompt doesn.t go together with'
run bench tiny --num-prompts 3 --request-rate fast; is "bench: a rate that is no number" 2 - '--request-rate fast'
run bench tiny --num-prompts 3 --request-rate=-1; is "bench: a negative rate" 2 - '--request-rate -1'
run bench tiny --num-prompts 1000001; is "bench: too many requests" 2 - 'must be at most 1000000'
run bench tiny --num-prompts 10 --prompt-len 16 --output-len 8 --max-concurrency 3 --json
is_json "bench --num-prompts counts requests and tokens" 0 out 'len(d)==1 and d[0]["completed"]==10 and d[0]["failed"]==0 and d[0]["total_input_tokens"]==160 and d[0]["total_output_tokens"]==80 and d[0]["max_concurrency"]==3 and 1<=d[0]["max_concurrent_requests"]<=3'
is_json "rates times the duration are requests and tokens" 0 out 'all(abs(d[0][k]*d[0]["duration"]/n-1)<1e-6 for k,n in (("request_throughput",10),("output_throughput",80),("total_token_throughput",240)))'
is_json "a request is its first token and the gaps after it" 0 out 'abs(d[0]["mean_ttft_ms"]+7*d[0]["mean_tpot_ms"]-d[0]["mean_e2el_ms"])<0.01 and abs(d[0]["mean_itl_ms"]-d[0]["mean_tpot_ms"])<0.01 and all(d[0]["median_"+k]<=d[0]["p99_"+k] for k in ("ttft_ms","tpot_ms","itl_ms"))'
run bench tiny --num-prompts 4 --prompt-len 16 --output-len 1 --request-rate 100; is "bench as vLLM prints it" 0 '^Output token throughput \(tok/s\): +[0-9.]+'
if sed -n 's/ *(.*//; s/: .*//; /^[A-Z]/p' out | tr '\n' ',' | grep -q 'Successful requests,Failed requests,Request rate configured,Benchmark duration,Total input tokens,Total generated tokens,Request throughput,Output token throughput,Peak output token throughput,Peak concurrent requests,Total token throughput,Mean TTFT,Median TTFT,P99 TTFT,Mean TPOT,Median TPOT,P99 TPOT,Mean ITL,Median ITL,P99 ITL,'; then pass "in its order"; else fail "in its order"; fi
rc=0; "$LLMCHAT_BIN" bench tiny -p 8 -n 8,500 -r 300 >out 2>err </dev/null &
i=0; while ! grep -q '^ *8  *8 ' out && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done
kill -INT $!; wait $! || rc=$?; is "an interrupted bench prints what it has" 130 '^ +8 +8 +1 ' 'interrupted'
run doctor; is "doctor" 0 'sound'
run doctor --json; is_json "doctor --json" 0 out 'd["machine"]["processor"]["ok"]'
# -- GPU ------------------------------------------------------------------
run doctor --device cuda; is "doctor --device cuda without a GPU" 1 'BAD  machine +gpu +no GPU: '
if ! grep -q 'gpu load' out; then pass "which has no load"; else fail "which has no load"; fi
mkdir bare; ln -s "$LLMCHAT_BIN" bare/llmchat
rc=0; sh "$here/check_gpu.sh" "$tmp/bare" >out 2>err || rc=$?; is "check-gpu without a GPU" 1 '^BAD  machine +gpu ' 'no GPU can be used here'
run run tiny --device cuda hi; is "run --device cuda without a GPU" 1 - '^llmchat: no GPU: '
run bench tiny -p 4 -n 2 -r 1 --json; is_json "auto without a GPU is the CPU" 0 out 'd[0]["device"]=="cpu" and d[0]["gpus"]==0'
echo 'device: cuda' >home/config/config.yaml
run doctor; is "doctor where the configuration wants a GPU" 1 'BAD  machine +gpu '
rm home/config/config.yaml
run run tiny --gpu-memory-utilization 1.5 hi; is "more than all of a GPU's memory" 2 - 'at most 1'
run run tiny-f32 --tensor-parallel 2 hi; is "two GPUs where there is none: not the CPU" 1 - '^llmchat: a model over 2 GPUs: no GPU: '
run run tiny-f32 --tensor-parallel 2 --device cpu hi; is "GPUs and the CPU" 2 - 'tensor-parallel 2 .*--device cpu'
run run tiny-f32 --tensor-parallel 2 --gpu-layers 0 hi; is "GPUs and no layer there" 2 - 'tensor-parallel 2 .*--gpu-layers 0'
run run tiny-f32 --tensor-parallel 2 --gpu-layers 1 hi; is "GPUs that share, and the CPU has a part" 2 - 'tensor-parallel 2 shares all 2 layers .*--gpu-layers 1;'
printf 'tensor_parallel: 2\ngpu_layers: 1\n' >home/config/config.yaml
run run tiny-f32 hi; is "the same in the configuration" 2 - 'tensor-parallel 2 shares all 2 layers .*--gpu-layers 1;'
run run tiny-f32 --tensor-parallel 1 --device cpu --max-tokens 2 hi; is "the way out" 0 '' -
printf 'tensor_parallel: 2\n' >home/config/config.yaml
run run tiny-f32 --device cpu --max-tokens 2 hi; is "the command line's CPU takes the configuration's GPUs back" 0 '' -
run run tiny-f32 --gpu-layers 0 --max-tokens 2 hi; is "and so do no layers" 0 '' -
printf 'device: cpu\ngpu_layers: 0\n' >home/config/config.yaml
run run tiny-f32 --tensor-parallel 2 hi; is "and the other way round" 1 - '^llmchat: a model over 2 GPUs: no GPU: '
rm home/config/config.yaml
run run tiny-f32 --tensor-parallel 3 hi; is "heads that three GPUs can't share" 1 - '4 heads .*3 GPUs'
run run tiny --tensor-parallel 2 hi; is "scales that two GPUs can't share" 1 - 'layer 0: wo: 64 inputs'
run run tiny --tensor-parallel 0 hi; is "no GPU at all" 2 - 'tensor-parallel 0'
run run tiny --gpu-layers some hi; is "layers that are no number" 2 - 'gpu-layers some: must be auto, or a whole number from 0'
run run tiny --gpu-layers -1 hi; is "fewer than no layers" 2 - 'gpu-layers -1: must be auto'
run run tiny --device cuda --gpu-layers 0 hi; is "a GPU and no layer there" 2 - '^llmchat: --gpu-layers 0 is the CPU alone: .*--device cuda$'
run bench tiny --gpu-layers 3 --device cpu; is "layers for a GPU and the CPU" 2 - '^llmchat: --gpu-layers 3 is for a GPU: .*--device cpu$'
run eval tiny --text page.txt --device cpu --gpu-layers 3; is "eval says so, too" 2 - '--gpu-layers 3 is for a GPU'
run --device cuda --gpu-layers 0; is "and the interface" 2 - '--gpu-layers 0 is the CPU alone'
run run tiny --device cpu --gpu-layers auto --max-tokens 2 hi; is "auto contradicts nothing" 0 '' -
printf 'device: cuda\ngpu_layers: 0\n' >home/config/config.yaml
run run tiny hi; is "a GPU and no layer there in the configuration" 1 - 'config.yaml:2: gpu_layers: 0 is the CPU alone, and device is cuda'
run doctor; is "doctor says so, too" 1 'BAD  config +file +.*config.yaml:2: gpu_layers: 0 is the CPU alone'
for says in "--device cpu" "--device auto" "--gpu-layers 0"; do
    run run tiny $says --max-tokens 2 hi; is "$says decides" 0 '' -
done
run run tiny --device cuda hi; is "and so does --device cuda" 1 - '^llmchat: no GPU: '
printf 'device: cpu\ngpu_layers: 3\n' >home/config/config.yaml
run run tiny hi; is "layers for a GPU and the CPU in the configuration" 1 - 'config.yaml:2: gpu_layers: 3 are for a GPU, and device is cpu'
for says in "--device cpu" "--gpu-layers 0" "--gpu-layers auto"; do
    run run tiny $says --max-tokens 2 hi; is "$says decides" 0 '' -
done
run run tiny --gpu-layers 3 --max-tokens 2 hi; is "as many layers, by hand: auto tries a GPU" 0 '' '^on the CPU: no GPU: '
echo 'gpu_layers: 1.5' >home/config/config.yaml
run run tiny hi; is "layers in the configuration" 1 - 'config.yaml:1: gpu_layers: 1.5: auto, or a whole number'
rm home/config/config.yaml
run run tiny --swap-space lots hi; is "swap space that is no size" 2 - '--swap-space lots: must be a size'
if [ -e "${TEST_CUDA_MODULE:-}" ]; then
    LLMCHAT_CUDA_MODULE=$TEST_CUDA_MODULE
    run doctor --device cuda; is "doctor with a GPU" 0 '^ok   machine +gpu .*(sm_|host shim).* GiB free'
    is "and without NVML" 0 '^ok   machine +gpu load +no NVML: '
    if ! grep -q 'gpu [0-9]' out; then pass "one GPU needs no number"; else fail "one GPU needs no number"; fi
    export LLMCHAT_NVML="${FAKE_NVML_SO:-}" FAKE_NVML=limit
    run doctor; is "doctor with NVML" 0 '^ok   machine +gpu load +20\.0 of 80\.0 GiB in use, 37 % busy \(memory 12 %\), 61 °C, 310 W$'
    run doctor --json; is_json "doctor --json with NVML" 0 out 'd["machine"]["gpu load"]["found"].endswith("61 °C, 310 W")'
    FAKE_NVML=init; run doctor; is "doctor where NVML does not start" 0 '^ok   machine +gpu load +no NVML: Driver Not Loaded$'
    unset FAKE_NVML; LLMCHAT_NVML=none
    run run tiny-f32 --device cpu --raw --temperature 0 --max-tokens 24 tell me a tale; cp out tale
    run run tiny-f32 --device cuda --raw --temperature 0 --max-tokens 24 tell me a tale
    if [ "$rc" = 0 ] && cmp -s out tale; then pass "a GPU says what the CPU says"; else fail "a GPU says what the CPU says"; fi
    run eval tiny-f32 --device cuda --text page.txt --ctx 64 --kv-type fp8 --kl-base base.kl --json
    is_json "eval --device cuda --kv-type fp8" 0 out '0<d["kl"]<1e-2'
    run bench tiny -p 40 -n 6 -b 1,3 -r 1 --json
    is_json "auto with a GPU is the GPU" 0 out 'len(d)==2 and all(r["device"]=="cuda" and r["gpus"]==1 for r in d)'
    is_json "which is no share of the host's bandwidth" 0 out 'all(r["bandwidth_bytes_s"]==r["bandwidth_share"]==0 for r in d)'
    LLMCHAT_SHIM_BYTES=100000000 run bench tiny-f32 --device cuda -p 500 -n 2 -b 256
    is "more sequences than a GPU has room for" 1 - 'cuda has room for [0-9]+ tokens of KV cache beside the model, 256 sequences of 502 take 135168'
    run run tiny --gpu-memory-utilization 0.5 --max-tokens 3 hi; is "a part of a GPU's memory" 0 '' -
    run run tiny --swap-space 50MB --max-tokens 3 hi; is "swap space" 0 '' -
    if grep -q 'KV blocks of .* bytes are swapped' home/state/*log*; then pass "the log says how much"; else fail "the log says how much"; fi
    LLMCHAT_SHIM_BYTES=3000000 run run tiny --device cuda hi; is "a GPU without room" 1 - 'no room|room for'
    LLMCHAT_SHIM_BYTES=3000000 run bench tiny -p 4 -n 2 -r 1 --json
    is_json "auto without room is the CPU" 0 out 'd[0]["device"]=="cpu"'
    is "bench says why" 0 . '^on the CPU: .*room'
    LLMCHAT_SHIM_BYTES=3000000 run eval tiny --text page.txt --ctx 64; is "and so does eval" 0 perplexity '^on the CPU: .*room'
    LLMCHAT_SHIM_BYTES=3000000 run run tiny --max-tokens 3 hi; is "which is said" 0 '' 'on the CPU: .*room'
    LLMCHAT_SHIM_FAIL=open run run tiny --max-tokens 3 hi; is "that a GPU can't be used, too" 0 '' '^on the CPU: the GPU can.t be used: open: '
    LLMCHAT_CUDA_MODULE=page.txt run run tiny --max-tokens 3 hi; is "and that its module can't" 0 '' '^on the CPU: the GPU can.t be used: the CUDA module .*page.txt'
    LLMCHAT_SHIM_FAIL=open run run tiny --device cuda hi; is "which is an error to --device cuda" 1 - '^llmchat: the GPU can.t be used: open: '
    LLMCHAT_CUDA_MODULE=none run run tiny --max-tokens 3 hi; is "no GPU is no news" 0 '' -
    LLMCHAT_SHIM_FAIL=rope_kv run run tiny --device cuda hi; is "a fault of a GPU" 1 - 'rope_kv.*--device cpu'
    rm -rf home/cache/kv
    LLMCHAT_SHIM_FAIL=sample run run tiny --save --device cuda $words; is "a fault behind a prompt" 1 - 'sample.*--device cpu'
    if ls home/cache/kv/* >/dev/null 2>&1; then fail "nothing of a GPU that failed is saved"; else pass "nothing of a GPU that failed is saved"; fi
    LLMCHAT_SHIM_FAIL=rope_kv run run tiny --gpu-layers 1 hi; is "a fault of a GPU that has a part" 1 - 'rope_kv.*--device cpu'
    run run tiny-f32 --gpu-layers 1 --raw --temperature 0 --max-tokens 24 tell me a tale
    if [ "$rc" = 0 ] && [ ! -s err ] && cmp -s out tale; then pass "a split model says what the CPU says"; else fail "a split model says what the CPU says"; fi
    run bench tiny --gpu-layers 1 -p 20 -n 2 -r 1; is "bench of a split model" 0 '^tiny, nf4, cuda, 1 of 2 layers \(host shim\)'
    for layers in 0:cpu:0 1:cuda:1 2:cuda:2 99:cuda:2 auto:cuda:2; do
        run bench tiny --gpu-layers ${layers%%:*} -p 4 -n 2 -r 1 --json
        is_json "--gpu-layers ${layers%%:*}" 0 out "'%s:%d' % (d[0]['device'], d[0]['gpu_layers']) == '${layers#*:}'"
    done
    # A GPU on which nothing works shows whether it is used.
    echo 'gpu_layers: 1' >home/config/config.yaml
    LLMCHAT_SHIM_FAIL=rope_kv run run tiny --max-tokens 3 hi; is "gpu_layers in the configuration" 1 - 'rope_kv'
    LLMCHAT_SHIM_FAIL=rope_kv run run tiny --gpu-layers 0 --max-tokens 3 hi; is "the command line says none" 0 '' -
    echo 'gpu_layers: 0' >home/config/config.yaml
    LLMCHAT_SHIM_FAIL=rope_kv run run tiny --max-tokens 3 hi; is "the configuration says none" 0 '' -
    LLMCHAT_SHIM_FAIL=rope_kv run run tiny --device cuda --max-tokens 3 hi; is "--device cuda says more" 1 - 'rope_kv'
    rm home/config/config.yaml
    rm -rf home/cache/kv
    run run tiny --save --device cuda --temperature 0 --max-tokens 4 --json $words
    n=$(sed -n 's/.*"prompt_tokens": *\([0-9]*\).*/\1/p' out)
    id=$(sed -n 's/.*conversation \([0-9]*\).*/\1/p' err)
    run run tiny --chat "$id" --gpu-layers 1 --temperature 0 --max-tokens 4 --json and on
    is_json "a split model goes on with the state of a whole one" 0 out "lines[-1]['cached_tokens']>=$n"
    n=$(sed -n 's/.*"prompt_tokens": *\([0-9]*\).*/\1/p' out)
    run run tiny --chat "$id" --device cuda --temperature 0 --max-tokens 4 --json and on
    is_json "and the other way round" 0 out "lines[-1]['cached_tokens']>=$n"
    # How much the scratch of a step takes is nobody's business: from what is too little up, auto meets a split.
    "$MKMODEL" six.gguf layers=6 embd=256 ff=1024 && run create six --from six.gguf --quant f32
    bytes=60 split=no
    while [ $bytes -lt 400 ]; do
        LLMCHAT_SHIM_BYTES=${bytes}000000 run run six --raw --temperature 0 --max-tokens 3 tell me
        if grep -q 'of 6 layers' err; then split=yes; break; fi
        bytes=$((bytes + 5))
    done
    is "auto with room for some layers" 0 . '^on the GPU are [1-6] of 6 layers, it has no room for more; the others are on the CPU$'
    [ $split = yes ] || fail "a split was met"
    cp out part; run run six --device cpu --raw --temperature 0 --max-tokens 3 tell me
    if cmp -s out part; then pass "it says what the CPU says"; else fail "it says what the CPU says"; fi
    LLMCHAT_SHIM_BYTES=${bytes}000000 run run six --device cuda --gpu-layers 6 hi; is "more layers by hand than have room" 1 - 'no room for the model.*fewer of its layers'
    # Borders between kernels that are kept for this device are taken; weights as small as these don't make any.
    if [ -e home/state/crossovers ]; then fail "small weights are not measured"; else pass "small weights are not measured"; fi
    LLMCHAT_SHIM_FAIL=unpack run run tiny --device cuda --max-tokens 3 hello there; is "a prompt by the usual kernels" 0
    version=$("$LLMCHAT_BIN" --version)
    for kind in q4 q4-min int8 int8-rows 16-bit; do
        echo "$kind 4 ${version#llmchat } 4 0 0 9.0 host shim"
    done >home/state/crossovers
    LLMCHAT_SHIM_FAIL=unpack run run tiny --device cuda --max-tokens 3 hello there
    is "a prompt by kept borders" 1 - 'unpack.*--device cpu'
    rm home/state/crossovers
    run run tiny-f32 --tensor-parallel 2 hi; is "two GPUs where there is one" 1 - 'over 2 GPUs: GPU 1 is wanted, and there are 1'
    export LLMCHAT_SHIM_DEVICES=2 LLMCHAT_NCCL=none
    run run tiny-f32 --tensor-parallel 2 hi; is "two GPUs without NCCL" 1 - 'NCCL.*none'
    LLMCHAT_NCCL=$TEST_NCCL
    export LLMCHAT_NVML="${FAKE_NVML_SO:-}"
    run doctor; is "doctor with two GPUs: the first" 0 '^ok   machine +gpu load +20\.0 of 80\.0 GiB in use, .* W$'
    is "the second" 0 '^ok   machine +gpu 1 +host shim, host shim, [0-9.]+ of [0-9.]+ GiB free$'
    is "and what it does" 0 '^ok   machine +gpu 1 load +10\.0 of 40\.0 GiB in use, 52 % busy \(memory 12 %\), 31 °C, 120 of 350 W$'
    run doctor --json; is_json "doctor --json with two GPUs" 0 out \
        '[k for k in sorted(d["machine"]) if "gpu" in k] == ["gpu","gpu 1","gpu 1 load","gpu load"] and "31 °C" in d["machine"]["gpu 1 load"]["found"]'
    echo 'tensor_parallel: 3' >home/config/config.yaml
    run doctor; is "doctor where the configuration wants three" 1 '^BAD  machine +gpu 2 +GPU 2 is wanted, and there are 2'
    is "of which two are there" 1 '^ok   machine +gpu 1 '
    run doctor --device cpu; is "or none" 0 '^ok   machine +gpu 1 '
    rm home/config/config.yaml
    LLMCHAT_NVML=none
    run bench tiny-f32 --tensor-parallel 2 -p 4 -n 2 -r 1; is "bench with two GPUs" 0 '^tiny-f32, f32, cuda, 2 GPUs \(host shim\)'
    run bench tiny-f32 --tensor-parallel 2 -p 4 -n 2 -r 1 --json; is_json "and as JSON" 0 out 'd[0]["device"]=="cuda" and d[0]["gpus"]==2'
    for more in "" "--draft tiny-f32 --speculation draft" "--kv-type int8" "--gpu-layers 2"; do
        run run tiny-f32 --tensor-parallel 2 --raw --temperature 0 --max-tokens 24 $more tell me a tale
        if [ "$rc" = 0 ] && cmp -s out tale; then pass "two GPUs say what the CPU says $more"; else fail "two GPUs say what the CPU says $more"; fi
    done
    LLMCHAT_SHIM_FAIL=rope_kv@1 run run tiny-f32 --tensor-parallel 2 hi; is "a fault of one of two" 1 - 'GPU 1: .*rope_kv.*--device cpu'
    echo 'tensor_parallel: 3' >home/config/config.yaml
    run run tiny-f32 hi; is "tensor_parallel in the configuration" 1 - '3 GPUs'
    rm home/config/config.yaml
    unset LLMCHAT_SHIM_DEVICES LLMCHAT_NCCL
    LLMCHAT_CUDA_MODULE=none
else
    echo "skip commands with a GPU: no C++ compiler made the host shim"
fi

LLMCHAT_CPU=abacus run doctor; is "doctor with a wrong LLMCHAT_CPU" 1 'BAD  machine +processor .*abacus'

# -- bad surroundings -------------------------------------------------------
mkdir -p home/config
printf 'sampling:\n  top_q: 3\n' >home/config/config.yaml
run run tiny hi; is "an unknown key names file and line" 1 - 'config.yaml:2'
rm home/config/config.yaml
printf 'this is no database, but a text that is long enough to be looked at by SQLite as a header' >home/data/chats.db
run chats; is "a file that is no database is refused" 1 - 'chats.db'
if grep -q 'this is no database' home/data/chats.db; then pass "and left untouched"; else fail "and left untouched"; fi
TERM=unknown-terminal run doctor; is "commands need no terminal" 1 'BAD  database'
exit $bad
