#!/usr/bin/env bash
# run.sh [OUT]: checks and times the CUDA backend on this machine's first GPU; under 10 minutes. Takes what
# `make gpu-tests` has built (in $BUILD, default build), so that it runs where no compiler is; PyTorch, when python3 has
# it, is the peer, in the same run on the same card. Results go to OUT (a temporary folder without it).
#   1 every op case against the reference, fp32 without TF32 and bf16
#   2 the same under compute-sanitizer, where that is installed
#   3 whole networks against PyTorch
#   4 throughput next to PyTorch's, as a table
set -u
cd "$(dirname "$0")/../.."
build=${BUILD:-build}
out=${1:-$(mktemp -d)}
mkdir -p "$out"
export RFUAV_CUDA_OBJECT=${RFUAV_CUDA_OBJECT:-$PWD/$build/librfuav_cuda.so} RFUAV_CACHE=${RFUAV_CACHE:-$out/cache}
export PYTHONUNBUFFERED=1
models=${MODELS:-resnet18,resnet50} batches=${BATCHES:-1,8,32,128,256} failed=0

if ! nvidia-smi -L; then
    echo "skipped: this machine has no NVIDIA GPU"
    exit 0
fi

step() { # NAME SECONDS COMMAND...
    local name=$1 seconds=$2 begin=$SECONDS
    shift 2
    echo "== $name"
    timeout "$seconds" "$@" >"$out/$name.log" 2>&1 || { echo "   failed: $?"; failed=1; }
    echo "   $((SECONDS - begin)) s"
}

step ops 120 "$build/tests/gpu/ops"
grep -v '^ok' "$out/ops.log"
if [ -z "${QUICK:-}" ] && command -v compute-sanitizer >/dev/null; then
    step memcheck 70 compute-sanitizer --tool memcheck --report-api-errors no --error-exitcode 9 "$build/tests/gpu/ops"
    tail -n 2 "$out/memcheck.log"
    step racecheck 45 compute-sanitizer --tool racecheck --error-exitcode 9 "$build/tests/gpu/ops" build_
    tail -n 2 "$out/racecheck.log"
fi
peer=0
if python3 -c 'import torch, torchvision' 2>/dev/null; then
    peer=1
    step parity 110 python3 tests/gpu/parity.py "$build"
    cat "$out/parity.log"
fi
step bench 170 "$build/tests/gpu/bench" --json --seconds 0.15 --model "$models" --batch "$batches"
grep '^{' "$out/bench.log" >"$out/bench.jsonl"
if [ $peer = 1 ]; then # most important first; what there is no time for is told
    rm -f "$out/peer.jsonl"
    while read -r seconds sizes modes; do
        step "peer-$modes" $((seconds + 30)) python3 tests/gpu/peer.py "$out/peer.jsonl" "$seconds" "$models" "$sizes" \
            "$modes"
        grep -c 'no time' "$out/peer-$modes.log" | grep -v '^0' | sed 's/^/   no time for /'
    done <<<"${PEER_JOBS:-100 8,128,1 graph,bf16,fp32
50 128 compile
40 256,32 graph}"
fi
python3 tests/gpu/table.py "$out/bench.jsonl" "$out/peer.jsonl" | tee "$out/table.md"
echo "results in $out"
exit $failed
