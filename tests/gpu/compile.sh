#!/usr/bin/env bash
# compile.sh OUT.jsonl SECONDS CASE...: PyTorch's torch.compile mode for each CASE (MODEL:KIND:BATCH:SIZE). All of them
# compile at once, one process and one core each, which takes as long as the slowest; then they are timed one by one.
# What has not compiled after SECONDS is timed when it has, or given up with the rest after three times SECONDS. While the file
# COMPILE_HOLD exists nothing is timed: the GPU serves something else.
set -u
out=$(realpath "$1") seconds=$2
shift 2
cd "$(dirname "$0")" || exit
export PEER_LOCK
PEER_LOCK=$(mktemp)
export TORCHINDUCTOR_COMPILE_THREADS=1 OMP_NUM_THREADS=1
begin=$SECONDS
exec 9>>"$PEER_LOCK"
flock 9 # held until they are ready
for case in "$@"; do
    IFS=: read -r model kind batch size <<<"$case"
    benchmark=1
    [[ $model == mobilenet* ]] && benchmark=0
    PEER_BENCHMARK=$benchmark timeout $((3 * seconds)) python3 peer.py "$out" "$seconds" "$model" "$batch" compile \
        "$size" "$kind" 9>&- >"$PEER_LOCK.$case.log" 2>&1 &
done
while ready=$(find "$(dirname "$PEER_LOCK")" -maxdepth 1 -regex "$PEER_LOCK\.[0-9]+" | wc -l) && ((ready < $#)) &&
    ((SECONDS - begin < seconds)); do
    [[ -n $(jobs -rp) ]] || break
    sleep 0.5
done
while [[ -n ${COMPILE_HOLD:-} && -e $COMPILE_HOLD ]]; do sleep 0.2; done
echo "compile: $ready of $# ready after $((SECONDS - begin)) s"
exec 9>&-
wait
for case in "$@"; do
    IFS=: read -r model kind batch size <<<"$case"
    grep -q "\"model\": \"$model\", \"mode\": \"$kind\", \"how\": \"compile\", \"batch\": $batch, \"size\": $size" "$out" ||
        { echo "compile: no result for $case"; tail -n 2 "$PEER_LOCK.$case.log"; }
done
rm -f "$PEER_LOCK"*
echo "compile: took $((SECONDS - begin)) s"
