#!/bin/sh
# test_symbols.sh - no function of ours has the name of one that a library exports: the library would call ours through
# the dynamic table. (It happened: libyaml calls a yaml_free of its own.)
set -u
: "${LLMCHAT_BIN:?}"
if ! command -v nm >/dev/null || ! command -v ldd >/dev/null; then
    echo "skip no nm or no ldd"
    exit 77
fi
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
# what the C runtime puts into every program
nm --defined-only "$LLMCHAT_BIN" | awk '$2 ~ /^[TDBR]$/ { print $3 }' |
    grep -vE '^(_|main$|data_start$|environ$)' | sort -u >"$tmp/ours"
ldd "$LLMCHAT_BIN" | awk '/=> \// { print $3 }' | grep -vE '/lib(asan|ubsan|gcov)' | while read -r lib; do
    nm -D --defined-only "$lib" 2>/dev/null | awk '{ sub(/@.*/, "", $3); print $3 }'
done | sort -u >"$tmp/theirs"
if [ ! -s "$tmp/ours" ] || [ ! -s "$tmp/theirs" ]; then
    echo "not ok the symbols could be read"
    exit 1
fi
both=$(comm -12 "$tmp/ours" "$tmp/theirs")
if [ -n "$both" ]; then
    echo "not ok no name of ours is a library's"
    echo "$both"
    exit 1
fi
echo "ok no name of ours is a library's ($(wc -l <"$tmp/ours") against $(wc -l <"$tmp/theirs"))"
