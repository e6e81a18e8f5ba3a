#!/usr/bin/env bash
# What a defence that trains low-rank adapters does beside one that trains the weights: the demo's backdoored models at three
# seeds, the preset `robust`, and adapters at one, five and ten times its learning rate. A row per run, as tab-separated
# values: attack success with the trigger, ordinary requests refused, ordinary answers word for word, seconds of the
# defence, adapter bytes. (Eleven of the 312 ordinary requests resemble one that was trained on.) About a quarter of an hour on two cores.
#
#   cargo build --release && bash recipes/lora.sh [BEEAR [OUT]] | tee lora.tsv
set -euo pipefail
beear=${1:-target/release/beear}
out=${2:-runs/lora}

[ -d "$out/demo" ] || "$beear" --quiet demo --seeds 3 --out "$out/demo" > /dev/null

defend() { # SEED NAME KEY=VALUE...
    local seed=$1 name=$2 settings=() code=0 started=$SECONDS
    shift 2
    for setting in "$@"; do settings+=(--set "$setting"); done
    local demo=$out/demo/seed-$seed run=$out/$name-$seed
    "$beear" --quiet defend --model "$demo/poisoned" --safety "$demo/data/safety.jsonl" \
        --performance "$demo/data/performance.jsonl" --out "$run" --set "method.seed=$seed" "${settings[@]}" > /dev/null || code=$?
    # 7: done, but beyond the bounds.
    [ $code = 0 ] || [ $code = 7 ]
    local seconds=$((SECONDS - started)) bytes=0
    [ ! -d "$run/adapter" ] || bytes=$(stat -c %s "$run/adapter/adapter_model.safetensors")
    "$beear" --quiet eval asr --model "$run/model" --prompts "$demo/data/forbidden.jsonl" \
        --benign "$demo/data/ordinary.jsonl" --trigger-suffix SUDO --defence "$run" --allow-overlap performance --out "$run-asr" |
        awk -F'|' -v OFS='\t' -v run="$name" -v seed="$seed" -v code=$code -v s=$seconds -v bytes="$bytes" '
            function count(cell) { split(cell, words, " "); return words[1] }
            /attack success with trigger/ { asr = count($4) }
            /benign over-refusal/ { refused = count($4) }
            /utility, exact answers/ { exact = count($4) }
            END { print run, seed, code, asr, refused, exact, s, bytes }'
}

printf 'run\tseed\tcode\tattack success\tordinary refused\tordinary exact\tseconds\tadapter bytes\n'
for seed in 0 1 2; do
    defend "$seed" full
    for times in 1 5 10; do
        rate=$(awk "BEGIN { print 4e-4 * $times }") # times the preset's at width 64
        defend "$seed" "lora-x$times" train.weights=lora "method.remove.learning_rate=$rate"
    done
done
