"""The options of each command. Imports nothing heavy."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser

from kdprune.cli.config_file import ConfigFile
from kdprune.cli.help import SettingsParser
from kdprune.cli.launchers import add_launchers
from kdprune.config import Config


def _parser(description: str) -> ArgumentParser:
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
    parser = _parser("Score every sample of a data set by what was recorded.")
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
    parser = _parser("Measure the student of a run on held-out data.")
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

    parser = _parser("Export the student of a run, and compare what was made with it.")
    add_export_arguments(parser)
    return parser


def predict() -> ArgumentParser:
    from kdprune.cli.export import add_predict_arguments

    parser = _parser("Predict image files with the student of a run.")
    add_predict_arguments(parser)
    return parser


def analyse_noise() -> ArgumentParser:
    parser = train()
    parser.description = (
        "Find wrong labels: by a score file, or by detectors whose proxies are trained as for record (see --record.*)."
    )
    parser.add_argument("--scores", type=str, help="Score file whose hardest samples are suspect; trains nothing.")
    parser.add_argument(
        "--detectors", type=str, nargs="+", default=[],
        help="Scorers, and aum_indicator, AUM with a threshold of its own (default: el2n aum aum_indicator).",
    )  # fmt: skip
    parser.add_argument(
        "--planted", type=float, help="Flip this share of the labels first, and say how many are found."
    )
    parser.add_argument(
        "--share", type=float,
        help="Share of the samples that is called suspect, but by aum_indicator (default: what is planted, else 0.01).",
    )  # fmt: skip
    return parser


def analyse_ntk() -> ArgumentParser:
    parser = _of_ranks("Say how fast the neural tangent kernel of easy and of hard samples changes along a training.")
    parser.add_argument("--at", type=str, nargs="+", help="Snapshots, as in RUN@: 5, step300 (default: of all epochs).")
    parser.add_argument("--size", type=int, default=100, help="Samples of a window of ranks.")
    parser.add_argument("--windows", type=int, default=10, help="Windows, from the easiest samples to the hardest.")
    return parser


def analyse_barrier() -> ArgumentParser:
    parser = _of_ranks("Train two children of a run's snapshots, and measure the error barrier between them.")
    parser.add_argument(
        "--spawn", type=str, nargs="+", default=["0"],
        help="When children begin: 0 for the first weights, or snapshots, as in RUN@: 5, step300.",
    )  # fmt: skip
    parser.add_argument("--parts", type=int, default=10, help="Parts of the samples, from the easiest to the hardest.")
    parser.add_argument("--points", type=int, default=11, help="Networks on the line between two children.")
    return parser


def analyse_line() -> ArgumentParser:
    parser = _parser("Measure held-out error along the line between the students of two runs, and its barrier.")
    for name in ("one", "other"):
        parser.add_argument(name, type=str, help="Run directory, or a snapshot in it: RUN@EPOCH, RUN@stepSTEP.")
    _add_line_options(parser)
    return parser


def analyse_instability() -> ArgumentParser:
    parser = _parser("Train two children of a run's snapshots, and measure the line between them on held-out data.")
    parser.add_argument("run", type=str, help="Run directory, with snapshots (--train.save_steps).")
    parser.add_argument(
        "--spawn", type=str, nargs="+", default=["0"],
        help="When children begin: 0 for the weights that the run began with, or snapshots, as in RUN@: 5, step300.",
    )  # fmt: skip
    _add_line_options(parser)
    return parser


def analyse_prunable() -> ArgumentParser:
    parser = _parser(
        "Bisect how many weights of a trained run magnitude pruning can take at once, so that what is trained again "
        "after it has no barrier on the line from the run."
    )
    parser.add_argument("run", type=str, help="Run directory: dense, or a level of a lottery.")
    parser.add_argument(
        "--rewind_to", type=str, default="0",
        help="Weights of the run that are trained again: 0 for those that it began with, or a snapshot, as in RUN@.",
    )  # fmt: skip
    parser.add_argument("--tolerance", type=float, default=0.02, help="Barrier from which on it counts as one.")
    parser.add_argument("--probes", type=int, default=5, help="Trainings; the answer is known to 2^-probes.")
    _add_line_options(parser)
    return parser


def _add_line_options(parser: ArgumentParser) -> None:
    parser.add_argument("--points", type=int, default=11, help="Networks on a line, its ends among them.")
    parser.add_argument(
        "--statistics", choices=["measured", "interpolated"], default="measured",
        help="BatchNorm's: measured anew at each point, the ends among them, or interpolated like the weights.",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="Print one JSON object instead of a table.")
    parser.add_argument("--output", type=str, help="Folder for what is made (default: in the run's, or beside it).")


def _of_ranks(description: str) -> ArgumentParser:
    parser = _parser(description)
    parser.add_argument("run", type=str, help="Run directory, with snapshots (--train.save_epochs).")
    parser.add_argument("--scores", type=str, required=True, help="Score file of the run's data.")
    parser.add_argument("--output", type=str, help="Folder for what is made (default: in the run's, or beside it).")
    return parser


def analyse_classes() -> ArgumentParser:
    parser = _parser("Compare pruned runs with a full one, class by class.")
    parser.add_argument("full", type=str, help="Directory of a run on all samples.")
    parser.add_argument("pruned", type=str, nargs="+", help="Directories of runs on subsets of the same data.")
    parser.add_argument("--output", type=str, help="Folder for tables and figures (default: RUN/analysis).")
    return parser


def list() -> ArgumentParser:
    from kdprune.registry import KINDS

    parser = _parser("List plug-ins and models by name.")
    parser.add_argument("kind", type=str, nargs="?", help=f"{', '.join(KINDS)} or models (default: all).")
    parser.add_argument("--filter", type=str, default="*", help="Pattern for model names, such as 'resnet*'.")
    return parser


def select() -> ArgumentParser:
    from kdprune.cli.select import add_arguments

    parser = _parser("Select subsets by a score file, and describe what subsets are.")
    add_arguments(parser)
    return parser


def runs() -> ArgumentParser:
    from kdprune.cli.runs import add_arguments

    parser = _parser("List runs with what differs between them, compare two, or print the command that repeats one.")
    add_arguments(parser)
    return parser


def report() -> ArgumentParser:
    from kdprune.cli.report import add_arguments

    parser = _parser(
        "Write what sweeps and runs came to: one page with all figures that opens without a network, tables as CSV, "
        "parquet and Markdown."
    )
    add_arguments(parser)
    return parser


def show() -> ArgumentParser:
    parser = _parser("Show what a run was made of, as a tree: data, subset, teachers and their own runs.")
    parser.add_argument("run", type=str, help="Run directory.")
    return parser


def verify() -> ArgumentParser:
    parser = _parser("Check that every file is as it was written: runs, checkpoints, cached targets, decoded images.")
    parser.add_argument("folders", type=str, nargs="+", help="Run directories, or folders of them.")
    return parser
