"""`kdprune plan`: what to train for a budget; afterwards, whether that came true."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

from kdprune.checks import check_name
from kdprune.cli.launchers import warn_of_jobs
from kdprune.cli.study import name_of
from kdprune.cli.unused import warn_of_unused
from kdprune.config import Config, dotted, to_dict
from kdprune.config.conditions import Condition, only
from kdprune.messages import counted, shown
from kdprune.planning.budget import Budget, parse

if TYPE_CHECKING:
    from kdprune.planning.planner import Outcome, Planner

log = logging.getLogger("kdprune")

WIDTH = 140  # where the output is no terminal
NAMES = {"val_top1": "validation %", "test_top1": "test %"}

_NO_HISTORY = only(lambda o: not o.history, "--history only reads the plans in --output")
_PLANS: tuple[Condition, ...] = (_NO_HISTORY, only(lambda o: o.check is None, "--check only reads one plan"))
UNUSED: dict[str, tuple[Condition, ...]] = {
    **dict.fromkeys(("budget", "pilot_share", "jobs", "dry_run", "grid", "zip", "arms", "exclude"), _PLANS),
    "check": (_NO_HISTORY,),
}


def unused(typed: frozenset[str]) -> dict[str, tuple[Condition, ...]]:
    """Under which options of a plan matter, and settings that were typed: a recipe may hold what nobody asks for."""
    settings = [name for name in dotted(to_dict(Config())) if name in typed and name != "output"]
    output = (only(lambda o: o.history or o.check is None, "--check only reads one plan"),)
    return {**UNUSED, "output": output, **dict.fromkeys(settings, _PLANS)}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--budget", type=str,
        help="What the pilots, what they are made of and the run may take: 2h, 90min, '3 gpu-hours', '5e7 passes'.",
    )  # fmt: skip
    parser.add_argument("--pilot_share", type=float, default=0.2, help="Of the budget, for pilots; 0: none are made.")
    parser.add_argument("--jobs", type=int, default=1, help="Pilots at a time, each with its share of the cores.")
    parser.add_argument("--dry_run", action="store_true", help="Print the pilots and what they will take.")
    parser.add_argument(
        "--check", type=str, help="Compare this plan (a folder, or its plan.json) with its run, once that is finished."
    )
    parser.add_argument("--history", action="store_true", help="Say how often the intervals of all plans held.")


def plan(options: Any, config: Config) -> int:
    """Plan, or look back; the exit status: 1 if nothing can be said."""
    warn_of_unused(options, unused(options.typed))
    if options.history:
        return _look_back(Path(config.output))
    if options.check is not None:
        return _check(Path(options.check))
    budget = parse(options.budget)
    name = name_of(options) if options.name or options.config else "plan"
    check_name(name)
    return _plan(name, budget, options, config)


def _plan(name: str, budget: Budget, options: Any, config: Config) -> int:
    from kdprune.planning.arms import SECTIONS, read_arms
    from kdprune.planning.planner import Planner
    from kdprune.sweep.local import LocalLauncher
    from kdprune.sweep.tuning import confounded

    study, arms = read_arms(name, config, {section: options[section] for section in SECTIONS})
    warning = confounded(study)
    if warning is not None:
        log.warning("%s", warning.replace("--tune.train.lr chooses", "--grid.train.lr 0.05,0.1,0.2 lets a plan choose"))
    warn_of_jobs(options.jobs)
    with LocalLauncher(options.jobs, config.data.dataset) as launcher:
        planner = Planner(name, study.base, arms, budget, options.pilot_share, launcher.threads)
        if options.dry_run:
            _print_design(planner)
            return 0
        outcome = planner.outcome(launcher)
    return _print_outcome(outcome, budget)


def _print_design(planner: Planner) -> None:
    from kdprune.planning.design import REPEATS

    design, budget = planner.design, planner.budget
    table = Table(title=f"{REPEATS * sum(map(len, design.lengths.values()))} pilots for {len(design.lengths)} arms")
    for title in ("arm", "steps of its pilots", "finished runs"):
        table.add_column(title, justify="left" if title == "arm" else "right")
    for name, lengths in design.lengths.items():
        table.add_row(
            name, ", ".join(f"{REPEATS} × {steps:,}" for steps in lengths) or "-", str(len(planner.found[name]))
        )
    _console().print(table)
    _print_dropped(design.dropped)
    print(planner.words())
    print(f"{budget.words(planner.left(design.pilots + design.parts))} would be left for the run")


def _print_outcome(outcome: Outcome, budget: Budget) -> int:
    document = outcome.document
    names = list(document["arms"][0]["predicted"]) if document["arms"] else []
    table = Table(title=f"what a run for {budget.words(document['left'])} will reach, of {budget.text}")
    for title in ("arm", "steps", *(NAMES.get(name, name) for name in names), "best with", "reached"):
        table.add_column(title, justify="left" if title == "arm" else "right")
    for arm in document["arms"]:
        chosen = arm["name"] == document["recommended"]
        table.add_row(
            arm["name"], f"{arm['steps']:,}", *(interval(arm["predicted"][name]) for name in names),
            f"{100 * arm['chance']:.0f}%", _reached(arm), style="bold" if chosen else None,
        )  # fmt: skip
    _console().print(table)
    _print_dropped(document["unknown"])
    print(f"in brackets: where it will lie with {document['level']:.0%} probability (docs/plan.md: how often it did)")
    print(document["arms"][0]["command"])
    print(*outcome.paths, sep="\n")
    return 0


def _print_dropped(dropped: dict[str, str]) -> None:
    for name, reason in dropped.items():
        print(f"left out: {name}: {reason}")


def interval(predicted: dict[str, float]) -> str:
    """A prediction in percent."""
    return f"{100 * predicted['median']:.1f} [{100 * predicted['low']:.1f}, {100 * predicted['high']:.1f}]"


def _reached(arm: dict[str, Any]) -> str:
    if arm["result"] is None:
        return "-"
    return " ".join(
        f"{100 * top1:.1f}{'' if arm['result']['held'][name] else ' (outside)'}"
        for name, top1 in arm["result"]["reached"].items()
    )


def _check(path: Path) -> int:
    from kdprune.planning.document import FILE, compared, load, save

    content = load(path)
    if content["state"] != "planned":
        raise ValueError(f"--check: {path} holds no prediction yet: the command that made it goes on")
    content = compared(content)
    if path.is_dir() or path.name == FILE:
        save(path if path.is_dir() else path.parent, content)
    compared_arms = [arm for arm in content["arms"] if arm["result"] is not None]
    if not compared_arms:
        print(f"no run of this plan is finished in {content['output']}; the recommended one:")
        print(next(arm["command"] for arm in content["arms"] if arm["name"] == content["recommended"]))
        return 1
    for arm in compared_arms:
        for name, top1 in arm["result"]["reached"].items():
            held = "within" if arm["result"]["held"][name] else "outside"
            print(
                f"{arm['name']}: {name} {100 * top1:.2f}, predicted {interval(arm['predicted'][name])}: {held}, "
                f"{100 * arm['result']['error'][name]:+.2f} points"
            )
    return 0


def _look_back(output: Path) -> int:
    from kdprune.planning.document import FILE, FOLDER, compared, load, save, tally

    plans = []
    for file in sorted((output / FOLDER).glob(f"*/{FILE}")):
        try:
            content = load(file)
        except (ValueError, OSError) as error:
            log.warning("%s is left out: %s", file, error)
            continue
        if content["state"] == "planned":
            content = compared(content)
            save(file.parent, content)
        plans.append(content)
    counts = tally(plans)
    print(f"{counted(len(plans), 'plan')} in {shown(str(output / FOLDER))}")
    for name, of_name in counts.items():
        print(
            f"{name}: the interval held for {of_name['held']} of {of_name['runs']} runs "
            f"({of_name['recommended_held']} of {of_name['recommended']} that were recommended)"
        )
    if not counts:
        print("none of their runs is finished")
    return 0


def _console() -> Console:
    return Console(width=None if Console().is_terminal else WIDTH)
