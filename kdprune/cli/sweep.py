"""`kdprune sweep`: all runs of a study, and at the end a table of what they came to."""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from kdprune.checks import check_name
from kdprune.cli.console import console
from kdprune.cli.launchers import UNUSED, check_batches, check_place, launcher, warn_of_jobs
from kdprune.cli.study import name_of
from kdprune.cli.under_way import View
from kdprune.cli.unused import warn_of_unused
from kdprune.config import Config
from kdprune.sweep.sections import SECTIONS, read_study
from kdprune.sweep.study import Study, value_words, words
from kdprune.sweep.tuning import at_an_end, confounded

if TYPE_CHECKING:
    from kdprune.sweep.conduct import Launcher, Status
    from kdprune.sweep.plan import Plan

log = logging.getLogger("kdprune")


def sweep(options: Any, config: Config) -> int:
    """Make all runs of a study; the exit status: 1 if one could not be made."""
    name = name_of(options)
    check_name(name)
    if options.retry < 0:
        raise ValueError(f"--retry: {options.retry} given, allowed is 0 or more")
    study = read_study(name, config, {section: options[section] for section in SECTIONS})
    runs = study.runs()  # a mistake in any of them shows before anything is loaded
    warn_of_unused(options, UNUSED)
    if options.launcher == "local":
        warn_of_jobs(options.jobs)
    folder = Path(config.output) / "sweeps" / name
    with launcher(options, config, folder) as started:
        check_batches(runs, options.processes)
        return _conduct(study, started, folder, options)


def _conduct(study: Study, launcher: Launcher, folder: Path, options: Any) -> int:
    from kdprune.sweep.conduct import Sweep
    from kdprune.sweep.plan import make_plan
    from kdprune.sweep.record import write_study

    plan = make_plan(study, options.tune_val_fraction, options.tune_seeds)
    _warn(plan)
    if options.dry_run:
        from kdprune.cli.dry_run import print_plan

        print_plan(plan, launcher.at_once, launcher.threads)
        return 0
    check_place(launcher, folder)
    view = View()
    sweep = Sweep(plan, folder, options.retry, view.show)
    with contextlib.ExitStack() as stack, sweep.journal.owned():
        write_study(plan, folder)
        stack.callback(_save, folder)  # whatever ends it, and when nobody leads it any more
        with view.of(sweep):
            sweep.conduct(launcher)
    for arm, choice in sweep.chosen():
        for name, which in at_an_end(choice.values, choice.curve).items():
            log.warning(
                "%s: %s %s is the %s of those tried; a wider range may hold a better one",
                words(arm) or "tuning", name, value_words(choice.values[name]), which,
            )  # fmt: skip
    _print_tables(sweep.folder)
    for status in sweep.failed:
        _print_failure(status, sweep.log(status.node.id))
    return 0 if sweep.complete else 1


def _warn(plan: Plan) -> None:
    warning = confounded(plan.study)
    if warning is not None:
        log.warning("%s", warning)
    if plan.follows:
        log.warning(
            "tune.%s: what runs are made of changes with it, such as a teacher that is trained here and takes over the "
            "run's settings, so each value has one of its own; a setting of --teacher.train.* keeps it the same",
            ", ".join(plan.study.tuned),
        )


def _save(folder: Path) -> None:
    from kdprune.report.report import make_report, save_tables

    save_tables(make_report([folder]), folder)


def _print_tables(folder: Path) -> None:
    """The arms of the study, and where to find more."""
    from kdprune.report.report import make_report
    from kdprune.report.tables import CSV, MARKDOWN, NUMBERS, arm_table, cost_words

    report = make_report([folder])
    for section, bill in zip(report.sections, report.bills, strict=True):
        head, *lines = arm_table(section, bill)
        table = Table(title=f"{report.title}: top-1 at the last epoch, mean ± sd over seeds", caption=cost_words(bill))
        for index, name in enumerate(head):
            table.add_column(name, justify="right" if index >= len(head) - NUMBERS else "left")
        for line in lines:
            table.add_row(*map(Text, line))
        console().print(table)
    print(folder / CSV, folder / MARKDOWN, sep="\n")
    print(f"figures: kdprune report {shlex.quote(str(folder))}")


def _print_failure(status: Status, file: Path) -> None:
    print(f"{status.node.what}: {status.state}: {status.details.get('error', '')}", file=sys.stderr)
    if status.details.get("log"):
        lines = [f"    {line}" for line in status.details["log"].splitlines()]
        print(*lines, f"    ({file})", sep="\n", file=sys.stderr)
