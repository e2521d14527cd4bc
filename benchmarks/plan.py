"""How often the intervals of `kdprune plan` hold: short runs predict longer ones, which are then trained.

    python benchmarks/plan.py train runs.jsonl --seconds 500     # trains what is missing; again until it says "all"
    python benchmarks/plan.py count runs.jsonl                   # prints one line of JSON

Each arm (a data set, a student, a keep fraction, with or without a teacher) is trained for 10, 30, …, 2,430 steps with
two seeds. A case takes three consecutive lengths as pilots and one that is 3 to 81 times longer than the longest of
them as the run that is planned.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LENGTHS = [10 * 3**power for power in range(6)]
SEEDS = [0, 1]
_DIGITS = {"data": {"dataset": "digits", "augment": "crop(1)"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "count"])
    parser.add_argument("file", type=Path, help="A line for each run.")
    parser.add_argument("--seconds", type=float, default=500, help="After which no further run is begun.")
    parser.add_argument("--output", default="runs/plan_cases", help="Folder of the runs.")
    parser.add_argument("--mnist", help="As for --data.dataset, such as torch/MNIST; its arms are left out without it.")
    options = parser.parse_args()
    if options.what == "train":
        train(options)
    else:
        print(json.dumps(count([json.loads(line) for line in options.file.read_text().splitlines()])))


def arms(mnist: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Arms by name, with their settings."""
    taught = {"models": ["mlp_800"], "train": {"steps": 600, "lr": 0.1}}
    for keep, teacher in itertools.product([0.1, 0.25, 0.5, 1.0], [None, taught]):
        name = f"digits mlp_64, keep {keep:g}, {'mlp_800, α 0.9' if teacher else 'no teacher'}"
        yield name, {**_DIGITS, **_student("mlp_64", keep, 32, 0.05), **_guided(teacher)}
    if mnist is not None:
        for keep in (0.02, 0.1, 0.5, 1.0):
            settings = _student("mlp_64", keep, 64, 0.1)
            yield f"mnist mlp_64, keep {keep:g}, no teacher", {"data": {"dataset": mnist}, **settings}
    for keep in (0.25, 1.0):
        settings = _student("cifar_resnet8", keep, 32, 0.05)
        yield f"digits cifar_resnet8, keep {keep:g}, no teacher", {**_DIGITS, **settings}


def _student(model: str, keep: float, batch: int, lr: float) -> dict[str, Any]:
    return {
        "student": {"model": model},
        "subset": {"keep_fraction": keep},
        "train": {"batch_size": batch, "lr": lr, "precision": "no", "eval_every": 10**6},
        "seeds": {"subset": 0, "teacher": 0},
    }


def _guided(teacher: dict[str, Any] | None) -> dict[str, Any]:
    return {} if teacher is None else {"teacher": teacher, "distill": {"alpha": 0.9}}


def train(options: argparse.Namespace) -> None:
    """Train what the file has no line of; the longest runs, which take as long as all others, last."""
    import kdprune

    begun = time.monotonic()
    lines = options.file.read_text().splitlines() if options.file.exists() else []
    trained = {(row["arm"], row["steps"], row["seed"]) for row in map(json.loads, lines)}
    every = list(itertools.product(arms(options.mnist), LENGTHS, SEEDS))
    for (name, settings), steps, seed in sorted(every, key=lambda run: run[1] == LENGTHS[-1]):
        if (name, steps, seed) in trained:
            continue
        if time.monotonic() - begun > options.seconds:
            print("some are missing: the same command goes on")
            return
        data = {"data": {**settings["data"], "val_fraction": 0.1}, "train": {**settings["train"], "steps": steps}}
        result = kdprune.train({**settings, **data, "seed": seed, "output": options.output})
        names = ("val_top1", "test_top1", "train_seconds", "kept", "total")
        row = {"arm": name, "steps": steps, "seed": seed, **{one: result.summary[one] for one in names}}
        with open(options.file, "a") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print("all")


def count(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How often the interval held: of all cases, by how much longer the run was, and of the arms that were chosen."""
    from kdprune.planning.curve import LEVEL

    cases = [case for data in ("digits", "mnist") for case in _cases([r for r in rows if r["arm"].startswith(data)])]
    by_ratio = {f"x{ratio}": _held([c for c in cases if c["ratio"] == ratio]) for ratio in (3, 9, 27, 81)}
    chosen = [case for case in cases if case["chosen"]]
    runs = {(case["arm"], case["steps"], case["seed"]) for case in cases}
    return {
        "benchmark": "plan", "level": LEVEL, "arms": len({case["arm"] for case in cases}), "runs": len(runs),
        "all": _held(cases), **by_ratio, "chosen": _held(chosen),
    }  # fmt: skip


def _cases(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Predictions for every window of three lengths and every longer one, each with what its two runs came to."""
    from kdprune.planning.curve import Curve, pooled_noise

    names = list(dict.fromkeys(row["arm"] for row in rows))
    for first, target in itertools.product(range(len(LENGTHS) - 3), LENGTHS):
        window = LENGTHS[first : first + 3]
        pilots = {name: [r for r in rows if r["arm"] == name and r["steps"] in window] for name in names}
        planned = {name: [r for r in rows if r["arm"] == name and r["steps"] == target] for name in names}
        whole = [name for name in names if len(pilots[name]) == 6 and len(planned[name]) == 2]
        if target <= window[-1] or not whole:
            continue
        # As the command sees it: of the training set a tenth judges, and the runs were measured on other samples, too.
        judged, tested = (10_000, 6000) if whole[0].startswith("mnist") else (450, 135)
        repeats = [[r["val_top1"] for r in pilots[name] if r["steps"] == s] for name in whole for s in window]
        noise = pooled_noise(repeats, tested)
        curves = {
            name: Curve([r["steps"] for r in pilots[name]], [r["val_top1"] for r in pilots[name]], tested, noise)
            for name in whole
        }
        best = max(whole, key=lambda name: curves[name].predict(target).median)
        for name in whole:
            of_val, of_test = curves[name].predict(target), curves[name].predict(target, judged)
            for run in planned[name]:
                yield {
                    "arm": name, "steps": target, "seed": run["seed"], "ratio": target // window[-1],
                    "chosen": name == best, "val": _against(of_val, run["val_top1"]),
                    "test": _against(of_test, run["test_top1"]),
                }  # fmt: skip


def _against(predicted: Any, reached: float) -> dict[str, Any]:
    width = predicted.high - predicted.low
    return {"held": predicted.low <= reached <= predicted.high, "error": predicted.median - reached, "width": width}


def _held(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares and medians, in percent and points of top-1."""
    found: dict[str, Any] = {"cases": len(cases)}
    for part in ("val", "test") if cases else ():
        errors = [100 * abs(case[part]["error"]) for case in cases]
        found[part] = {
            "held": round(100 * statistics.mean(case[part]["held"] for case in cases), 1),
            "median_error": round(statistics.median(errors), 2),
            "median_width": round(100 * statistics.median(case[part]["width"] for case in cases), 2),
        }
    return found


if __name__ == "__main__":
    main()
