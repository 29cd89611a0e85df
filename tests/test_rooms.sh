#!/bin/sh
# test_rooms.sh - who may include whom (HACKING.md): base <- engine, store <- chat <- ui, cmd <- main; engine and store
# never meet; other rooms include of the engine only the three headers at its door; ncurses stays in ui, SQLite in store.
set -u
cd "${srcdir:-.}" || exit 1
bad=0

# allowed ROOM 'pattern of rooms it may include'
allowed() {
    wrong=$(grep -rnoE '^#include "[a-z]+/[^"]*"' "src/$1" | grep -vE "\"($2)/" || true)
    if [ -n "$wrong" ]; then
        echo "not ok $1 includes only $2"
        echo "$wrong"
        bad=1
    else
        echo "ok $1 includes only $2"
    fi
}
allowed base 'base'
allowed engine 'base|engine'
allowed store 'base|store'
allowed chat 'base|engine|store|chat'
allowed ui 'base|engine|store|chat|ui'
allowed cmd 'base|engine|store|chat|ui|cmd'

wrong=$(grep -rnE '^#include "engine/' src/chat src/ui src/cmd src/main.c |
    grep -vE '"engine/(engine|models|text)\.h"' || true)
if [ -n "$wrong" ]; then
    echo "not ok other rooms use the engine by its front door"
    echo "$wrong"
    bad=1
else
    echo "ok other rooms use the engine by its front door"
fi

wrong=$(grep -rnE '^#include "store/' src/chat src/ui src/cmd src/main.c | grep -vE '"store/store\.h"' || true)
if [ -n "$wrong" ]; then
    echo "not ok other rooms use the store by its front door"
    echo "$wrong"
    bad=1
else
    echo "ok other rooms use the store by its front door"
fi

wrong=$(grep -rnE '^ *# *include +"([^"/]*|\.[^"]*)"' src || true)
if [ -n "$wrong" ]; then
    echo "not ok every include names its room"
    echo "$wrong"
    bad=1
else
    echo "ok every include names its room"
fi

# only ROOM HEADER: no other room includes HEADER (doctor asks libraries for their versions).
only() {
    wrong=$(grep -rlE "^#include <$2>" src | grep -vE "^src/($1)/|^src/cmd/doctor.c" || true)
    if [ -n "$wrong" ]; then
        echo "not ok $2 is included by $1 alone"
        echo "$wrong"
        bad=1
    else
        echo "ok $2 is included by $1 alone"
    fi
}
only ui 'n?curses(w/n?curses)?\.h'
only store 'sqlite3\.h'
only engine 'pcre2\.h'

# The rule of the last resort: libraries never print and never exit.
wrong=$(grep -rnE '\b(printf|puts|perror|exit)\(' src/engine src/store src/chat --include='*.c' |
    grep -vE '^[^:]*:[0-9]+: *(\*|/\*|//)' | grep -vE 'format\(printf' || true)
if [ -n "$wrong" ]; then
    echo "not ok libraries never print and never exit"
    echo "$wrong"
    bad=1
else
    echo "ok libraries never print and never exit"
fi
exit $bad
