#!/usr/bin/env bash
# run.sh [OUT [PIECE...]]: checks and times the CUDA backend on this machine's first GPU, or checks on the second beside
# the timings on the first; all but `compile` in some 12 minutes on one H100, 8 on two (the sum of its pieces).
# Takes what `make gpu-tests` has built (in $BUILD, default build), so that it runs where no compiler is; PyTorch, when
# python3 has it, is the peer, in the same run on the same card. Results go to OUT (a temporary folder without it); runs
# of single pieces into one OUT add to its table. MODELS, BATCHES, SIZES narrow or widen what is timed of the ResNets,
# FAMILIES what is of the others, at batch 1, 8 and 128.
#   ops        every op case against the reference, fp32 without TF32 and bf16
#   golden     whole networks against the golden values of tests/golden
#   steps      equal weights of deterministic runs, choices that are not there any more, first steps from exec
#   memcheck   the op cases with kernels of our own under compute-sanitizer, where that is installed
#   racecheck  likewise
#   parity     whole networks against PyTorch in double precision
#   jpeg       pictures decoded by the GPU against libjpeg's and Pillow's, byte by byte
#   epochs     whole epochs from a folder of JPEG files, PyTorch's loader beside it
#   bench      throughput of ours
#   peer       throughput of PyTorch's modes but for torch.compile, the most important first
#   compile    torch.compile's, only when named: minutes of all cores
#   table      all of it as a Markdown table
set -u
cd "$(dirname "$0")/../.." || exit
build=${BUILD:-build}
out=${1:-$(mktemp -d)}
shift
mkdir -p "$out"
export RFUAV_CUDA_OBJECT=${RFUAV_CUDA_OBJECT:-$PWD/$build/librfuav_cuda.so} RFUAV_CACHE=${RFUAV_CACHE:-$out/cache}
export PYTHONUNBUFFERED=1
export MODELS=${MODELS:-resnet18,resnet50} BATCHES=${BATCHES:-1,8,32,128,256} SIZES=${SIZES:-224}
export FAMILIES=${FAMILIES-mobilenet_v3_large,mobilenet_v3_small,vit_b_16,vit_l_16,swin_v2_t,swin_v2_b}
failed=0

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

has() { # WHAT COMMAND...: says what is missing
    local what=$1
    shift
    "$@" >/dev/null 2>&1 && return
    echo "== skipped: there is no $what"
    return 1
}
sanitizer() { has compute-sanitizer command -v compute-sanitizer; }
torch() { has 'PyTorch with torchvision' python3 -c 'import torch, torchvision'; }

