"""`kdprune analyse`: tables on the console, and beside them CSV files and PNGs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

from kdprune.analysis.barrier import error_barriers
from kdprune.analysis.classes import effects
from kdprune.analysis.detect import SHARE, Detected, detect
from kdprune.analysis.noise import Suspects, hardest_share
from kdprune.analysis.velocity import velocities
from kdprune.cli import plots
from kdprune.cli.console import console
from kdprune.cli.rows import file_name, folder_of, pivoted, print_rows, save_rows, say_paths
from kdprune.config import Config
from kdprune.config.situation import FROM_SCORES
from kdprune.data.scores import load_scores
from kdprune.data.sources.base import Source
from kdprune.pipeline.effect import settled

SHOWN = 20  # suspects on the console


def analyse_noise(options: Any, config: Config) -> None:
    """Suspects of a score file, or of detectors that are trained for it; with planted noise, how many are found."""
    if options.scores:
        for name in ("planted", "detectors"):
            if getattr(options, name):
                raise ValueError(f"--{name}: given beside --scores, which are of the labels as they are; leave one out")
        settled(config, FROM_SCORES)
        path = Path(options.scores)
        found = hardest_share(load_scores(path), SHARE if options.share is None else options.share, config.seed)
        folder = Path(config.output) / "noise" / path.parent.name
        _print_suspects(found, path.parent.name or path.stem)
        paths = [_save_suspects(folder / "suspects.csv", found)]
        paths.append(plots.draw_noise({found.scores.scorer: found}, None, folder / "noise.png"))
        return say_paths(paths)
    asked = {"detectors": options.detectors} if options.detectors else {}
    detected = detect(config, planted=options.planted, share=options.share, **asked)
    return say_paths(_save_detected(detected)) if PartialState().is_main_process else None


def _save_detected(detected: Detected) -> list[Path]:
    print_rows(detected.table, "wrong labels" if detected.is_wrong is None else "planted wrong labels")
    folder, source = detected.folder, detected.session.data.train.source
    if detected.is_wrong is None:
        for name, found in detected.suspects.items():
            _print_suspects(found, name, source)
    paths = [save_rows(folder / "noise.csv", detected.table)]
    for name, found in detected.suspects.items():
        more = {} if detected.is_wrong is None else {"true_label": detected.true_labels, "planted": detected.is_wrong}
        paths.append(_save_suspects(folder / f"suspects_{file_name(name)}.csv", found, source, more))
        if name == "aum_indicator":
            found.scores.save(folder / "aum_indicator.parquet")
            paths.append(folder / "aum_indicator.parquet")
    return [*paths, plots.draw_noise(detected.suspects, detected.is_wrong, folder / "noise.png")]


def analyse_ntk(options: Any) -> None:
    """The velocity of the kernel, by rank and pair of snapshots."""
    run = Path(options.run)
    folder = folder_of(options.output, run)
    rows = velocities(run, Path(options.scores), options.at or (), options.size, options.windows)
    drawn = [{**row, "between": f"{row['from']} → {row['to']}"} for row in rows]
    print_rows(pivoted(drawn, "percentile", "between", "velocity"), "NTK velocity")
    labels = {
        "percentile": "percentile of difficulty",
        "velocity": "kernel velocity (cosine distance)",
        "between": "between",
    }
    paths = [save_rows(folder / "ntk.csv", rows)]
    say_paths([*paths, plots.draw_lines(drawn, "percentile", "velocity", "between", labels, folder / "ntk.png")])


def analyse_barrier(options: Any) -> None:
    """The error barrier of children, by part of the samples and spawning time."""
    run = Path(options.run)
    folder = folder_of(options.output, run)
    rows = error_barriers(
        run, Path(options.scores), options.spawn, options.parts, options.points, output=options.output
    )
    if not PartialState().is_main_process:
        return
    named = [{**row, "from": f"from {row['spawn']}"} for row in rows]
    print_rows(pivoted(named, "part", "from", "barrier"), "training error barrier")
    labels = {"step": "step at which the children part", "barrier": "training error barrier",
              "part": f"part (1 of {options.parts} is the easiest)"}  # fmt: skip
    by_step = sorted(rows, key=lambda row: (row["part"], row["step"]))
    paths = [save_rows(folder / "barrier.csv", rows)]
    say_paths([*paths, plots.draw_lines(by_step, "step", "barrier", "part", labels, folder / "barrier.png")])


def analyse_classes(options: Any) -> None:
    """The effect of pruning on each class."""
    paths, runs = [], [Path(run) for run in options.pruned]
    folders = [folder_of(options.output and Path(options.output, run.name), run) for run in runs]
    for effect, folder in zip(effects(Path(options.full), runs), folders, strict=True):
        if not PartialState().is_main_process:
            continue
        print_rows(effect.rows[:50], f"{effect.run.name}: effect on each class, the worst hit first")
        console().print(
            f"kept share and change of accuracy: Pearson {effect.pearson:.3f}, Spearman {effect.spearman:.3f}; "
            f"accuracy of the worst class {100 * effect.worst[0]:.1f}% → {100 * effect.worst[1]:.1f}%"
        )
        paths.append(save_rows(folder / "classes.csv", effect.rows))
        paths.append(plots.draw_classes(effect.rows, effect.run.name, folder / "classes.png"))
    say_paths(paths)


def _print_suspects(found: Suspects, name: str, source: Source | None = None) -> None:
    rows = _suspect_rows(found, source)[:SHOWN]
    if rows:
        title = f"{name}: {found.flagged.sum():,} of {found.scores.total:,} labels are suspect, the worst first"
        print_rows(rows, title)


def _suspect_rows(found: Suspects, source: Source | None, more: Mapping[str, np.ndarray] | None = None) -> list[Any]:
    scores = found.scores
    return [
        {
            "sample_id": int(i),
            "label": int(scores.labels[i]),
            "class": scores.classes[scores.labels[i]] if 0 <= scores.labels[i] < len(scores.classes) else "",
            "score": float(scores.values[i]),
            **({} if source is None else {"image": source.describe(int(i))}),
            **{column: values[i].item() for column, values in (more or {}).items()},
        }
        for i in found.ids
    ]


def _save_suspects(
    path: Path, found: Suspects, source: Source | None = None, more: Mapping[str, np.ndarray] | None = None
) -> Path:
    return save_rows(path, _suspect_rows(found, source, more), ["sample_id", "label", "class", "score"])
