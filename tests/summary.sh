#!/bin/sh
# summary.sh DIR… - counts what the tests of these builds did, from their logs, and ends with one line:
# N passed, N failed, N skipped. Exits 1 when anything failed.
#
# cmocka prints a line for each test; scripts print "ok", "not ok" and "skip" lines; any other program (fuzz entries) is
# one test. A program whose exit status says that it failed counts as a failure also when its log shows none (a crash).
set -eu
passed=0 failed=0 skipped=0

# count LOG RESULT: adds one program's tests to the sums.
count() {
    log=$1 result=$2
    if grep -q '^\[==========\] Running' "$log"; then
        p=$(grep -c '^\[       OK \]' "$log" || true)
        run=$(grep -c '^\[ RUN      \]' "$log" || true)
        # cmocka 1.1.5 prints a skipped test once while running and once in the list at the end
        s=$(sed -n 's/^\[  SKIPPED \] \([0-9]*\) test.*/\1/p' "$log" | tail -n 1)
        s=${s:-0}
        f=$((run - p - s))
    elif grep -qE '^(ok|not ok|skip) ' "$log"; then
        p=$(grep -c '^ok ' "$log" || true)
        f=$(grep -c '^not ok ' "$log" || true)
        s=$(grep -c '^skip ' "$log" || true)
    else
        p=0 f=0 s=0
        case $result in PASS) p=1 ;; SKIP) s=1 ;; *) f=1 ;; esac
    fi
    case $result in
        PASS|SKIP) ;;
        *) [ "$f" -gt 0 ] || f=1 ;;
    esac
    if [ "$f" -gt 0 ]; then
        echo "--- $log: $f failed"
        grep -aE 'FAILED|not ok|ERROR|runtime error|Error|assert|error:' "$log" | head -n 30 || true
        tail -n 15 "$log"
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

for dir in "$@"; do
    for trs in "$dir"/*.trs "$dir"/tests/*.trs "$dir"/tests/*/*.trs; do
        [ -e "$trs" ] || continue
        result=$(sed -n 's/^:global-test-result: //p' "$trs")
        count "${trs%.trs}.log" "$result"
    done
    if [ -e "$dir/package.log" ]; then
        count "$dir/package.log" "$(grep -q '^end$' "$dir/package.log" && echo PASS || echo FAIL)"
    fi
done
if [ $((passed + failed)) = 0 ]; then
    echo "no test ran"
    failed=1
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
