"""How fast a frozen teacher answers, by route: forward images/s, all routes of a model interleaved in one process.

    python benchmarks/frozen_teacher.py --models cifar_resnet56 resnet50 --image_size 32 128 --batch 128 32 --compile

The limit is `autocast`: the network as timm builds it, in evaluation mode, under torch.autocast, which is how training
loops run a teacher. `plain` is the path without folding (autocast, channels_last). Prints one line of JSON. To
hold against `autocast`: folded 1.25, compiled 1.8. What the hardware can give at most is `matmul_gmacs`, the
multiply-adds of large matrices; a route's `gmacs`, those of its layers, come close to it where nothing is left to gain.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kdprune.models.build import build_student
from kdprune.teachers.frozen import FrozenTeacher, freeze

Engine = Callable[[Tensor], Tensor]


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    rows = []
    for name, size, batch in zip(options.models, options.image_size, options.batch, strict=True):
        torch.manual_seed(0)
        model = build_student(name, 100, channels=3, image_size=size).model.to(device).eval()
        images = torch.randn(batch, 3, size, size, device=device)
        rows.append({"model": name, "size": size, "batch": batch, **_measured(model, images, options)})
    about = {
        "hardware": hardware(device),
        "threads": options.threads,
        "dtype": options.dtype,
        "matmul_gmacs": round(matmul_gmacs(device, getattr(torch, options.dtype))),
        "torch": torch.__version__,
    }
    print(json.dumps({"benchmark": "frozen_teacher", **about, "timm": timm.__version__, "rows": rows}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["cifar_resnet56", "resnet50"])
    parser.add_argument("--image_size", nargs="+", type=int, default=[32, 128], help="pixels, one for each model")
    parser.add_argument("--batch", nargs="+", type=int, default=[128, 32], help="images, one for each model")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--compile", action="store_true", help="measure the compiled route, too")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each route of each model")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def _measured(model: nn.Module, images: Tensor, options: argparse.Namespace) -> dict[str, Any]:
    engines = engines_of(model, images, getattr(torch, options.dtype), options.compile)
    speeds = images_per_second(engines, images, options.seconds)
    gmac = _gmac(model, images[:1])
    errors = {name: engine.relative_error for name, engine in engines.items() if isinstance(engine, FrozenTeacher)}
    return {
        "images_per_second": {name: round(speed, 1) for name, speed in speeds.items()},
        "over_autocast": {name: round(speed / speeds["autocast"], 3) for name, speed in speeds.items()},
        "gmacs": {name: round(speed * gmac) for name, speed in speeds.items()},
        "relative_error": {name: float(f"{error:.2g}") for name, error in errors.items()},
        "routes": {name: engine.route for name, engine in engines.items() if isinstance(engine, FrozenTeacher)},
    }


def engines_of(model: nn.Module, images: Tensor, dtype: torch.dtype, compiled: bool) -> dict[str, Engine]:
    def frozen(**how: Any) -> FrozenTeacher:
        return freeze(model, device=images.device, dtype=dtype, example=images, **how)

    @torch.no_grad()
    def autocast(images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, dtype=dtype, enabled=dtype != torch.float32):
            return model(images)

    engines: dict[str, Engine] = {"autocast": autocast, "plain": frozen(fold=False), "folded": frozen()}
    return {**engines, "compiled": frozen(compile=True)} if compiled else engines


def images_per_second(engines: dict[str, Engine], images: Tensor, seconds: float) -> dict[str, float]:
    """By the lower quartile of the time of a batch: what the machine does when nothing else disturbs it.

    Routes take turns, so that a busy machine slows all of them alike.
    """
    times: dict[str, list[float]] = {name: [] for name in engines}
    for engine in engines.values():
        engine(images)
    while min(sum(spent) for spent in times.values()) < seconds or len(times["autocast"]) < 5:
        for name, engine in engines.items():
            times[name].append(_timed(engine, images))
    return {name: len(images) / statistics.quantiles(spent, n=4)[0] for name, spent in times.items()}


def matmul_gmacs(device: torch.device, dtype: torch.dtype, size: int = 4096) -> float:
    """Billions of multiply-adds a second in a product of square matrices, the best of ten."""
    matrix = torch.randn(size, size, device=device).to(dtype)
    return size**3 / 1e9 / min(_timed(matrix.matmul, matrix) for _ in range(10))


@torch.no_grad()
def _gmac(model: nn.Module, image: Tensor) -> float:
    """Billions of multiply-adds that one image takes."""
    with FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops() / 2e9


def _timed(engine: Engine, images: Tensor) -> float:
    start = time.perf_counter()
    engine(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def hardware(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return model or platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
