#!/bin/sh
# check_gpu.sh BUILD TEST… - `make check-gpu`: these tests of a build on the GPU of this machine; the first also under
# compute-sanitizer, where it is installed. Ends with N passed, N failed.
set -u
build=$1
shift
TEST_CUDA_MODULE=$build/llmchat-cuda.so
export TEST_CUDA_MODULE
passed=0 failed=0
try() {
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}
if ! LLMCHAT_CUDA_MODULE=$TEST_CUDA_MODULE "$build/llmchat" doctor --device cuda | grep ' gpu '; then
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
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
