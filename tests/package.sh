#!/bin/sh
# package.sh BUILD - what a packager does: install into a folder, run from there, uninstall, build from the archive.
set -u
build=$(cd "$1" && pwd)
dest=$(mktemp -d)
trap 'rm -rf "$dest"' EXIT

# t WHAT COMMAND…: one test.
t() {
    what=$1
    shift
    if "$@" >"$dest/out" 2>&1; then echo "ok $what"; else echo "not ok $what"; cat "$dest/out"; fi
}
there() {
    for f in "$@"; do [ -s "$dest/root/usr/local/$f" ] || { echo "missing: $f"; return 1; }; done
}
nothing_left() {
    [ -z "$(find "$dest/root" -type f)" ] || { find "$dest/root" -type f; return 1; }
}

t "make install takes DESTDIR" make -C "$build" install DESTDIR="$dest/root"
t "program, pages, prompts and completions are installed" there bin/llmchat \
    share/man/man1/llmchat.1 share/man/man5/llmchat.yaml.5 share/llmchat/prompts/assistant.yaml \
    share/bash-completion/completions/llmchat
t "the installed program runs" "$dest/root/usr/local/bin/llmchat" --version
t "make uninstall leaves no file" make -C "$build" uninstall DESTDIR="$dest/root"
t "nothing is left" nothing_left
t "make distcheck builds, installs and cleans from the archive" make -C "$build" distcheck \
    TESTS= DISTCHECK_CONFIGURE_FLAGS=--enable-werror
rm -f "$build"/llmchat-*.tar.xz
echo end
