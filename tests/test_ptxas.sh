#!/bin/sh
# test_ptxas.sh - what ptxas said of the kernels, on every architecture they are compiled for, against a budget: bytes of
# registers that are spilled, and blocks that fit the registers of a multiprocessor (65,536; a warp takes them in
# eights). A change that costs more than this says so in the table.
set -u
: "${LLMCHAT_BIN:?}"
dir=$(dirname "$LLMCHAT_BIN")/src/engine/cuda
if ! ls "$dir"/*.ptxas >/dev/null 2>&1; then
    echo "skip no nvcc compiled the kernels"
    exit 77
fi
cat "$dir"/*.ptxas | awk '
# kernel, threads of a block, fewest blocks that should fit, most bytes of a kernel that are spilled
BEGIN {
    budget("gemv_kernel", 256, 2, 16)
    budget("gemm_kernel", 256, 1, 0)
    budget("q4gemv_kernel", 512, 1, 0)
    budget("q4gemm_kernel", 512, 1, 96)
    budget("to_pairs_kernel", 512, 2, 0)
    budget("quantise_kernel", 256, 4, 0)
    budget("w8a8_kernel", 256, 1, 0)
    budget("tensor_kernel", 128, 2, 0)
    budget("rope_kv_kernel", 32, 16, 0)
    budget("plain_kernel", 128, 2, 0)
    budget("merge_kernel", 256, 4, 0)
    budget("sample_kernel", 1024, 1, 0)
    budget("norm_kernel", 1024, 1, 0)
    budget("kv_turn_kernel", 128, 8, 0)
    budget("kv_write_kernel", 32, 16, 0)
    budget("unpack_q4_kernel", 256, 5, 0)
    split("act add bias embed permute rope scale scatter select to_16 unpack", rows, " ")
    for (i in rows) budget(rows[i] "_kernel", 256, 8, 0)
}
function budget(name, t, blocks, bytes) { threads[name] = t; least[name] = blocks; most[name] = bytes }
/Compiling entry function/ {
    symbol = $0; sub(/^[^\047]*\047_Z/, "", symbol)
    n = symbol + 0; sub(/^[0-9]+/, "", symbol)
    name = substr(symbol, 1, n)
    arch = $0; sub(/\047$/, "", arch); sub(/.*\047/, "", arch)
    if (!(name in threads)) { print "not ok " name " has a budget"; exit 1 }
}
/bytes spill stores/ {
    spilled = $0; sub(/.*stack frame, /, "", spilled); spilled += 0
    if (spilled > worst_spill[name]) worst_spill[name] = spilled
}
/: Used [0-9]+ registers/ {
    regs = $0; sub(/.*: Used /, "", regs); regs = int((regs + 7) / 8) * 8
    blocks = int(65536 / (regs * threads[name]))
    seen[name]++; archs[arch] = 1
    if (!(name in fit) || blocks < fit[name]) { fit[name] = blocks; where[name] = arch " " regs " registers" }
}
END {
    for (name in threads) {
        if (!(name in seen)) { print "not ok " name ": not compiled"; continue }
        ok = worst_spill[name] + 0 <= most[name] && fit[name] >= least[name]
        print (ok ? "ok " : "not ok ") name ": " worst_spill[name] + 0 " bytes spilled (budget " most[name] "), " \
              fit[name] " blocks of " threads[name] " threads fit (at least " least[name] "; " where[name] ")"
    }
    n = 0; for (a in archs) n++
    print (n == 3 ? "ok " : "not ok ") "three architectures were compiled"
}' | sort >ptxas.out
cat ptxas.out
! grep -q '^not ok' ptxas.out && [ -s ptxas.out ]
