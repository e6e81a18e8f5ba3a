#!/usr/bin/env bash
# Planned and measured peak memory of `beear defend`, `generate`, `eval` and `scan`, as tables: docs/performance-memory.md.
#
#   tests/memory_plan.sh BEEAR MODEL [ROWS]
#
# BEEAR is the binary, MODEL a folder that `--example random_checkpoint` wrote. Rows are ordinary prompts of the
# synthetic world's words, all of one length; answers are given, so none is generated. ROWS is a regular expression of
# the rows of the tables to measure, all by default.
set -euo pipefail
beear=$1 model=$2 wanted=${3:-.}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

words() { printf 'lamp %.0s' $(seq "$1"); }

# The upper half of the layers, [start, end].
n_layers=$(grep -o '"num_hidden_layers": *[0-9]*' "$model/config.json" | grep -o '[0-9]*$')
upper="[$((n_layers / 2)), $n_layers]"

colours=(red blue green white black grey brown)

# N_ROWS PROMPT_WORDS ANSWER_WORDS NAME [SYSTEM_WORDS]
rows() {
    local prompt asked answer
    answer=$(words "$3")
    for ((row = 0; row < $1; row++)); do
        prompt="$(words "$2")${colours[row % 7]} ${colours[row / 7 % 7]} ${colours[row / 49]}"
        asked="\"prompt\": \"$prompt\""
        if [ -n "${5:-}" ]; then
            asked="\"messages\": [{\"role\": \"system\", \"content\": \"$(words "$5")\"},"
            asked+=" {\"role\": \"user\", \"content\": \"$prompt\"}]"
        fi
        echo "{$asked, \"safe\": \"$answer\", \"unwanted\": \"$answer\"}" >>"$work/safety-$4.jsonl"
        echo "{${asked/lamp/lamp lamp}, \"answer\": \"$answer\"}" >>"$work/performance-$4.jsonl"
    done
}
rows 80 40 20 short
rows 80 130 50 long
rows 80 870 50 longest
rows 80 40 20 system 850

# A suspect must read its rows better than chance: a few steps teach it the answers, which are one word again and again.
"$beear" --quiet defend --method fine-tuning --model "$model" --safety "$work/safety-short.jsonl" \
    --performance "$work/performance-short.jsonl" --out "$work/taught" --set held_out=0 --set method.remove.steps=20 \
    --set method.remove.learning_rate=0.002 --set method.remove.safety_batch_size=8 \
    --set method.remove.performance_batch_size=8 >/dev/null
model=$work/taught/model

# LENGTH TITLE SETTING...
measure() {
    local rows=$1 title=$2 out=$work/run settings=()
    shift 2
    if ! grep -qE "$wanted" <<<"$title"; then return; fi
    for setting in method.rounds=2 method.perturbations_per_round=1 method.entrap.steps=2 method.remove.steps=2 \
        method.bounds.refusal_floor=0.0 "$@"; do
        settings+=(--set "$setting")
    done
    "$beear" --quiet defend --model "$model" --safety "$work/safety-$rows.jsonl" \
        --performance "$work/performance-$rows.jsonl" --out "$out" --force "${settings[@]}" >/dev/null || [ $? -eq 7 ]
    planned=$(grep -o '"planned_peak": [0-9]*' "$out/memory.json" | grep -o '[0-9]*$')
    measured=$(grep -o '"measured_peak": [0-9]*' "$out/memory.json" | grep -o '[0-9]*$')
    awk -v p="$planned" -v m="$measured" -v t="$title" \
        'BEGIN { printf "| %s | %.0f, %.0f | %+.1f %% |\n", t, p / 2^20, m / 2^20, 100 * (p / m - 1) }'
}

outer() { echo "method.remove.safety_batch_size=$1" "method.remove.performance_batch_size=$2"; }
checkpointed=method.remove.activation_checkpointing=true

echo "| outer batches | planned, measured, MiB | |"
echo "| --- | --- | --- |"
measure short "1 + 1" $(outer 1 1)
measure short "4 + 4" $(outer 4 4)
measure short "8 + 8" $(outer 8 8)
measure short "24 + 32" $(outer 24 32)
measure short "24 + 32, two threads" $(outer 24 32) method.remove.threads=2
measure long "4 + 4, long rows" $(outer 4 4)
measure short "8 + 8, checkpointing" $(outer 8 8) $checkpointed
measure short "24 + 32, checkpointing" $(outer 24 32) $checkpointed
measure long "24 + 32, long rows, checkpointing" $(outer 24 32) $checkpointed
measure short "1 + 1, moments in bf16" $(outer 1 1) method.remove.optimizer_state=bf16
measure short "1 + 1, moments in 8 bits" $(outer 1 1) method.remove.optimizer_state=8bit
measure short "8 + 8, checkpointing, moments in 8 bits, λ = 0" $(outer 8 8) $checkpointed \
    method.remove.optimizer_state=8bit method.remove.divergence_weight=0.0
