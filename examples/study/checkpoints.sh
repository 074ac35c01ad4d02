#!/usr/bin/env bash
# Fine-tunes the six models of study.toml in the folder where it is run:
#
#     examples/study/checkpoints.sh FASHION-MNIST
set -euo pipefail
planish=${PLANISH:-planish}
data=$1

model() { # folder, options…
    local name=$1
    shift
    [ -d "$name" ] || "$planish" finetune --arch vit_nano_patch7_28 --data "$data" --val-fraction 0 \
        --optimizer adamw --keep last --quiet "$@" --out "$name"
}

model n500 --train-samples 500 --epochs 120
model n1000 --train-samples 1000 --epochs 60
model n2000 --train-samples 2000 --epochs 30
model n4000 --train-samples 4000 --epochs 15
model n2000-long --train-samples 2000 --epochs 60
model n2000-crop --train-samples 2000 --epochs 60 --augment flip,shift=2
