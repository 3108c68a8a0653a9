#!/bin/bash
# Runs in the folder that travels: run.sh check | train [further options of flows.training.leg]; results go to $OUT.
set -o pipefail
here=$(cd "$(dirname "$0")" && pwd)
mode=${1:?check or train}; shift
out=${OUT:-$here/out}
export PYTHONPATH="$here/code" PYTHONUNBUFFERED=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True TORCHINDUCTOR_COMPILE_THREADS=${TORCHINDUCTOR_COMPILE_THREADS:-14}
cd "$here" || exit 1
common=(--device "${DEVICE:-cuda}" --pack "$here/pack.npz" --codec "$here/codec.safetensors" --out "$out" --cache "$here/compile_cache.bin")
case $mode in
check) exec "${PYTHON:-python3}" -m flows.training.leg "${common[@]}" --check --minutes "${MINUTES:-1.9}" --reserve-s 25 --pool 4096 --thin 4 --log-s 5 "$@" ;;
train) exec "${PYTHON:-python3}" -m flows.training.leg "${common[@]}" --minutes "${MINUTES:-9}" "$@" ;;
*) echo "check or train, not $mode" >&2; exit 2 ;;
esac
