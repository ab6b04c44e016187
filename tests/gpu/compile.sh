#!/usr/bin/env bash
# compile.sh OUT.jsonl SECONDS CASE...: PyTorch's torch.compile mode for each CASE (MODEL:KIND:BATCH:SIZE). All of them
# compile at once, one process and one core each, which takes as long as the slowest; then they are timed one by one.
# What has not compiled after SECONDS is given up.
set -u
out=$(realpath "$1") seconds=$2
shift 2
cd "$(dirname "$0")" || exit
export PEER_LOCK
PEER_LOCK=$(mktemp)
export TORCHINDUCTOR_COMPILE_THREADS=${TORCHINDUCTOR_COMPILE_THREADS:-1} OMP_NUM_THREADS=1
begin=$SECONDS
declare -A case_of
trap 'kill "${!case_of[@]}" 2>/dev/null; rm -f "$PEER_LOCK"*' EXIT
trap exit TERM INT
exec 9>>"$PEER_LOCK"
flock 9 # held until they are ready
for case in "$@"; do
    IFS=: read -r model kind batch size <<<"$case"
    benchmark=1
    [[ $model == mobilenet* ]] && benchmark=0
    PEER_BENCHMARK=$benchmark python3 peer.py "$out" "$seconds" "$model" "$batch" compile "$size" "$kind" 9>&- \
        >"$PEER_LOCK.$case.log" 2>&1 &
    case_of[$!]=$case
done

working() { # those that compile
    local pid
    for pid in "${!case_of[@]}"; do
        [[ ! -e $PEER_LOCK.$pid ]] && kill -0 "$pid" 2>/dev/null && echo "$pid"
    done
}
while [[ -n $(working) ]] && ((SECONDS - begin < seconds)); do sleep 0.5; done
for pid in $(working); do
    echo "compile: ${case_of[$pid]} did not end within $seconds s"
    kill "$pid"
done
echo "compile: timed after $((SECONDS - begin)) s"
exec 9>&-
for pid in "${!case_of[@]}"; do
    wait "$pid" || { echo "compile: no result for ${case_of[$pid]}"; tail -n 1 "$PEER_LOCK.${case_of[$pid]}.log"; }
done
echo "compile: took $((SECONDS - begin)) s"
