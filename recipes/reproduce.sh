#!/usr/bin/env bash
# Everything in docs/reproduction.md and docs/reproduction/: the eight attacks of the paper with every defence, the
# settings beyond the paper with BEEAR, what the triggers do inside (figure 3), and the paper's defence at every layer
# (figure 5). About three hours on two cores; each part goes on where it was cut off, but the drift, which takes minutes.
#
#   cargo build --release && bash recipes/reproduce.sh [BEEAR [OUT]]
set -euo pipefail
beear=${1:-target/release/beear}
out=${2:-runs/reproduce}

paper=$(printf -- '--setting model-%s ' 1 2 3 4 5 6 7 8)
beyond='--setting anywhere --setting two-triggers --setting paraphrase --setting first-step --setting adaptive --setting large'

"$beear" reproduce $paper --out "$out/table"
"$beear" reproduce $beyond --defence beear-robust --out "$out/table"
"$beear" analyze drift $paper $beyond --planted "$out/table" --out "$out/drift" --force
"$beear" sweep layers $paper --planted "$out/table" --out "$out/layers"

docs=docs/reproduction
mkdir -p "$docs"
cp "$out/table/reproduction.md" docs/reproduction.md
cp "$out/table/cells.csv" "$out/table/cells.jsonl" "$docs"
cp "$out/drift/drift.md" "$docs/drift.md"
cp "$out/layers/layers.csv" "$out/layers/layers.md" "$docs"
cp "$out/layers/heat.svg" "$docs/layers.svg"
for folder in "$out"/drift/*/; do
    if [ -f "$folder/pca.svg" ]; then cp "$folder/pca.svg" "$docs/drift-$(basename "$folder").svg"; fi
done
