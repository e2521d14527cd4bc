"""Images a second of a bare forward pass by the size of its batches, and at the size that evaluation chooses.

    python benchmarks/batches.py                               # cifar_resnet20 at 32 px, resnet18 at 32 and 224 px
    python benchmarks/batches.py --models resnet50 --sizes 224 --images 64 --precisions no bf16

Batches take turns, and the best round of each counts, on a CPU by processor time, which others on the machine disturb
less. Prints one line of JSON: for each model the images for a second (of a processor, on a CPU) by batch, and `ratio`,
of the chosen batch to the best one (to reach: 0.95).
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import timm
import torch

import kdprune.models  # noqa: F401 -- registers its networks
from kdprune.passes.evaluation import batch_for
from kdprune.runs.accelerator import DTYPES, device_name

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    pairs = zip(options.models, options.sizes, options.images, strict=True)
    rows = [compare(*pair, precision, options) for pair in pairs for precision in options.precisions]
    about = {
        "benchmark": "batches",
        "hardware": device_name(DEVICE),
        "threads": options.threads,
        "torch": torch.__version__,
    }
    print(json.dumps({**about, "rows": rows}))


@torch.no_grad()
def compare(name: str, size: int, images: int, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """One model in one precision."""
    model = timm.create_model(name, num_classes=10).eval().to(DEVICE).to(memory_format=torch.channels_last)
    x = torch.rand(images, 3, size, size, device=DEVICE).contiguous(memory_format=torch.channels_last)
    chosen = batch_for(model, (size, size), DEVICE, DTYPES[precision])
    batches = sorted({min(images, batch) for batch in (*options.batches, chosen)})
    best = dict.fromkeys(batches, 0.0)
    for _ in range(options.rounds):
        for batch in batches:
            begun = _seconds()
            with torch.autocast(DEVICE.type, dtype=DTYPES[precision], enabled=precision != "no"):
                for part in x.split(batch):
                    model(part)
            best[batch] = max(best[batch], images / (_seconds() - begun))
    ratio = best[min(images, chosen)] / max(best.values())
    return {
        "model": name, "image_size": size, "precision": precision, "chosen": chosen, "ratio": round(ratio, 3),
        "images_per_second": {batch: round(rate, 1) for batch, rate in best.items()},
    }  # fmt: skip


def _seconds() -> float:
    if DEVICE.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["cifar_resnet20", "resnet18", "resnet18"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 32, 224], help="of the images of each model, px")
    parser.add_argument("--images", type=int, nargs="+", default=[1024, 1024, 64], help="of a round, for each model")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32, 128, 512])
    parser.add_argument("--precisions", nargs="+", choices=list(DTYPES), default=["no"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


if __name__ == "__main__":
    main()
