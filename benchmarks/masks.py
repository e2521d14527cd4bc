"""The step of a sparse student against that of a dense one, interleaved in one process.

    python benchmarks/masks.py                     # ResNet-20 at 32 px, density 0.1, batch 128 (1024 on a GPU)

Both are the trainer's step on the same images, without a teacher: the mask's part is largest there. Prints one line of
JSON:

    ratio             dense seconds / sparse seconds (to reach: 0.97)
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile

import torch
from step import _built, _interleaved, random_split, reader_of, step_config, steps_of

from kdprune.models.prunable import prunable
from kdprune.runs.accelerator import device_name, make_accelerator


def main() -> None:
    options = _options()
    accelerator = make_accelerator(options.precision, [], tempfile.mkdtemp())
    split, subset = random_split(options.image_size, accelerator.device)
    sides = {}
    for name in ("dense", "sparse"):
        student = _built(options.student, options)
        reader = reader_of(split, subset, accelerator.device)
        kept = kept_of(student.model, options.density) if name == "sparse" else None
        config = step_config(options.batch)
        sides[name] = steps_of(student, reader, subset, config, None, accelerator, kept=kept)
    seconds = _interleaved(sides, options.rounds, options.steps, accelerator.device)
    ratios = [dense / sparse for dense, sparse in zip(seconds["dense"], seconds["sparse"], strict=True)]
    print(json.dumps({
        "benchmark": "masks", "hardware": device_name(accelerator.device), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "student": options.student, "density": options.density, "batch": options.batch,
        "image_size": options.image_size, "precision": options.precision,
        "ratio": round(statistics.median(ratios), 3), "lowest": round(min(ratios), 3), "highest": round(max(ratios), 3),
        "images_per_second": {
            name: round(options.batch * options.steps / statistics.median(times)) for name, times in seconds.items()
        },
    }))  # fmt: skip


def kept_of(model: torch.nn.Module, density: float) -> dict[str, torch.Tensor]:
    """Random weights of each layer."""
    parameters, generator = dict(model.named_parameters()), torch.Generator().manual_seed(0)
    return {name: torch.rand(parameters[name].shape, generator=generator) < density for name in prunable(model).names}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="cifar_resnet20")
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=1024 if torch.cuda.is_available() else 128)
    parser.add_argument("--rounds", type=int, default=20, help="of --steps steps for each side; the median counts")
    parser.add_argument("--steps", type=int, default=50 if torch.cuda.is_available() else 3)
    parser.add_argument("--precision", default="no", choices=["no", "bf16"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