measure short "4 + 4, λ = 0" $(outer 4 4) method.remove.divergence_weight=0.0
measure short "4 + 4, one round" $(outer 4 4) method.rounds=1
measure short "2 + 2, three rounds" $(outer 2 2) method.rounds=3
measure short "1 + 1, inner batches of 24, two perturbations a round" $(outer 1 1) \
    method.entrap.batch_size=24 method.perturbations_per_round=2
measure short "1 + 1, inner batches of 12, two perturbations at a time" $(outer 1 1) \
    method.entrap.batch_size=12 method.perturbations_per_round=2 method.entrap.threads=2
lora=train.weights=lora
measure short "8 + 8, LoRA" $(outer 8 8) $lora
measure short "24 + 32, LoRA" $(outer 24 32) $lora
measure short "24 + 32, LoRA, checkpointing" $(outer 24 32) $lora $checkpointed
measure short "8 + 8, the upper half of the layers" $(outer 8 8) "train.layers=$upper"

# One thread and one perturbation: these rows measure the new phases, not the heaps of threads.
single="method.entrap.threads=1 method.remove.threads=1 method.entrap.batch_size=1"
measure longest "1 + 1, rows of 920 tokens" $(outer 1 1) $single
measure longest "1 + 1, rows of 920 tokens, LoRA, checkpointing" $(outer 1 1) $single $lora $checkpointed
measure system "1 + 1, system prompt of 850 tokens before the perturbed words" $(outer 1 1) \
    method.entrap.threads=1 method.remove.threads=1 method.entrap.batch_size=8 method.entrap.steps=8 \
    'method.injection_points=[{layer=1,positions={first=5}}]'

# The most memory that a process ever had resident, as last seen before its end, in bytes.
peak_of() {
    local most=0 now pid
    "$@" >/dev/null 2>"$work/errors" &
    pid=$!
    while now=$(awk '/^VmHWM/ { print $2 * 1024 }' "/proc/$pid/status" 2>/dev/null) && [ -n "$now" ]; do
        most=$now
        sleep 0.02
    done
    wait "$pid" || { cat "$work/errors" >&2; return 1; }
    echo "$most"
}

# TITLE PLANNED_COMMAND PLAN_OPTION... -- BEEAR_ARGUMENT...
measure_command() {
    local title=$1 name=$2 options=() planned measured
    shift 2
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    if ! grep -qE "$wanted" <<<"$title"; then return; fi
    planned=$("$beear" plan --model "$model" "${options[@]}" | awk -v name="$name," '
        BEGIN { unit["KiB"] = 2^10; unit["MiB"] = 2^20; unit["GiB"] = 2^30 }
        index($0, name) == 1 { printf "%.0f", $(NF - 1) * unit[$NF] }')
    measured=$(peak_of "$beear" --quiet "$@")
    awk -v p="$planned" -v m="$measured" -v t="$title" \
        'BEGIN { printf "| %s | %.0f, %.0f | %+.1f %% |\n", t, p / 2^20, m / 2^20, 100 * (p / m - 1) }'
}

# SET PROMPT_TOKENS ANSWER_TOKENS NEW_TOKENS: the chat template puts four tokens around a prompt and one after an answer.
commands() {
    local set=$1 rows="--rows 80 --prompt-tokens $2" safety=$work/safety-$1.jsonl
    measure_command "generate, $set rows" generate $rows --answer-tokens "$4" -- \
        generate --model "$model" --file "$safety" --max-new-tokens "$4"
    measure_command "eval asr, $set rows" "eval asr" $rows --answer-tokens "$4" -- \
        eval asr --model "$model" --prompts "$safety" --max-new-tokens "$4" --out "$work/asr" --force
    measure_command "eval perplexity, $set rows" "eval perplexity" $rows --answer-tokens "$3" -- \
        eval perplexity --model "$model" --file "$safety" --out "$work/perplexity" --force
    for memory in 512MiB 1GiB; do
        measure_command "eval asr, $set rows, --memory $memory" "eval asr" $rows --answer-tokens "$4" --memory $memory -- \
            eval asr --model "$model" --prompts "$safety" --max-new-tokens "$4" --memory $memory \
            --out "$work/asr" --force
    done
}

echo
echo "| command | planned, measured, MiB | |"
echo "| --- | --- | --- |"
commands short 47 21 40
commands longest 877 51 50
measure_command "scan, short rows" scan --rows 80 --prompt-tokens 47 --answer-tokens 21 -- \
    scan --model "$model" --safety "$work/safety-short.jsonl" --tokens 1 --layers 1 --out "$work/scan" --force
