"""Seconds from a command to its first result, each in a fresh process, caches warm.

    python benchmarks/startup.py --dataset hfds//data/cifar10 --student cifar_resnet20 --teacher cifar_resnet56
    python benchmarks/startup.py --trees /code/before /code/after     # two versions, in turns

A training is over with its second step. What is found by all that come later (decoded images, a teacher's run, what was
measured of it) is made before by the first of the trees. Prints one line of JSON: for each command and tree the medians
of wall seconds and of processor seconds, which others on the machine disturb less, and how many modules were imported;
of two trees also the ratio of the second to the first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# A process of its own: the command as a user starts it, left after its second step where it trains.
CHILD = """
import os, sys, time
begun = float(sys.argv.pop(1))
def leave(*_):
    seconds, processor = time.time() - begun, time.process_time()
    print(f"\\nmeasured {seconds} {processor} {len(sys.modules)}", file=sys.stderr, flush=True)
    os._exit(0)
from kdprune.cli import main, parse
words = sys.argv[1:]
if words[0] == "train":
    options = parse(words)[1]
    from kdprune.pipeline.train import run
    from kdprune.training.observers import Observer
    class Second(Observer):
        def step(self, step):
            if step == 2:
                leave()
    run(options.config_object, observers=[Second()])
try:
    assert main(words) == 0, words
except SystemExit:
    pass
leave()
"""


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        shared = ["--data.dataset", options.dataset, "--data.root", f"{folder}/data", "--output", f"{folder}/runs"]
        teacher, finished = (f"{folder}/runs/{name}" for name in ("teacher", "student"))
        short = ["--train.steps", "2", *shared]
        prepare = [
            ["train", "--student.model", options.teacher, "--name", "teacher", *short],
            ["train", "--student.model", options.student, "--name", "student", "--teacher.models", teacher, *short],
        ]
        for words in prepare:
            command = [sys.executable, "-m", "kdprune", *words]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL, env=_environment(options.trees[0]))
        train = ["train", "--student.model", options.student, *shared]
        commands = {
            "train with a teacher": [*train, "--teacher.models", teacher],
            "train": train,
            "evaluate": ["evaluate", finished],
            "runs": ["runs", f"{folder}/runs"],
            "list losses": ["list", "losses"],
            "train --help": ["train", "--help"],
        }
        chosen = {name: words for name, words in commands.items() if not options.commands or name in options.commands}
        found: dict[str, list[list[tuple[float, ...]]]] = {name: [[] for _ in options.trees] for name in chosen}
        for turn in range(-1, options.rounds):
            for name, words in chosen.items():
                for rows, tree in zip(found[name], options.trees, strict=True):
                    measured = _measure(words, tree)
                    if turn >= 0:  # the first turn fills caches
                        rows.append(measured)
    about = {
        "benchmark": "startup", "student": options.student, "teacher": options.teacher, "cores": os.cpu_count(),
        "machine": platform.machine(), "load": round(os.getloadavg()[0], 2), "rounds": options.rounds,
        "commands": {name: _summary(rows) for name, rows in found.items()},
    }  # fmt: skip
    print(json.dumps(about))


def _measure(words: list[str], tree: Path) -> tuple[float, ...]:
    command = [sys.executable, "-c", CHILD, str(time.time()), *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=_environment(tree))
    line = next((line for line in done.stderr.splitlines() if line.startswith("measured ")), None)
    if line is None:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
    print(tree, words[0], line, file=sys.stderr, flush=True)
    return tuple(float(word) for word in line.split()[1:])


def _summary(trees: list[list[tuple[float, ...]]]) -> dict[str, Any]:
    medians = [[statistics.median(column) for column in zip(*rows, strict=True)] for rows in trees]
    row: dict[str, Any] = {
        "seconds": [round(wall, 2) for wall, _, _ in medians],
        "processor": [round(processor, 2) for _, processor, _ in medians],
        "modules": [int(modules) for _, _, modules in medians],
    }
    if len(medians) == 2:
        names = ("seconds", "processor")
        row |= {f"ratio_{name}": round(medians[1][i] / medians[0][i], 2) for i, name in enumerate(names)}
    return row


def _environment(tree: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(tree)}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--student", default="cifar_resnet20")
    parser.add_argument("--teacher", default="cifar_resnet56")
    parser.add_argument("--commands", nargs="+", help="only these, such as 'train with a teacher' (default: all)")
    parser.add_argument("--trees", type=Path, nargs="+", default=[Path(__file__).resolve().parents[1]])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where the runs are made for the time")
    return parser.parse_args()


if __name__ == "__main__":
    main()
