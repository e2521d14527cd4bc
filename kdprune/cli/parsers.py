"""The options of each command. Imports nothing heavy."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser

from kdprune.cli.config_file import ConfigFile
from kdprune.cli.help import SettingsParser
from kdprune.cli.launchers import add_launchers
from kdprune.config import Config


def plain(description: str) -> ArgumentParser:
    """Of a command without settings of runs."""
    return ArgumentParser(description=description, exit_on_error=False, allow_abbrev=False)


def train() -> ArgumentParser:
    parser = SettingsParser(
        description="Train a student on a kept subset, with a teacher.", exit_on_error=False, allow_abbrev=False,
        usage="%(prog)s [--config FILE.yaml] [--SETTING VALUE ...]",
    )  # fmt: skip
    train_options(parser)
    return parser


def train_options(parser: ArgumentParser) -> None:
    """Add all settings of a run."""
    parser.add_argument("--config", action=ConfigFile, help="YAML file with any of the settings below.")
    parser.add_class_arguments(Config, as_group=False)


def sweep() -> ArgumentParser:
    from kdprune.cli.study import StudyParser

    parser = StudyParser(
        description="Train a grid of runs, and what they share once: a study file, or axes on the command line.",
        exit_on_error=False, allow_abbrev=False,
        usage="%(prog)s [--config STUDY.yaml] [--grid.SETTING A,B ...] [--tune.SETTING A,B ...] [--SETTING VALUE ...]",
    )  # fmt: skip
    train_options(parser)
    parser.add_argument("--grid", type=Any, help="Axes: settings with the values that all others are combined with.")
    parser.add_argument("--zip", type=Any, help="Settings whose values go together, the first with the first, …")
    parser.add_argument("--arms", type=Any, help="An axis of named arms, each with its settings.")
    parser.add_argument("--exclude", type=Any, help="Coordinates that are left out, such as 'arm=none seed=2'.")
    parser.add_argument(
        "--tune", type=Any,
        help="Settings with values of which one is chosen for each arm on a validation part of the training set; or "
        "names of axes of the grid.",
    )  # fmt: skip
    parser.add_argument("--tune_val_fraction", type=float, default=0.1, help="Part of the training set that judges.")
    parser.add_argument("--tune_seeds", type=int, default=1, help="Runs of an arm that try each value.")
    add_launchers(parser)
    parser.add_argument("--retry", type=int, default=0, help="How often a run that failed is tried again.")
    parser.add_argument(
        "--dry_run", action="store_true",
        help="Print the runs, what they share, and what all of it will take, measured by a few real steps.",
    )  # fmt: skip
    return parser


def plan() -> ArgumentParser:
    from kdprune.cli.plan import add_arguments
    from kdprune.cli.study import StudyParser

    parser = StudyParser(
        description="Say what to train for a budget, by short runs and the curves through them, with an interval.",
        exit_on_error=False, allow_abbrev=False,
        usage="%(prog)s [--config RECIPE.yaml] --budget 2h [--grid.SETTING A,B ...] [--SETTING VALUE ...]",
    )  # fmt: skip
    train_options(parser)
    parser.add_argument("--grid", type=Any, help="Axes: settings with the values that all others are combined with.")
    parser.add_argument("--zip", type=Any, help="Settings whose values go together, the first with the first, …")
    parser.add_argument("--arms", type=Any, help="An axis of named arms, each with its settings.")
    parser.add_argument("--exclude", type=Any, help="Coordinates that are left out.")
    add_arguments(parser)
    return parser


def lottery() -> ArgumentParser:
    from kdprune.cli.lottery import add_arguments

    parser = train()
    parser.description = "Prune a student's weights level by level, and train each level again (lottery tickets)."
    add_arguments(parser)
    return parser


def cache() -> ArgumentParser:
    parser = train()
    parser.description = "Fill the cached targets that training with the same settings would read."
    parser.add_argument("--verify", action="store_true", help="Compute a sample of the entries again and compare.")
    return parser


def record() -> ArgumentParser:
    parser = train()
    parser.description = "Record what scorers need: of proxies (see --record.*), of a teacher, of any model."
    parser.usage = "%(prog)s KIND [--config FILE.yaml] [--SETTING VALUE ...]"
    parser.add_argument("kind", type=str, help="dynamics, embeddings, gradients, teacher or memorization.")
    return parser


def score() -> ArgumentParser:
    parser = plain("Score every sample of a data set by what was recorded.")
    parser.add_argument("scorers", type=str, nargs="+", help="Names, or NAME(ARGUMENTS); see kdprune list scorers.")
    parser.add_argument(
        "--from", type=str, nargs="+", dest="records", required=True,
        help="A record; or several: runs that recorded their dynamics, one a repeat, or records of teachers.",
    )  # fmt: skip
    parser.add_argument("--scores", type=str, help="Score file of another scorer, for those that start from one.")
    parser.add_argument("--seed", type=int, default=0, help="Of scorers that draw.")
    parser.add_argument("--output", type=str, default="runs/scores", help="Folder of score files.")
    parser.add_argument(
        "--workers", type=int,
        help="Processes of one thread that scorers of embeddings are divided among; with --launcher ray, tasks at a "
        "time (default: none, and all threads of this process; with --launcher ray, all CPUs of the cluster).",
    )  # fmt: skip
    parser.add_argument(
        "--launcher", choices=["local", "ray"], default="local",
        help="Where workers are: on this machine, or on a Ray cluster (pip install 'kdprune[ray]').",
    )  # fmt: skip
    parser.add_argument(
        "--ray_address", type=str, help="Of the Ray cluster: auto (default), HOST:PORT, or local for one of its own."
    )
    return parser


def evaluate() -> ArgumentParser:
    parser = plain("Measure the student of a run on held-out data.")
    parser.add_argument("run", type=str, help="Run directory.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object instead of tables.")
    parser.add_argument(
        "--class_mass", choices=["missing", "all"],
        help="Measure it once more with class biases moved so that the mean predicted probability over the training "
        "images is the frequency of the class in the training set: of the classes missing in its subset, or of all.",
    )  # fmt: skip
    return parser


def export() -> ArgumentParser:
    from kdprune.cli.export import add_export_arguments

    parser = plain("Export the student of a run, and compare what was made with it.")
    add_export_arguments(parser)
    return parser


def shrink() -> ArgumentParser:
    from kdprune.cli.shrink import add_arguments

    parser = plain("Remove channels of a run's student: smaller and dense, to be fine-tuned.")
    add_arguments(parser)
    return parser


def predict() -> ArgumentParser:
    from kdprune.cli.export import add_predict_arguments

    parser = plain("Predict image files with the student of a run.")
    add_predict_arguments(parser)
    return parser


def list() -> ArgumentParser:
    from kdprune.registry import KINDS

    parser = plain("List plug-ins and models by name.")
    parser.add_argument("kind", type=str, nargs="?", help=f"{', '.join(KINDS)} or models (default: all).")
    parser.add_argument("--filter", type=str, default="*", help="Pattern for model names, such as 'resnet*'.")
    return parser


def select() -> ArgumentParser:
    from kdprune.cli.select import add_arguments

    parser = plain("Select subsets by a score file, and describe what subsets are.")
    add_arguments(parser)
    return parser


def runs() -> ArgumentParser:
    from kdprune.cli.runs import add_arguments

    parser = plain("List runs with what differs between them, compare two, or print the command that repeats one.")
    add_arguments(parser)
    return parser


def report() -> ArgumentParser:
    from kdprune.cli.report import add_arguments

    parser = plain(
        "Write what sweeps and runs came to: one page with all figures that opens without a network, tables as CSV, "
        "parquet and Markdown."
    )
    add_arguments(parser)
    return parser


def show() -> ArgumentParser:
    parser = plain("Show what a run was made of, as a tree: data, subset, teachers and their own runs.")
    parser.add_argument("run", type=str, help="Run directory.")
    return parser


def verify() -> ArgumentParser:
    parser = plain("Check that every file is as it was written: runs, checkpoints, cached targets, decoded images.")
    parser.add_argument("folders", type=str, nargs="+", help="Run directories, or folders of them.")
    return parser
