"""`kdprune report`: tables, figures and one page of sweeps and runs; once, or as long as a sweep runs."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "sources", type=str, nargs="+",
        help="Folders of sweeps (OUTPUT/sweeps/NAME), run directories, or folders of them; several are compared.",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=str,
        help="Folder for report.html, results.csv, results.parquet and results.md (default: that of the first sweep, "
        "else SOURCE/report).",
    )  # fmt: skip
    parser.add_argument(
        "--baseline", type=str,
        help="Arms that others are compared with, at the same keep fraction: \"arm=none\", \"subset.scorer=none\" "
        "(default: those without a teacher; else those chosen at random; else the first).",
    )  # fmt: skip
    parser.add_argument("--figures", choices=["png", "svg"], help="Also write each figure as a file, for papers.")
    parser.add_argument(
        "--watch", action="store_true", help="Write it again whenever something changed, until the sweep has ended."
    )


def write_report(options: Namespace) -> None:
    """Write a report, and print the paths of its files.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no run there; a baseline that no arm is; a folder for it that is none.
    """
    from kdprune.files import check_writable
    from kdprune.messages import about
    from kdprune.report.draw import Writer
    from kdprune.report.report import make_report
    from kdprune.report.runs import check_folder
    from kdprune.report.study import is_sweep
    from kdprune.report.watch import follow
    from kdprune.sweep.study import value_words
    from kdprune.sweep.words import settings_of

    sources = list(dict.fromkeys(Path(source) for source in options.sources))
    with about("--baseline"):
        given = None if options.baseline is None else settings_of(options.baseline)
    baseline = None if given is None else {name: value_words(value) for name, value in given.items()}
    sweeps = [source for source in sources if is_sweep(source)]
    folder = Path(options.output) if options.output else sweeps[0] if sweeps else sources[0] / "report"
    for source in sources:
        check_folder(source)
    check_writable(folder, "--output")
    writer = Writer(folder, options.figures)
    if options.watch:
        follow(sources, lambda: make_report(sources, baseline), writer, print_paths)
    else:
        print_paths(writer.write(make_report(sources, baseline)))


def print_paths(paths: list[Path]) -> None:
    print(*paths, sep="\n", flush=True)
