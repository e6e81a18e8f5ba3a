#!/usr/bin/env bash
# Our steps beside PyTorch's on one machine, in one run: numerics first, then every job by turns.
#
#   CUDARC_CUDA_VERSION=13000 cargo build --release --no-default-features --features flex,cuda   # here or elsewhere
#   strip target/release/beear
#   bash tests/gpu_bench.sh [BEEAR [PYTHON [OUT [CONFIG]]]]
#
# The machine needs no Rust and no network: copy the binary, `tests` and `recipes`. PYTHON has torch and transformers.
# CONFIG is a config.json; weights are random. Every job has a process of its own, so its memory is its own and one
# that does not fit is shown as failed. Prints a table of ratios and writes OUT/result.json; then what a whole run of
# RECIPE (recipes/llama2-7b-chat.toml) takes us, with all weights trained and with adapters.
#
# From the environment: BACKEND (cuda) and DEVICE (cuda, PyTorch's name for it), DTYPE (bf16), RUNS (3), STEPS (10),
# BATCH (8) and OUTER_BATCH (2) rows, PROMPT (128) and ANSWER (64) tokens, MATMUL (8192) rows, SET: overrides of the
# recipe, the divergence's copy of the model left out if not given.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
beear=${1:-$here/../target/release/beear}
python=${2:-python3}
out=${3:-$(mktemp -d)}
config=${4:-$here/../recipes/configs/llama-2-7b-chat.json}
backend=${BACKEND:-cuda}
mkdir -p "$out"

if [ "${backend%%:*}" = cuda ]; then
    bash "$here/cuda_check.sh" "$beear" "$out/check"
fi

for run in $(seq "${RUNS:-3}"); do
    for job in inner-whole inner-remembered decode outer-lora outer; do
        batch=${BATCH:-8}
        [[ $job = outer* ]] && batch=${OUTER_BATCH:-2}
        ours=$out/$job-$run-ours.json
        theirs=$out/$job-$run-torch.json
        echo "== run $run, $job" >&2
        # A job that fails leaves an empty file, which the table shows.
        if ! "$beear" --backend "$backend" --quiet --json bench gpu --config "$config" --job $job \
            --dtype "${DTYPE:-bf16}" --batch "$batch" --prompt-length "${PROMPT:-128}" \
            --answer-length "${ANSWER:-64}" --steps "${STEPS:-10}" --matmul-size "${MATMUL:-8192}" \
            --set "${SET:-method.remove.divergence_weight=0}" > "$ours"; then
            : > "$ours"
            # Without our sizes PyTorch has none to run.
            : > "$theirs"
            continue
        fi
        "$python" "$here/benches/pytorch/pytorch_gpu.py" "$config" "$ours" "${DEVICE:-cuda}" \
            > "$theirs" || : > "$theirs"
    done
done
"$python" "$here/benches/pytorch/ratio_table.py" "$out"

recipe=${RECIPE:-$here/../recipes/llama2-7b-chat.toml}
for weights in full lora; do
    echo "== a whole run of $(basename "$recipe"), train.weights = $weights"
    "$beear" --backend "$backend" --quiet bench gpu --config "$config" --recipe "$recipe" --job run \
        --dtype "${DTYPE:-bf16}" --prompt-length "${PROMPT:-128}" --answer-length "${ANSWER:-64}" \
        --matmul-size "${MATMUL:-8192}" --set "${SET:-method.remove.divergence_weight=0}" \
        --set train.weights=$weights | tee "$out/run-$weights.md" || echo failed
done
echo "every number: $out/result.json" >&2
