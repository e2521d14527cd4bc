"""The time, memory and size of a report of many finished runs, which are copies of one with other settings and results.

    python benchmarks/report.py --runs 1000

Prints one line of JSON: seconds without imports, processor seconds, which others on the machine disturb less, the most
memory of the process, bytes of the page (to reach for 1,000 runs: 20 s, 1 GB, 10 MB).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from kdprune.config import Config, DataConfig, StudentConfig, TrainConfig
from kdprune.pipeline.train import run

# What a process of its own does: its peak memory is that of a report, and not of a training.
CHILD = """
import json, resource, sys, time
from pathlib import Path
from kdprune.report.draw import Writer
from kdprune.report.report import make_report
runs, output = map(Path, sys.argv[1:])
begun, processor = time.perf_counter(), time.process_time()
report = make_report([runs])
paths = Writer(output).write(report)
print(json.dumps({
    "arms": len(report.sections[0].arms), "seconds": round(time.perf_counter() - begun, 2),
    "processor": round(time.process_time() - processor, 2),
    "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    "html_bytes": (output / "report.html").stat().st_size,
}))
"""
KEEPS, ALPHAS, SEEDS, EPOCHS = (0.1, 0.2, 0.3, 0.5, 1.0), (None, 0.25, 0.5, 0.75, 1.0), 5, 60


def train_one(folder: Path) -> Path:
    """A run of a few steps, whose files are copied."""
    return run(
        Config(
            output=str(folder),
            data=DataConfig(dataset="digits", augment="crop(1)"),
            student=StudentConfig(model="mlp_64"),
            train=TrainConfig(steps=3, precision="no"),
        )
    )[0].path


def write_runs(original: Path, folder: Path, count: int) -> None:
    """Directories of finished runs, over keep fractions, α, seeds and learning rates; without their weights."""
    config = yaml.safe_load((original / "config.yaml").read_text())
    summary = json.loads((original / "summary.json").read_text())
    others = {name: (original / name).read_text() for name in ("artefact.json", "environment.json", "subset.json")}
    draw = random.Random(0)
    for number in range(count):
        rest, seed = divmod(number, SEEDS)
        rest, alpha = divmod(rest, len(ALPHAS))
        rate, keep = divmod(rest, len(KEEPS))
        path = folder / f"run-{number:05}"
        path.mkdir(parents=True)
        for name, content in others.items():
            (path / name).write_text(content)
        lr = round(0.1 + 0.01 * rate, 2)
        teacher = {"models": [] if ALPHAS[alpha] is None else ["cifar_resnet20"]}
        (path / "config.yaml").write_text(yaml.safe_dump({
            **config, "seed": seed,
            "teacher": {**config["teacher"], **teacher},
            "distill": {**config["distill"], "alpha": ALPHAS[alpha] or 1.0},
            "subset": {**config["subset"], "keep_fraction": KEEPS[keep]},
            "train": {**config["train"], "lr": lr},
        }, sort_keys=False))  # fmt: skip
        top1 = 0.5 + 0.4 * KEEPS[keep] + draw.gauss(0, 0.01)
        (path / "summary.json").write_text(json.dumps(_summary(summary, top1, KEEPS[keep], ALPHAS[alpha], lr, number)))
        (path / "metrics.csv").write_text(_metrics(top1, draw))


def _summary(
    summary: dict[str, Any], top1: float, keep: float, alpha: float | None, lr: float, number: int
) -> dict[str, Any]:
    taught = {"name": "cifar_resnet20", "source": "teachers/x", "parameters": 269434, "weights_hash": "w",
              "training": {"train_seconds": 30.0}}  # fmt: skip
    cost = {**summary["cost"], "teacher_training": {"seconds": 30.0, "forward_samples": 1000, "backward_samples": 1000}}
    key = {**summary["key"], "train": {**summary["key"]["train"], "lr": lr}}
    return {
        **summary, "test_top1": top1, "keep_fraction": keep, "key_hash": f"{number:064}", "alpha": alpha or 0.0,
        "key": key,
        **({} if alpha is None else {"teacher": [taught], "cost": cost}),
    }  # fmt: skip


def _metrics(top1: float, draw: random.Random) -> str:
    lines = ["epoch,step,train_loss,test_top1,test_loss"]
    for epoch in range(1, EPOCHS + 1):
        done = 1 - 0.9**epoch
        lines.append(f"{epoch},{epoch * 10},{2 - done + draw.gauss(0, 0.05)},{top1 * done},{1.5 - done}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--keep", type=Path, help="Folder for runs and report (default: a temporary one).")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with contextlib.redirect_stdout(io.StringIO()):
            write_runs(train_one(folder / "original"), folder / "runs", options.runs)
        words = [sys.executable, "-c", CHILD, str(folder / "runs"), str(folder / "report")]
        measured = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    print(json.dumps({"benchmark": "report", "runs": options.runs, **measured}))


if __name__ == "__main__":
    main()
