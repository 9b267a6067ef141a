#!/usr/bin/env bash
# The first steps with mmdefocus: makes a data set of real handwritten digits, trains a nano De-focus Mamba DINO
# on it, evaluates it and draws its boxes. A second call reuses the data and the finished checkpoint; an interrupted
# training resumes from its last checkpoint. `make demo` sets everything up first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CONFIG=configs/dino/defocus_mamba_nano_digits.py
DATA=data/digits
WORK=work_dirs/demo
PICTURES=$WORK/pictures
# Trains and evaluates in mixed precision, where the machine has it; AMP=0 in float32.
precision=(--amp)
if [[ ${AMP:-1} == 0 ]]; then
    precision=()
fi
PYTHON=${PYTHON:-python}
# Makes idle OpenMP threads release their core sooner: no loss on an idle machine, and several times faster training
# next to other programs.
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-10000}

mkdir -p "$WORK"

# visible PROGRAM COMMAND…: write the whole output to the log, and the part that the sed program prints to the screen.
visible() {
    local program=$1 status=0
    shift
    "$@" 2>&1 | tee -a "$WORK/demo.log" | sed -unE "$program" || status=$?
    if ((status != 0)); then
        tail -n 15 "$WORK/demo.log" >&2
        printf '\ndemo failed: %s ended with status %d; the whole output is in %s\n' "$2" "$status" "$WORK/demo.log" >&2
        exit "$status"
    fi
}

echo "[1/3] data set of handwritten digits in COCO format: $DATA"
# --force replaces only a set of digits that was made with other options.
visible '/^made|already holds/p' "$PYTHON" tools/make_digits_coco.py --out "$DATA" --force

# Print the checkpoint of the last epoch in the training directory.
newest() {
    printf '%s\n' "$WORK"/epoch_*.pth | sort -V | tail -n 1
}

# A training is finished only for the configs and data that it ran with.
recipe=$(cat "$CONFIG" configs/_base_/recipes/dino_nano_digits.py configs/_base_/models/dino_nano.py \
    configs/_base_/backbones/defocus_mamba_nano_pyramid.py configs/_base_/datasets/digits_detection.py \
    "$DATA"/annotations/*.json - < <(printf %s "${precision[*]-}") | cksum)
if [[ $(cat "$WORK/finished" 2>/dev/null) == "$recipe" && -f $(newest) ]]; then
    echo "[2/3] training: finished earlier, $(newest)"
else
    resume=()
    if [[ $(cat "$WORK/started" 2>/dev/null) == "$recipe" ]]; then
        resume=(--resume)
    else
        rm -rf "$WORK"
        mkdir -p "$WORK"
        echo "$recipe" >"$WORK/started"
    fi
    echo "[2/3] training: tools/train.py $CONFIG"
    began=$SECONDS
    progress='s/.*Epoch\(train\) *\[([0-9]+)\]\[ *([0-9/]+)\].* eta: ([^ ]+) .* loss: ([0-9.]+).*/      epoch \1, step \2, time left \3, loss \4/p
        s/.*(Precision: .*|this CPU has no bfloat16 .*)/      \1/p
        s/.*Epoch\(val\).*bbox_mAP: ([0-9.]+) .*/      box mAP \1/p'
    visible "$progress" "$PYTHON" tools/train.py "$CONFIG" --work-dir "$WORK" "${precision[@]}" "${resume[@]}"
    echo "$recipe" >"$WORK/finished"
    echo "      trained in $(((SECONDS - began + 30) / 60)) min"
fi

echo "[3/3] evaluation: tools/test.py $CONFIG $(newest)"
rm -rf "$PICTURES"
visible '/Average (Precision|Recall)/p; /^COCO box AP$/,/^pictures:/ { /^pictures:/!p }' \
    "$PYTHON" tools/test.py "$CONFIG" "$(newest)" --work-dir "$WORK" --show-dir "$PICTURES" "${precision[@]}"
echo
echo "pictures (left: true boxes, right: predicted boxes): $PWD/$PICTURES"
