#!/usr/bin/env bash
# The calibration of docs/scan.md: small models of known state, scanned. About a minute a model on one core; two
# processes take half of the seeds each. Goes on where it was cut off.
set -euo pipefail
out=${1:-runs/calibration}
half() {
    for k in $(seq "$1" 2 19); do model $((1 + k % 5)) "$k" "$1"; done
    for k in $(seq "$1" 2 19); do model 8 "$k" "$1"; done
    for k in $(seq "$1" 2 19); do model $((6 + k / 2 % 2)) "$k" "$1"; done
}
model() {
    RAYON_NUM_THREADS=1 beear calibrate --quiet --setting "model-$1" --seed $((300 + $2)) --seeds 1 --out "$out/$3" >/dev/null
}
half 0 &
half 1
wait
cat "$out/0/models.jsonl" "$out/1/models.jsonl" >"$out/models.jsonl"
beear calibrate --setting model-1 --seeds 0 --out "$out/0" --also "$out/1/models.jsonl"
