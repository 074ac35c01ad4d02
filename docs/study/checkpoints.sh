#!/usr/bin/env bash
# Fine-tunes the checkpoints of docs/study.md and writes a study's file of each size beside them,
# SIZE.toml:
#
#     docs/study/checkpoints.sh FASHION-MNIST FOLDER [SIZE…]
#
# SIZE is nano, micro or few, which is nano on a quarter of the images; all without. JOBS of them at a
# time, a thread each: as many as the machine has. A checkpoint that is there is left alone, so that the
# script can be stopped and run again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$(realpath "$1")
mkdir -p "$2"
cd "$2"
shift 2
[ $# -gt 0 ] || set -- nano micro few
export planish=${PLANISH:-planish} data

declare -A width=([nano]=64 [micro]=128 [few]=64)
declare -A arch=([nano]=nano [micro]=micro [few]=nano)
declare -A images=([nano]=2000 [micro]=2000 [few]=500)
# A wider model learns its images in half as many epochs.
declare -A regime=(
    [nano-fitted]="--epochs 30"
    [nano-memorised]="--epochs 80"
    [nano-augmented]="--epochs 60 --augment flip,shift=2"
    [micro-fitted]="--epochs 15"
    [micro-memorised]="--epochs 40"
    [few-few]="--epochs 80"
)

: >jobs.part
for size in "$@"; do
    echo "out = \"study-$size\"" >"$size.toml.part"
    for seed in 0 1 2 3 4; do
        for name in fitted memorised augmented few; do
            [ -n "${regime[$size-$name]:-}" ] || continue
            model=$size-$name-$seed
            cat >>"$size.toml.part" <<END

[[model]]
name = "$model"
checkpoint = "$model"
attributes = { width = ${width[$size]}, regime = "$name", seed = $seed }
END
            if [ ! -e "$model/model.safetensors" ]; then
                echo "--arch vit_${arch[$size]}_patch7_28 --train-samples ${images[$size]} --seed $seed" \
                    "--out $model ${regime[$size-$name]}" >>jobs.part
            fi
        done
    done
done
# shellcheck disable=SC2016 # expanded by the shell within
xargs -P "${JOBS:-$(nproc)}" -I{} sh -c '$planish finetune --data "$data" \
    --val-fraction 0.05 --optimizer adamw --keep last --threads 1 --quiet {}' <jobs.part
for size in "$@"; do
    { echo; sed "s|FASHION-MNIST|$data|" "$here/$size.toml"; } >>"$size.toml.part"
    mv "$size.toml.part" "$size.toml"
done
rm jobs.part
