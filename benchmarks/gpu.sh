#!/usr/bin/env bash
# Checks and measures all that needs a GPU, in a few minutes:
#     bash benchmarks/gpu.sh [FOLDER]        results go to FOLDER (default: benchmarks/results), named by the hardware
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
folder=${1:-benchmarks/results}
work=$(mktemp -d)
export KDPRUNE_CACHE="$work/cache"
mkdir -p "$folder"
hardware=$(python3 -c 'import torch; print(torch.cuda.get_device_name().replace(" ", "_"))')
out="$folder/$hardware.jsonl"
: > "$out"

echo "== the recipe of the first command, on the GPU"
python3 train.py --config configs/digits_random50.yaml --output "$work/runs"

echo "== a resume after a kill is bit-identical; runs, caches and losses keep their contracts"
python3 -m pytest --slow tests/test_resume.py tests/test_trainer.py tests/test_cached_training.py tests/test_losses.py tests/test_check_loss.py tests/test_api.py

echo "== what is recorded, gradient norms and geometry, against their oracles"
python3 -m pytest tests/test_dynamics.py tests/test_record.py tests/test_record_statistics.py tests/test_gradient_norms.py tests/test_penultimate.py tests/test_geometry*.py tests/test_dynamic.py
python3 train.py --config configs/digits_random50.yaml --output "$work/runs" --baseline false --subset.scorer el2n --subset.selector hardest --record.train.epochs 5

echo "== fp16 with gradient scaling, and a compiled student and teacher"
for options in "--train.precision fp16" "--train.compile true"; do
    # shellcheck disable=SC2086
    python3 train.py --config configs/digits_random50.yaml --output "$work/runs" --baseline false $options
done

echo "== two runs share the GPU"
python3 -m kdprune sweep --config configs/digits_random50.yaml --baseline false --train.steps 60 --teacher.train.steps 60 \
    --grid.seed 0,1 --runs_per_gpu 2 --output "$work/runs" --name shared

echo "== speed, as ratios against a bare loop: small images, large ones, small steps"
python3 benchmarks/step.py | tee -a "$out"
python3 benchmarks/step.py --student resnet50 --teacher resnet101 --image_size 224 --batch 256 --precisions bf16 --rounds 4 --steps 10 | tee -a "$out"
python3 benchmarks/step.py --student mlp_64 --teacher mlp_64 --batch 32 --precisions no --rounds 5 --steps 500 | tee -a "$out"

echo "== a sparse student's step; evaluation by the size of its batches; how fast images can be read for it"
python3 benchmarks/masks.py | tee -a "$out"
python3 benchmarks/batches.py --models cifar_resnet56 resnet50 --sizes 32 224 --images 16384 2048 --batches 64 256 512 1024 --precisions bf16 | tee -a "$out"
python3 benchmarks/reader.py --sizes 224 --workers "$(nproc)" --images 4096 --rounds 2 | tee -a "$out"

echo "== beside timm, as it is and compiled"
python3 benchmarks/peers.py --rounds 3 | tee -a "$out"
python3 benchmarks/peers.py --rounds 3 --compile --pairs cifar_resnet20:cifar_resnet56 | tee -a "$out"

echo "== the frozen teacher against autocast; cached against online targets; scoring; geometry"
python3 benchmarks/frozen_teacher.py --models cifar_resnet56 resnet50 --image_size 32 224 --batch 1024 256 --compile | tee -a "$out"
python3 benchmarks/targets.py | tee -a "$out"
python3 benchmarks/scoring.py | tee -a "$out"
python3 benchmarks/geometry.py --n 200000 --d 384 --clusters 1000 --rounds 1 | tee -a "$out"
echo "results: $out"
