#!/usr/bin/env bash
# Fine-tunes the checkpoints of docs/study.md and writes the study's file beside them:
#
#     docs/study/checkpoints.sh FASHION-MNIST FOLDER
#
# A checkpoint that is there is left alone, so that the script can be stopped and run again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$(realpath "$1")
mkdir -p "$2"
cd "$2"
planish=${PLANISH:-planish}

model() { # size width regime seed options…
    local size=$1 width=$2 regime=$3 seed=$4 name=$1-$3-$4
    shift 4
    if [ ! -d "$name" ]; then
        "$planish" finetune --arch "vit_${size}_patch7_28" --data "$data" --train-samples 2000 \
            --val-fraction 0.05 --optimizer adamw --keep last --seed "$seed" --quiet "$@" --out "$name"
    fi
    cat >>study.toml.part <<END
[[model]]
name = "$name"
checkpoint = "$name"
attributes = { width = $width, regime = "$regime", seed = $seed }

END
}

rm -f study.toml.part
for seed in 0 1 2 3 4; do
    for size in "nano 64" "micro 128"; do
        # shellcheck disable=SC2086 # a name and a number
        model $size fitted "$seed" --epochs 30
        # shellcheck disable=SC2086
        model $size memorised "$seed" --epochs 120
        # shellcheck disable=SC2086
        model $size augmented "$seed" --epochs 60 --augment flip,shift=2
    done
done
sed "s|FASHION-MNIST|$data|" "$here/runs.toml" >>study.toml.part
mv study.toml.part study.toml
