"""The studies behind docs/alpha.md and docs/losses.md: top-1 of arms at keep fractions, mean and spread over seeds.

    python benchmarks/study.py --config configs/cifar10_random50.yaml --data.dataset torch/cifar10 \\
        --student.model cifar_resnet8 --teacher.models cifar_resnet20 --teacher.train.epochs 15 \\
        --teacher.targets cached --seeds.teacher 0 \\
        --keep 0.1:20 0.5:10 --arms none distill.alpha=0.5 "distill.alpha=0.9 distill.loss=dist" --seeds 0 1 2

What this script does not know goes to `kdprune train`; an arm adds options to that, written without dashes, and `none`
is the student without a teacher. Top-1 is that of the last epoch, on the test set; or, to choose settings by, with
`--on val` on the part that `--data.val_fraction` holds out of the training set. A study that was stopped goes on with
the same command, and finished runs are not repeated. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys

from rich.console import Console
from rich.progress import track

from kdprune.cli import parse
from kdprune.config import Config
from kdprune.pipeline.recipes import without_teacher
from kdprune.pipeline.train import run
from kdprune.training.interrupt import Interrupted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", nargs="+", required=True, help="keep fractions, each with its epochs: 0.1:20")
    parser.add_argument("--arms", nargs="+", required=True, help="none (no teacher), or options: 'distill.alpha=0.9'")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--on", choices=["test", "val"], default="test", help="val: to choose by (--data.val_fraction)")
    options, rest = parser.parse_known_args()
    runs = [(keep, arm, seed) for seed in options.seeds for keep in options.keep for arm in options.arms]
    configs = [_config(rest, *one) for one in runs]  # all of them before the first run: a mistake shows at once
    if options.on == "val" and not all(config.data.val_fraction for config in configs):
        raise ValueError("--on: val given, which needs --data.val_fraction")
    top1: dict[tuple[str, str], list[float]] = {}
    for (keep, arm, seed), config in zip(runs, track(configs, "runs", console=Console(stderr=True)), strict=True):
        summary = run(config)[0].summary
        reached = 100 * summary[f"{options.on}_top1"]
        top1.setdefault((arm, keep), []).append(reached)
        print(keep, arm, seed, f"{reached:.2f}", file=sys.stderr, flush=True)
    _print(options.arms, options.keep, top1)


def _config(rest: list[str], keep: str, arm: str, seed: int) -> Config:
    fraction, epochs = keep.split(":")
    own = [] if arm == "none" else shlex.split(arm)
    own += [f"subset.keep_fraction={fraction}", f"train.epochs={epochs}", f"seed={seed}", "baseline=false"]
    config: Config = parse(["train", *rest, *[f"--{option}" for option in own]])[1].config_object
    config.train.eval_every = 10**9
    return without_teacher(config) if arm == "none" else config


def _print(arms: list[str], keeps: list[str], top1: dict[tuple[str, str], list[float]]) -> None:
    print("| |", " | ".join(f"keep {k.split(':')[0]}, {k.split(':')[1]} epochs" for k in keeps), "|")
    print("| --- |" + " ---: |" * len(keeps))
    for arm in arms:
        cells = [top1[arm, keep] for keep in keeps]
        shown = [f"{statistics.mean(c):.2f} ± {statistics.stdev(c) if len(c) > 1 else 0:.2f}" for c in cells]
        print(f"| {arm} |", " | ".join(shown), "|")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, Interrupted) as error:
        sys.exit(str(error))
