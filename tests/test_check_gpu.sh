#!/bin/sh
# test_check_gpu.sh - that check_gpu.sh fails where no GPU is, a test fails or nothing ran, over a build of stand-ins.
set -u
script=$(cd "${srcdir:-.}" && pwd)/tests/check_gpu.sh
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1
bad=0

# made NAME LINE…: a program of these lines
made() {
    name=$1
    shift
    printf '%s\n' '#!/bin/sh' "$@" >"$name"
    chmod +x "$name"
}
# is WHAT RC LAST-LINE: of check_gpu.sh over the stand-ins
is() {
    rc=0
    PATH=$tmp/bin:$PATH sh "$script" "$tmp" test_a test_b >out 2>&1 || rc=$?
    if [ "$rc" = "$2" ] && tail -n 1 out | grep -qx "$3"; then
        echo "ok $1"
    else
        echo "not ok $1 (exit $rc)"
        sed 's/^/   /' out
        bad=1
    fi
}
mkdir bin
made mkmodel
made bin/compute-sanitizer 'echo "$*" >>asked' 'for last; do :; done' '"$last"'
for t in test_a test_b; do made $t '[ -x "$MKMODEL" ] && [ "${TEST_CUDA_MODULE##*/}" = llmchat-cuda.so ]'; done

made llmchat 'echo "BAD  machine    gpu          no GPU: no driver"' 'exit 1'
is "no GPU is a failure" 1 'check-gpu: no GPU can be used here'
made llmchat 'echo "BAD  database   chats        broken"' 'echo "ok   machine    gpu          A card, sm_90"' 'exit 1'
is "tests run on a GPU, whatever else is wrong" 0 '4 passed, 0 failed, 0 skipped'
if grep -q -- '--tool memcheck .*test_a$' asked && grep -q -- '--tool racecheck .*test_a$' asked; then
    echo "ok the first runs under compute-sanitizer"
else
    echo "not ok the first runs under compute-sanitizer"
    bad=1
fi
made bin/compute-sanitizer 'exit 9'
is "what compute-sanitizer finds is a failure" 1 '2 passed, 2 failed, 0 skipped'
made bin/compute-sanitizer
made test_b 'exit 77'
is "what was skipped is counted" 0 '3 passed, 0 failed, 1 skipped'
made test_b 'kill -SEGV $$'
is "a crash is a failure" 1 '3 passed, 1 failed, 0 skipped'
exit $bad
