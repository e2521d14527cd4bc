"""`kdprune select`: subset files from a score file, and what subsets are. Imports nothing heavy at its top."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from kdprune.checks import check_seed
from kdprune.cli.subset_tables import print_description, print_subsets
from kdprune.cli.unused import warn_of_unused
from kdprune.config.conditions import only
from kdprune.files import check_writable, check_writable_file

if TYPE_CHECKING:
    from kdprune.data.scores import Scores
    from kdprune.data.subset import Subset
    from kdprune.selectors.common.samples import Samples


def _reads(what: str) -> Callable[[Namespace], bool]:
    def reads(options: Namespace) -> bool:
        from kdprune.selectors.common.select import needs_of

        return what in needs_of(options.selector)

    return reads


_SELECTED = only(lambda options: options.keep_fraction, "without --keep_fraction nothing is selected")
CONDITIONS = {
    **dict.fromkeys(("selector", "balanced", "class_floor", "without_classes", "seed", "output"), (_SELECTED,)),
    "hard": (_SELECTED, only(_reads("scores"), "selector {selector} reads no scores")),
    "features": (_SELECTED, only(_reads("features"), "selector {selector} reads no features")),
    "data_root": (only(lambda options: options.data, "without --data no images are read"),),
    "figures": (only(lambda options: options.describe is not None, "without --describe nothing is drawn"),),
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--scores", type=str, nargs="+", required=True,
        help="Score file to select by; further ones are compared with it by --describe.",
    )  # fmt: skip
    parser.add_argument("--keep_fraction", type=str, help="Kept samples / all samples; or several, such as 0.1,0.3.")
    parser.add_argument("--selector", type=str, default="hardest", help="A name, or NAME(ARGUMENTS).")
    parser.add_argument("--features", type=str, help="Record of embeddings, for selectors that read features.")
    parser.add_argument("--hard", choices=["high", "low"], help="Which scores are hard, against the file.")
    parser.add_argument(
        "--balanced", type=bool, nargs="?", const=True, default=False, help="Exact share of each class."
    )
    parser.add_argument(
        "--class_floor", type=float, default=0,
        help="Least number of kept samples of each class, or a share in (0, 1) of what uniform pruning would leave.",
    )  # fmt: skip
    parser.add_argument("--without_classes", type=str, default="", help="Classes of which none is kept: A,B.")
    parser.add_argument("--seed", type=int, default=0, help="Of draws and of the order of equal scores.")
    parser.add_argument(
        "--output", type=str, default="subset.json",
        help="Subset file; of several fractions, each gets its own: subset_0.1.json, …",
    )  # fmt: skip
    parser.add_argument(
        "--describe", type=str, nargs="*",
        help="Describe subset files by tables and PNGs; without a name, those that are just selected.",
    )  # fmt: skip
    parser.add_argument("--data", type=str, help="The data set, for contact sheets of its images.")
    parser.add_argument("--data_root", type=str, help="Where downloads live, as --data.root of a run.")
    parser.add_argument("--figures", type=str, help="Folder of PNGs (default: the first subset's name + _figures).")


def select_and_describe(options: Namespace) -> None:
    """Check all options, select, write, describe.

    Raises:
        ValueError: as the selection does; neither a fraction nor a subset file; data that do not belong together.
    """
    from kdprune.data.scores import load_scores

    fractions = fractions_of(options.keep_fraction)
    if not fractions and not options.describe:
        raise ValueError("--keep_fraction: none given, and no subset file to --describe")
    if options.data and options.describe is None:
        raise ValueError("--data: only contact sheets need images; add --describe")
    check_seed(options.seed, "--seed")
    with _standing_alone():
        warn_of_unused(options, CONDITIONS)
    paths = _outputs(options, fractions)
    figures = None if options.describe is None else _figures(options, [*paths, *map(Path, options.describe)])
    scores = {name: load_scores(path) for name, path in named(options.scores).items()}
    subsets = _selected(options, paths, next(iter(scores.values())))
    for path, subset in subsets.items():
        subset.save(path)
    if subsets:
        print_subsets(subsets)
    if figures is not None:
        _describe(options, paths, scores, figures)


def fractions_of(text: str | None) -> list[float]:
    """The fractions in '0.1,0.3'.

    Raises:
        ValueError: one of them is no number in (0, 1], or stands there twice.
    """
    fractions = []
    for part in (text or "").split(",") if text else []:
        try:
            fraction = float(part)
        except ValueError:
            fraction = 0.0
        if not 0 < fraction <= 1:
            raise ValueError(f"--keep_fraction: {part.strip()!r} given, allowed are numbers in (0, 1], such as 0.1,0.3")
        fractions.append(fraction)
    if len(set(fractions)) < len(fractions):
        raise ValueError(f"--keep_fraction: {text!r} given, allowed is each number once")
    return fractions


def named(paths: Sequence[str]) -> dict[str, str]:
    """Paths by short names: those of the files, or as much of the path as tells them apart."""
    parts = 1
    while True:
        names = ["_".join(Path(path).with_suffix("").parts[-parts:]).replace("/", "") for path in paths]
        if len(set(names)) == len(names) or parts > max(len(Path(path).parts) for path in paths):
            return dict(zip(names, paths, strict=True))
        parts += 1


def _outputs(options: Namespace, fractions: Sequence[float]) -> dict[Path, float]:
    """The fractions by the paths that their subsets are written to.

    Raises:
        ValueError: no subset file, or one that cannot be written.
    """
    output = Path(options.output)
    if fractions and output.suffix != ".json":
        raise ValueError(f"--output: {options.output!r} given, allowed is a path that ends in .json")
    several = len(fractions) > 1
    paths = {output.with_name(f"{output.stem}_{one:g}.json") if several else output: one for one in fractions}
    for path in paths:
        check_writable_file(path, "--output")
    return paths


def _figures(options: Namespace, files: Sequence[Path]) -> Path:
    """The folder of figures of subset files.

    Raises:
        ValueError: nothing can be written there.
    """
    folder = Path(options.figures) if options.figures else files[0].parent / f"{files[0].stem}_figures"
    check_writable(folder, "--figures")
    return folder


def _selected(options: Namespace, fractions: Mapping[Path, float], scores: Scores) -> dict[Path, Subset]:
    """Subsets by the paths that they are written to; all are selected before the first is written."""
    from kdprune.data.subset import class_ids
    from kdprune.selectors.common.samples import samples_of
    from kdprune.selectors.common.select import select

    if not fractions:
        return {}
    with _standing_alone():
        samples = _with_features(samples_of(scores, hard=options.hard), options)
        without = class_ids([part.strip() for part in options.without_classes.split(",") if part], scores.classes)
        return {
            path: select(
                samples, fraction, options.selector, balanced=options.balanced, class_floor=options.class_floor,
                without_classes=without, seed=options.seed,
            )
            for path, fraction in fractions.items()
        }  # fmt: skip


@contextlib.contextmanager
def _standing_alone() -> Iterator[None]:
    """Here, the options of a run's subset stand alone."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error).replace("--subset.", "--")) from None


