#!/bin/sh
# check_gpu.sh BUILD TEST… - `make check-gpu`: these tests of a build on the GPU of this machine; the first also under
# compute-sanitizer, where it is installed. Ends with N passed, N skipped, N failed.
set -u
build=$1
shift
TEST_CUDA_MODULE=$build/llmchat-cuda.so
MKMODEL=$build/mkmodel
export TEST_CUDA_MODULE MKMODEL
passed=0 skipped=0 failed=0
try() {
    "$@"
    case $? in
    0) passed=$((passed + 1)) ;;
    77) skipped=$((skipped + 1)) ;;
    *) failed=$((failed + 1)) ;;
    esac
}
if ! LLMCHAT_CUDA_MODULE=$TEST_CUDA_MODULE "$build/llmchat" doctor --device cuda | grep '^ok .* gpu '; then
    echo "check-gpu: no GPU can be used here" >&2
    exit 1
fi
for t in "$@"; do try "$build/$t"; done
if command -v compute-sanitizer >/dev/null 2>&1; then
    for tool in memcheck racecheck; do
        try compute-sanitizer --tool $tool --error-exitcode 9 "$build/$1"
    done
else
    echo "compute-sanitizer is not installed: skipped"
fi
echo "$passed passed, $skipped skipped, $failed failed"
[ "$failed" = 0 ]
