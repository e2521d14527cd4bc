"""The study behind docs/alpha.md: top-1 against the keep fraction and α, mean and spread over seeds, last epoch.

    python benchmarks/alpha.py --config configs/cifar10_random50.yaml --data.dataset torch/cifar10 \\
        --student.model cifar_resnet8 --teacher.models cifar_resnet20 --teacher.epochs 15 --output runs/alpha \\
        --keep 0.1:20 0.5:10 --alphas none 0.5 0.9 1 auto search --seeds 0 1 2

Everything before --keep goes to `kdprune train`. Targets are cached, with a view for each epoch, so the teacher runs
once for each seed and keep fraction. Finished runs are not repeated. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from copy import deepcopy

from rich.progress import track

from kdprune.cli import parse
from kdprune.config import Config, TeacherConfig
from kdprune.engine.experiment import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", nargs="+", required=True, help="keep fractions, each with its epochs: 0.1:20")
    parser.add_argument("--alphas", nargs="+", required=True, help="none (no teacher), numbers or policies")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    options, rest = parser.parse_known_args()
    base: Config = parse(["train", *rest])[1].config_object
    base.baseline, base.teacher.targets = False, "cached"
    arms = [(keep, alpha, seed) for keep in options.keep for seed in options.seeds for alpha in options.alphas]
    top1: dict[tuple[str, str], list[float]] = {}
    for keep, alpha, seed in track(arms, "runs"):
        summary = run(_arm(base, keep, alpha, seed))
        top1.setdefault((alpha, keep), []).append(100 * summary["test_top1"])
        print(keep, alpha, seed, f"{100 * summary['test_top1']:.2f}", file=sys.stderr, flush=True)
    _print(options.alphas, options.keep, top1)


def _arm(base: Config, keep: str, alpha: str, seed: int) -> Config:
    new = deepcopy(base)
    fraction, epochs = keep.split(":")
    new.subset.keep_fraction, new.train.epochs, new.seed = float(fraction), float(epochs), seed
    new.train.eval_every = 10**9
    if alpha == "none":
        new.teacher, new.distill = TeacherConfig(), type(new.distill)()
    else:
        new.distill.alpha = alpha
    return new


def _print(alphas: list[str], keeps: list[str], top1: dict[tuple[str, str], list[float]]) -> None:
    print("| α |", " | ".join(f"keep {k.split(':')[0]}, {k.split(':')[1]} epochs" for k in keeps), "|")
    print("| --- |" + " ---: |" * len(keeps))
    for alpha in alphas:
        cells = [top1[alpha, keep] for keep in keeps]
        shown = [f"{statistics.mean(c):.2f} ± {statistics.stdev(c) if len(c) > 1 else 0:.2f}" for c in cells]
        print(f"| {alpha} |", " | ".join(shown), "|")


if __name__ == "__main__":
    main()
