"""What a sweep costs beside its runs: `--part plan` of many runs, and finding them finished; `--part overhead`.

plan: seconds and memory to plan RUNS runs, and to lead the same sweep again when all of them are finished: the journal
read, each run found unchanged, the table written. Their directories are copies of one that is trained here.

overhead: RUNS short runs by JOBS processes, which a bare loop over the same runs in as many processes is compared with.
Both begin with everything imported, and take turns, so that a busy machine slows both alike; `processor_overhead` is of
processor seconds, of all processes together, which others on the machine disturb less. A second sweep whose runs share
a teacher and its targets says how often those were made.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from kdprune.config import Config, from_dict
from kdprune.pipeline.train import run
from kdprune.report.report import make_report, save_tables
from kdprune.runs.reading import read_summary
from kdprune.sweep.conduct import Sweep
from kdprune.sweep.journal import FOLDER
from kdprune.sweep.local import LocalLauncher
from kdprune.sweep.plan import Plan, make_plan
from kdprune.sweep.record import write_study
from kdprune.sweep.seal import prints_of, seal_of
from kdprune.sweep.sections import read_study


def config(output: Path, epochs: float, **teacher: Any) -> Config:
    """A run on the digits."""
    train = {"epochs": epochs, "batch_size": 64, "lr": 0.05, "precision": "no", "eval_every": 100}
    content = {"output": str(output), "data": {"augment": "crop(1)"}, "student": {"model": "mlp_64"}, "train": train}
    return from_dict({**content, "seeds": {"teacher": 0}, "teacher": teacher})


def plan_of(base: Config, runs: int) -> Plan:
    """A plan of so many runs, which differ in α, keep fraction and seed, or without a teacher in the latter two."""
    alphas = [0.5, 1.0] if base.teacher.models else [0.5]
    grid = {"subset.keep_fraction": [0.4, 0.5], "seed": list(range(max(1, runs // 2 // len(alphas))))}
    if base.teacher.models:
        grid["distill.alpha"] = alphas
    return make_plan(read_study("sweep", base, {"grid": grid}), 0.1, 1)


class Nobody:
    """A launcher that counts what it is asked to start, and starts nothing."""

    at_once = threads = free = 1
    remembered = frozenset[str]()
    started = 0

    def start(self, task: Any) -> None:
        raise AssertionError(f"{task.id} is finished, and is started")

    def events(self, timeout: float) -> Sequence[Any]:
        return []

    def stop(self) -> None:
        """Nothing is under way."""


def planning(folder: Path, runs: int) -> dict[str, Any]:
    """Seconds and memory of planning many runs, and of finding them finished."""
    base = config(folder, 1, models="mlp_64", targets="cached", train={"epochs": 1, "lr": 0.05})
    begun, processor = time.perf_counter(), time.process_time()
    plan = plan_of(base, runs)
    planned, planned_processor = time.perf_counter() - begun, time.process_time() - processor
    _pretend(plan, folder)
    begun, processor = time.perf_counter(), time.process_time()
    sweep = Sweep(plan, folder / FOLDER / "sweep")
    write_study(plan, sweep.folder)
    sweep.conduct(Nobody())
    report = make_report([folder / FOLDER / "sweep"])
    save_tables(report, folder / FOLDER / "sweep")
    again, again_processor = time.perf_counter() - begun, time.process_time() - processor
    entries = report.gathered.entries
    assert {entry.state for entry in entries} == {"finished"}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "runs": len(entries), "planning_seconds": planned, "planning_processor_seconds": planned_processor,
        "finished_again_seconds": again, "finished_again_processor_seconds": again_processor, "peak_gb": memory,
    }  # fmt: skip


def _pretend(plan: Plan, folder: Path) -> None:
    """Finished runs for a plan: copies of one that is trained, and the journal of a sweep that made them."""
    trained = run(config(folder / "one", 1))[0].path
    prints = prints_of(read_summary(trained))
    journal = Sweep(plan, folder / FOLDER / "sweep").journal
    journal.folder.mkdir(parents=True)
    lines = []
    for id, one in plan.finals:
        path = folder / id
        shutil.copytree(trained, path)
        entry = {"id": id, "what": "run", "state": "finished", "path": str(path)}
        lines.append(json.dumps({**entry, "seal": seal_of(one.config, path, prints)}))
    (journal.folder / "journal.jsonl").write_text("\n".join(lines) + "\n")


def overhead(folder: Path, runs: int, jobs: int, epochs: float, turns: int) -> dict[str, Any]:
    """The time of sweeps over that of bare loops."""
    ratios = []
    for turn in range(turns):
        by_sweep = _by_sweep(plan_of(config(folder / f"sweep {turn}", epochs), runs), folder / f"sweep {turn}", jobs)
        by_loops = _by_loops(plan_of(config(folder / f"loop {turn}", epochs), runs), jobs)
        ratios.append(
            {
                "sweep_seconds": by_sweep[0], "loop_seconds": by_loops[0], "overhead": by_sweep[0] / by_loops[0] - 1,
                "processor_overhead": by_sweep[1] / by_loops[1] - 1,
            }
        )  # fmt: skip
    shared = folder / "shared"
    base = config(shared, 1, models="mlp_64", targets="cached", train={"epochs": 1, "lr": 0.05})
    plan = plan_of(base, 8)
    _by_sweep(plan, shared, jobs)
    teachers = len(list(shared.glob("teachers/*/summary.json")))
    asked = sum(
        read_summary(path.parent)["cost"]["target_caching"]["forward_samples"] for path in shared.glob("*/summary.json")
    )
    medians = {name: statistics.median(row[name] for row in ratios) for name in ("overhead", "processor_overhead")}
    counted = {"runs": len(plan.finals), "teachers_made": teachers, "target_passes_of_runs": asked}
    return {"runs": runs, "jobs": jobs, **medians, "turns": ratios, "shared": counted}


def _by_sweep(plan: Plan, output: Path, jobs: int) -> tuple[float, float]:
    with LocalLauncher(jobs, "digits") as launcher:
        _warm(jobs)
        begun, processor = time.perf_counter(), _processor_seconds()
        sweep = Sweep(plan, output / FOLDER / "sweep")
        sweep.conduct(launcher)
        assert sweep.complete
        return time.perf_counter() - begun, _processor_seconds() - processor


def _by_loops(plan: Plan, jobs: int) -> tuple[float, float]:
    configs = [one.config for _, one in plan.finals]
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=_loop, args=(configs[first::jobs],)) for first in range(jobs)]
    begun, processor = time.perf_counter(), _processor_seconds()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return time.perf_counter() - begun, _processor_seconds() - processor


def _processor_seconds() -> float:
    """Of this process, of the one that others are forked from, and of all of these that have ended."""
    server = next(child for child in psutil.Process().children() if "forkserver" in " ".join(child.cmdline()))
    times = server.cpu_times()
    return time.process_time() + times.user + times.system + times.children_user + times.children_system


def _loop(configs: Sequence[Config]) -> None:
    import torch

    gc.freeze()  # as the processes of a sweep do, so that neither looks through what was imported
    torch.set_num_threads(1)
    for one in configs:
        run(one)


def _warm(jobs: int) -> None:
    """Have the process that others are forked from import everything first."""
    process = multiprocessing.get_context("forkserver").Process(target=_loop, args=([],))
    process.start()
    process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["plan", "overhead"], default="plan")
    parser.add_argument("--runs", type=int, help="1000 to plan, 20 to train")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--epochs", type=float, default=60, help="of each short run")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.part == "plan":
            found = planning(Path(folder), options.runs or 1000)
        else:
            found = overhead(Path(folder), options.runs or 20, options.jobs, options.epochs, options.turns)
    print(json.dumps({"part": options.part, **found}))


if __name__ == "__main__":
    main()
