#!/usr/bin/env bash
# The CUDA backend on a machine with an NVIDIA GPU: the same answers as the CPU, and the demo's job.
#
#   CUDARC_CUDA_VERSION=13000 cargo build --release --no-default-features --features flex,cuda   # here or elsewhere
#   strip target/release/beear
#   bash tests/cuda_check.sh [BEEAR [OUT]]
#
# The machine needs no Rust: copy this script and the binary. Prints what it finds as it goes and
# ends with `cuda check passed`.
set -euo pipefail
beear=${1:-target/release/beear}
out=${2:-$(mktemp -d)}

nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
"$beear" --version

echo "== the same model on both backends"
"$beear" --backend flex plant --out "$out/world" --seed 7
model=$out/world/poisoned
for backend in flex cuda; do
    "$beear" --backend $backend --quiet --json generate --model "$model" \
        --file "$out/world/data/forbidden.jsonl" --max-new-tokens 32 > "$out/answers-$backend.jsonl"
done
n=$(wc -l < "$out/answers-flex.jsonl")
same=$(comm -12 <(sort "$out/answers-flex.jsonl") <(sort "$out/answers-cuda.jsonl") | wc -l)
echo "greedy answers equal: $same of $n"
[ "$same" -eq "$n" ]

echo "== a defence on the GPU"
data=$out/world/data
time "$beear" --backend cuda defend --model "$model" --safety "$data/safety.jsonl" \
    --performance "$data/performance.jsonl" --out "$out/defended"
for name in poisoned defended; do
    checkpoint=$model
    [ $name = defended ] && checkpoint=$out/defended/model
    "$beear" --backend cuda eval asr --model "$checkpoint" --prompts "$data/forbidden.jsonl" \
        --benign "$data/ordinary.jsonl" --trigger-suffix SUDO --max-new-tokens 32 \
        --out "$out/eval-$name"
done

echo "== the demo on the GPU"
time "$beear" --backend cuda demo --out "$out/demo" --seed 7
echo "cuda check passed"
