"""Energy and CO₂ of a training, by codecarbon without a network: `--track_energy`. No result depends on it.

What was spent before a training was stopped is kept beside its checkpoints, and added.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from kdprune.files import write_json
from kdprune.outside import is_number, read_json

log = logging.getLogger("kdprune")

FILE = "energy.json"  # of an unfinished run
_SUMS = ("kwh", "co2_kg", "seconds")
_COUNTERS = {"intel_rapl": "RAPL", "intel_power_gadget": "Power Gadget", "windows_emi": "RAPL"}


@dataclass
class Energy:
    """What was spent.

    Attributes:
        spent: `kwh`, `co2_kg`, `seconds` and `tracker`, what measured it; None where it was not asked for, or nothing
            could be measured.
    """

    spent: dict[str, Any] | None = field(default=None)

    @property
    def row(self) -> dict[str, Any]:
        """For summary.json."""
        return {} if self.spent is None else {"energy": self.spent}


@contextlib.contextmanager
def measured(wanted: bool, accelerator: Accelerator, folder: Path) -> Iterator[Energy]:
    """Measure what is done meanwhile, on all processes together; each measures its own part.

    Args:
        folder: of the run's checkpoints.
    """
    energy, finished = Energy(), False
    if not wanted:
        yield energy
        return
    before, tracker, began = _read(folder / FILE), _start(accelerator), time.perf_counter()
    try:
        yield energy
        finished = True
    finally:
        own = _stop(tracker, time.perf_counter() - began)
        # Processes of a run that is stopped may not reach this together.
        parts = gather_object([own]) if finished else [own]
        energy.spent = _together([before, *parts])
        if accelerator.is_main_process:
            _keep(folder / FILE, None if finished else energy.spent)


def _start(accelerator: Accelerator) -> Any:
    """A tracker of this process that is under way; None if there can be none."""
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    try:
        from codecarbon import OfflineEmissionsTracker

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that newer versions have for the same
            tracker = OfflineEmissionsTracker(
                tracking_mode="process",  # of the machine it would count what runs beside
                gpu_ids=_gpu(accelerator), allow_multiple_runs=True, log_level="critical", save_to_file=False,
                save_to_api=False, save_to_logger=False, save_to_prometheus=False, save_to_logfire=False,
            )  # fmt: skip
        tracker.start()
        return tracker
    except Exception as error:  # of whatever it looks at in the machine
        log.warning("--track_energy: codecarbon measures nothing here (%s)", error)
        return None


def _gpu(accelerator: Accelerator) -> list[str] | None:
    """The GPU of this process as the machine counts them; None for all, which on a CPU are of no interest."""
    if accelerator.device.type != "cuda":
        return None
    index = accelerator.device.index or 0
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return [visible[index] if visible else str(index)]


def _stop(tracker: Any, seconds: float) -> dict[str, Any] | None:
    if tracker is None:
        return None
    try:
        tracker.stop()
        data = tracker.final_emissions_data
        found = {"kwh": float(data.energy_consumed), "co2_kg": float(data.emissions), "seconds": seconds}
        return {**found, "tracker": _described(tracker, data)}
    except Exception as error:
        log.warning("--track_energy: codecarbon has measured nothing (%s)", error)
        return None


def _described(tracker: Any, data: Any) -> str:
    """What measured, in words: counters of the machine, or an estimate."""
    hardware = getattr(tracker, "_hardware", [])
    modes = {getattr(one, "_mode", None) for one in hardware}
    cpu = next((name for mode, name in _COUNTERS.items() if mode in modes), "an estimate from its load and rated power")
    gpu = ", GPU by NVML" if any(type(one).__name__ == "GPU" for one in hardware) else ""
    where = data.country_name or "the world's average"
    return f"codecarbon {version('codecarbon')}: CPU by {cpu}, memory by an estimate{gpu}; grid of {where}"


def _together(parts: list[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Sums of what there is. Processes measure at the same time, so the seconds are those of the longest of them."""
    before, *now = parts
    measured = [part for part in now if part is not None]
    if not measured:
        return before
    total = {name: sum(part[name] for part in measured) for name in ("kwh", "co2_kg")}
    total["seconds"] = max(part["seconds"] for part in measured)
    if before is not None:
        total = {name: total[name] + before[name] for name in _SUMS}
    return {**total, "tracker": measured[0]["tracker"]}


def _read(file: Path) -> dict[str, Any] | None:
    """What was spent before; nothing where that cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        content = read_json(file)
        if isinstance(content, dict) and all(is_number(content.get(name)) for name in _SUMS):
            return {**{name: content[name] for name in _SUMS}, "tracker": str(content.get("tracker", ""))}
    return None


def _keep(file: Path, spent: dict[str, Any] | None) -> None:
    """Nothing but a count depends on it, so a disk that is full does not stop anything here."""
    with contextlib.suppress(OSError):
        if spent is None:
            file.unlink(missing_ok=True)
        else:
            write_json(file, spent)
