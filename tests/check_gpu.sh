#!/bin/sh
# check_gpu.sh BUILD TEST… - `make check-gpu`: these tests of a build on the GPU of this machine; the first also under
# compute-sanitizer, where it is installed. What they print goes to BUILD/check-gpu, where summary.sh counts it.
set -u
here=$(dirname "$0") build=$1 dir=$1/check-gpu
shift
TEST_CUDA_MODULE=$build/llmchat-cuda.so MKMODEL=$build/mkmodel
export TEST_CUDA_MODULE MKMODEL

# try NAME COMMAND…: leaves log and result as automake's tests do.
try() {
    name=$1
    shift
    "$@" >"$dir/$name.log" 2>&1
    case $? in 0) result=PASS ;; 77) result=SKIP ;; *) result=FAIL ;; esac
    echo ":global-test-result: $result" >"$dir/$name.trs"
    echo "$result: $name"
}

gpu=$(LLMCHAT_CUDA_MODULE=$TEST_CUDA_MODULE "$build/llmchat" doctor --device cuda | grep ' machine  *gpu  ')
echo "$gpu"
case $gpu in
    ok*) ;;
    *) echo "check-gpu: no GPU can be used here" >&2; exit 1 ;;
esac
rm -rf "$dir"
mkdir "$dir" || exit 1
for t in "$@"; do try "$t" "$build/$t"; done
if command -v compute-sanitizer >/dev/null 2>&1; then
    # Each call of ours is checked by itself; what cuBLAS asks for in vain while it starts is no error of ours.
    for tool in memcheck racecheck; do
        try "$tool-$1" compute-sanitizer --tool $tool --report-api-errors no --error-exitcode 9 "$build/$1"
    done
else
    echo "SKIP: compute-sanitizer is not installed"
fi
sh "$here/summary.sh" "$dir"
