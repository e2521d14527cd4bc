"""The options of what `kdprune analyse` can be asked. Imports nothing heavy."""

from __future__ import annotations

from jsonargparse import ArgumentParser

from kdprune.cli.parsers import plain, train


def noise() -> ArgumentParser:
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


def ntk() -> ArgumentParser:
    parser = _of_ranks("Say how fast the neural tangent kernel of easy and of hard samples changes along a training.")
    parser.add_argument("--at", type=str, nargs="+", help="Snapshots, as in RUN@: 5, step300 (default: of all epochs).")
    parser.add_argument("--size", type=int, default=100, help="Samples of a window of ranks.")
    parser.add_argument("--windows", type=int, default=10, help="Windows, from the easiest samples to the hardest.")
    return parser


def barrier() -> ArgumentParser:
    parser = _of_ranks("Train two children of a run's snapshots, and measure the error barrier between them.")
    parser.add_argument(
        "--spawn", type=str, nargs="+", default=["0"],
        help="When children begin: 0 for the first weights, or snapshots, as in RUN@: 5, step300.",
    )  # fmt: skip
    parser.add_argument("--parts", type=int, default=10, help="Parts of the samples, from the easiest to the hardest.")
    parser.add_argument("--points", type=int, default=11, help="Networks on the line between two children.")
    return parser


def line() -> ArgumentParser:
    parser = plain("Measure held-out error along the line between the students of two runs, and its barrier.")
    for name in ("one", "other"):
        parser.add_argument(name, type=str, help="Run directory, or a snapshot in it: RUN@EPOCH, RUN@stepSTEP.")
    _add_line_options(parser)
    return parser


def instability() -> ArgumentParser:
    parser = plain("Train two children of a run's snapshots, and measure the line between them on held-out data.")
    parser.add_argument("run", type=str, help="Run directory, with snapshots (--train.save_steps).")
    parser.add_argument(
        "--spawn", type=str, nargs="+", default=["0"],
        help="When children begin: 0 for the weights that the run began with, or snapshots, as in RUN@: 5, step300.",
    )  # fmt: skip
    _add_line_options(parser)
    return parser


def prunable() -> ArgumentParser:
    parser = plain(
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
    parser = plain(description)
    parser.add_argument("run", type=str, help="Run directory, with snapshots (--train.save_epochs).")
    parser.add_argument("--scores", type=str, required=True, help="Score file of the run's data.")
    parser.add_argument("--output", type=str, help="Folder for what is made (default: in the run's, or beside it).")
    return parser


def classes() -> ArgumentParser:
    parser = plain("Compare pruned runs with a full one, class by class.")
    parser.add_argument("full", type=str, help="Directory of a run on all samples.")
    parser.add_argument("pruned", type=str, nargs="+", help="Directories of runs on subsets of the same data.")
    parser.add_argument("--output", type=str, help="Folder for tables and figures (default: RUN/analysis).")
    return parser