piece_ops() {
    step ops 60 "$build/tests/gpu/ops"
    grep -v '^ok' "$out/ops.log"
}
piece_golden() {
    step golden 90 "$build/tests/gpu/golden"
    cat "$out/golden.log"
}
piece_steps() {
    step steps 110 python3 tests/gpu/steps.py "$build"
    cat "$out/steps.log"
}
sanitize() { # TOOL SECONDS OPTION...: the op cases that have kernels of our own, four groups of them at a time
    local begin=$SECONDS
    sanitizer || return
    echo "== $1"
    printf '%s\n' attention layer_norm transformer build_mlp patches token position squeeze build_b groups ADAM |
        OUT=$out OPS=$build/tests/gpu/ops OMP_NUM_THREADS=2 xargs -P 4 -I GROUP bash -c '
            log=$OUT/$2-$1.log
            timeout "$3" compute-sanitizer --tool "$2" "${@:4}" --error-exitcode 9 "$OPS" "$1" >"$log" 2>&1
            echo "   $1: exit status $?, $(grep SUMMARY "$log" | tail -n 1)"' _ GROUP "$@" | tee "$out/$1.log"
    ! grep -qv 'exit status 0' "$out/$1.log" || failed=1
    echo "   $((SECONDS - begin)) s"
}
piece_memcheck() { sanitize memcheck 60 --report-api-errors no; }
piece_racecheck() { sanitize racecheck 90; }
piece_parity() {
    torch || return
    step parity 110 python3 tests/gpu/parity.py "$build"
    cat "$out/parity.log"
}
libraries() { # PROGRAM: those of picture formats, which a bare server may lack
    ! ldd "$1" | grep 'not found' || { echo "== skipped: libraries of $1 are missing"; return 1; }
}
piece_jpeg() {
    libraries "$build/tests/gpu/jpeg" || return
    step jpeg 60 "$build/tests/gpu/jpeg"
    cat "$out/jpeg.log"
}
piece_epochs() {
    libraries "$build/tests/gpu/epochs" && torch || return
    step epochs 90 python3 tests/bench/epochs.py --device cuda --driver "$build/tests/gpu/epochs" --precision bf16 \
        --images 768 --batch 8,32,128 --json "$out/epochs.json"
    cat "$out/epochs.log"
}
bench() { # NAME OPTION...
    local name=$1
    shift
    step "bench-$name" 100 "$build/tests/gpu/bench" --json "$@"
    grep -h '^{' "$out/bench-$name.log" >>"$out/bench.jsonl"
}
piece_bench() {
    for size in ${SIZES//,/ }; do
        bench "$size" --seconds 0.1 --model "$MODELS" --batch "$BATCHES" --size "$size"
    done
    [ -z "$FAMILIES" ] || bench families --seconds 0.06 --model "$FAMILIES" --batch 8,128,1 --precision bf16
}
peer() { # SECONDS MODELS BATCHES MODES [SIZES [KINDS]]: what there is no time for is told
    step "peer-$2-$4" $(($1 + 40)) python3 tests/gpu/peer.py "$out/peer.jsonl" "$@"
    grep -c 'no time' "$out/peer-$2-$4.log" | grep -v '^0' | sed 's/^/   no time for /'
}
piece_peer() {
    torch || return
    peer 50 "$MODELS" "$BATCHES" graph "$SIZES"
    peer 30 "$MODELS" "$BATCHES" bf16,fp32 "$SIZES"
    [ -n "$FAMILIES" ] || return 0
    PEER_BENCHMARK=0 peer 40 "$FAMILIES" 8,128 graph
    PEER_BENCHMARK=0 peer 10 "$FAMILIES" 1 graph 224 infer
}
compile_cases() {
    local model case size
    for model in ${MODELS//,/ } ${FAMILIES//,/ }; do
        for case in train:8 train:128 infer:1 infer:128; do echo "$model:$case:224"; done
    done
    for size in ${SIZES//,/ }; do
        [ "$size" = 224 ] || for model in ${MODELS//,/ }; do echo "$model:train:8:$size"; done
    done
}
piece_compile() {
    torch || return
    # shellcheck disable=SC2046
    step compile 400 tests/gpu/compile.sh "$out/peer.jsonl" 240 $(compile_cases)
    cat "$out/compile.log"
}
piece_table() {
    python3 tests/gpu/table.py "$out"/*.jsonl | tee "$out/table.md"
}

checks="ops golden memcheck racecheck parity jpeg steps epochs"
timings="bench peer table"
other=
if [ $# -gt 0 ]; then
    pieces=$*
elif [ "$(nvidia-smi -L | wc -l)" -lt 2 ]; then
    pieces="$checks $timings"
else # the checks on the second GPU, timings on the first
    pieces=$timings
    # shellcheck disable=SC2086
    CUDA_VISIBLE_DEVICES=1 tests/gpu/run.sh "$out/checks" $checks >"$out/checks.log" 2>&1 &
    other=$!
    export CUDA_VISIBLE_DEVICES=0
fi
for piece in $pieces; do
    "piece_$piece" || failed=1
done
if [ -n "$other" ]; then
    wait "$other" || failed=1
    cat "$out/checks.log"
fi
echo "results in $out"
exit $failed
