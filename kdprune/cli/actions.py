"""What each command does with its options. Each imports what it needs, so that no other command waits for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from jsonargparse import Namespace


def is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def train(options: Namespace) -> int:
    from kdprune.cli.logging import log_to_console
    from kdprune.cli.table import print_table
    from kdprune.pipeline.train import run

    with log_to_console():
        results = run(options.config_object)
    if is_main_process():
        print_table([result.summary for result in results])
    return 0


def sweep(options: Namespace) -> int:
    from kdprune.cli.logging import log_to_console
    from kdprune.cli.sweep import sweep as run_sweep

    with log_to_console():
        return run_sweep(options, options.config_object)


def plan(options: Namespace) -> int:
    from kdprune.cli.logging import log_to_console
    from kdprune.cli.plan import plan as make_plan

    with log_to_console():
        return make_plan(options, options.config_object)


def lottery(options: Namespace) -> int:
    from kdprune.cli.logging import log_to_console
    from kdprune.cli.lottery import lottery as train_levels

    with log_to_console():
        train_levels(options, options.config_object)
    return 0


def cache(options: Namespace) -> int:
    from kdprune.cli.logging import log_to_console
    from kdprune.pipeline.cache import cache as fill

    with log_to_console():
        fill(options.config_object, options.verify)
    return 0


def record(options: Namespace) -> int:
    from kdprune.cli.logging import log_to_console
    from kdprune.pipeline.train import record as observe

    with log_to_console():
        folders = observe(options.kind, options.config_object)
    if is_main_process():
        print(*folders, sep="\n")
    return 0


def score(options: Namespace) -> int:
    from kdprune.cli.logging import log_to_console
    from kdprune.cli.score import print_scores

    with log_to_console():
        print_scores(options.scorers, [Path(record) for record in options.records], options)
    return 0


def evaluate(options: Namespace) -> int:
    from kdprune.cli.evaluate import print_evaluation
    from kdprune.cli.logging import log_to_console

    with log_to_console():
        print_evaluation(Path(options.run), options.json, options.class_mass)
    return 0


def select(options: Namespace) -> int:
    from kdprune.cli.logging import log_to_console
    from kdprune.cli.select import select_and_describe

    with log_to_console():
        select_and_describe(options)
    return 0


def analyse(what: str) -> Callable[[Namespace], int]:
    def run(options: Namespace) -> int:
        from kdprune.cli import analyse
        from kdprune.cli.logging import log_to_console

        settings = [options.config_object] if hasattr(options, "config_object") else []
        with log_to_console():
            getattr(analyse, f"analyse_{what}")(options, *settings)
        return 0

    return run


def landscape(what: str) -> Callable[[Namespace], int]:
    def run(options: Namespace) -> int:
        from kdprune.cli import landscape
        from kdprune.cli.logging import log_to_console

        with log_to_console():
            getattr(landscape, f"analyse_{what}")(options)
        return 0

    return run


def export(options: Namespace) -> int:
    from kdprune.cli.export import print_export
    from kdprune.cli.logging import log_to_console

    with log_to_console():
        print_export(options)
    return 0


def shrink(options: Namespace) -> int:
    from kdprune.cli.logging import log_to_console
    from kdprune.cli.shrink import print_shrunk

    with log_to_console():
        print_shrunk(options)
    return 0


def predict(options: Namespace) -> int:
    from kdprune.cli.export import print_predictions
    from kdprune.cli.logging import log_to_console

    with log_to_console():
        return print_predictions(options)


def runs(options: Namespace) -> int:
    from kdprune.cli.logging import log_to_console
    from kdprune.cli.runs import print_runs

    with log_to_console():
        print_runs(options)
    return 0


def report(options: Namespace) -> int:
    from kdprune.cli.logging import log_to_console
    from kdprune.cli.report import write_report

    with log_to_console():
        write_report(options)
    return 0


def show(options: Namespace) -> int:
    from kdprune.cli.lineage import print_lineage

    print_lineage(Path(options.run))
    return 0


def verify(options: Namespace) -> int:
    from kdprune.cli.logging import log_to_console
    from kdprune.cli.verify import print_verified

    with log_to_console():
        return print_verified([Path(folder) for folder in options.folders])


def list_plugins(options: Namespace) -> int:
    from kdprune.cli.logging import log_to_console
    from kdprune.cli.plugins import print_list
    from kdprune.cli.unused import warn_of_unused
    from kdprune.config.conditions import only

    of_models = only(lambda options: options.kind in (None, "models"), "it is of models")
    with log_to_console():
        warn_of_unused(options, {"filter": (of_models,)})
        print_list(options.kind, options.filter)
    return 0