def _with_features(samples: Samples, options: Namespace) -> Samples:
    """The samples with the features of a record, where one is given."""
    from dataclasses import replace

    from kdprune.messages import shown
    from kdprune.records.rows import RowRecord
    from kdprune.selectors.common.select import needs_of

    reads = "features" in needs_of(options.selector)
    if options.features is None:
        if reads:
            raise ValueError(
                f"--subset.selector: {options.selector} reads features: give a record of embeddings with --features"
            )
        return samples
    if not reads:
        return samples
    record = RowRecord(Path(options.features))
    if record.about.fingerprint != samples.fingerprint:
        raise ValueError(f"--features: {shown(options.features)} is a record of another data set than the scores")
    return replace(samples, features=record.rows("features")[:], record=record.key_hash)


def _describe(options: Namespace, selected: Iterable[Path], scores: dict[str, Scores], folder: Path) -> None:
    from kdprune.data.subset import load_subset
    from kdprune.pipeline.describe import describe

    first = next(iter(scores.values()))
    files = named(list(dict.fromkeys([*map(str, selected), *options.describe])))
    subsets = {name: load_subset(path, first.fingerprint, first.total) for name, path in files.items()}
    source = _source(options, first) if options.data else None
    description = describe(subsets, scores)
    print_description(description)
    from kdprune.pipeline.figures import draw

    print(*draw(description, folder, source), sep="\n")


def _source(options: Namespace, scores: Scores) -> Any:
    """The training images that the scores belong to."""
    from kdprune.data.dataset import cache_root
    from kdprune.data.fingerprint import identify
    from kdprune.data.sources import open_source

    source = open_source(options.data, "train", cache_root(options.data_root))
    if (found := identify(source).fingerprint) != scores.fingerprint:
        raise ValueError(
            f"--data: {options.data} is not the data set of the scores (its fingerprint is {found[:12]}…, theirs is "
            f"{scores.fingerprint[:12]}…)"
        )
    return source
