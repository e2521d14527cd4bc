"""Where and how a run computes: processes, device, precision, logging."""

from __future__ import annotations

import os
import platform
import sys
import warnings
from datetime import timedelta
from importlib.metadata import version
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def make_accelerator(precision: str, log_with: list[str], project_dir: str) -> Accelerator:
    """An Accelerator in the run's precision.

    The main process may decode or evaluate for long while the others wait, so they wait up to two hours.
    """
    # A bit-identical resume needs the same algorithms in both halves, so cuDNN may not choose them by timing.
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about GPU features that a CPU machine lacks
        return Accelerator(
            cpu=_only_a_cpu(),
            mixed_precision=resolve_precision(precision),
            log_with=log_with or None,
            project_dir=project_dir,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=2))],
        )


def _only_a_cpu() -> bool:
    """Accelerate joins torchrun's processes on a CPU only when it is told that a CPU is meant."""
    return not (torch.cuda.is_available() or torch.backends.mps.is_available() or _has_xpu())


def _has_xpu() -> bool:
    return hasattr(torch, "xpu") and torch.xpu.is_available()


def resolve_precision(precision: str) -> str:
    """'auto' → what `accelerate launch --mixed_precision` asks for, else bf16 where the hardware multiplies in it."""
    if precision != "auto":
        return precision
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked in ("bf16", "fp16"):
        return asked
    return "bf16" if _multiplies_in_bf16() else "no"


def _multiplies_in_bf16() -> bool:
    if torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "false").lower() != "true":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.backends.mps.is_available():
        return False
    cpu = torch.cpu
    return cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()


def environment(accelerator: Accelerator) -> dict[str, Any]:
    """What a result may depend on beside the configuration."""
    packages = ("torch", "torchvision", "timm", "accelerate", "datasets", "numpy", "kdprune")
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "device": device_name(accelerator.device),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "precision": accelerator.mixed_precision,
        "packages": {name: version(name) for name in packages},
        "cuda": torch.version.cuda if accelerator.device.type == "cuda" else None,
    }


def device_name(device: torch.device) -> str:
    """The hardware in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"{_cpu_name()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    return str(device)


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
