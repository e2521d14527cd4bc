"""Which samples runs kept, by which scores: the different selections of a section, each with the files that tell."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdprune.data.scores import Scores, load_scores
from kdprune.data.subset import Subset, load_subset
from kdprune.report.entries import Entry
from kdprune.report.sections import Section
from kdprune.runs.reading import SUBSET

log = logging.getLogger("kdprune")

FILES = "*/scores.parquet"  # in <output>/scores


@dataclass(frozen=True)
class Selection:
    """Samples that were kept in the same way by arms of the section, as their first seed kept them.

    Attributes:
        label: how: selector, scorer, keep fraction.
        series: of the arms that did so.
        scores: that the samples were chosen by; None where chance chose them, or the file is gone.
    """

    label: str
    entry: Entry
    subset: Subset
    scores: Scores | None
    series: tuple[int, ...]
    keep: float


def selections_of(section: Section, left_out: list[str]) -> list[Selection]:
    """The different ways to choose samples in a section; of several seeds the first stands for all.

    Args:
        left_out: is given what could not be read, in words.
    """
    groups: dict[tuple[Any, ...], list[tuple[int, Entry]]] = {}
    for arm in section.arms:
        for entry in arm.finished[:1]:
            if float(entry.summary.get("keep_fraction", 1.0)) < 1.0:
                groups.setdefault(_key(entry, arm.keep), []).append((arm.series, entry))
    found: list[Selection] = []
    files: dict[str, Scores] = {}
    for key, members in groups.items():
        entry = members[0][1]
        assert entry.run is not None
        try:
            subset = load_subset(entry.run.path / SUBSET)
            scores = _scores(entry, files)
        except (ValueError, OSError) as error:
            left_out.append(str(error))
            continue
        label = f"{_how(entry)} · keep {key[0]:g}"
        found.append(Selection(label, entry, subset, scores, tuple(dict.fromkeys(s for s, _ in members)), key[0]))
    return found


def _key(entry: Entry, keep: float | None) -> tuple[Any, ...]:
    values, scores = entry.values, (entry.summary.get("inputs") or {}).get("scores")
    scorer = scores.get("scorer") if isinstance(scores, dict) else None
    names = ("subset.selector", "subset.balanced", "subset.class_floor", "subset.without_classes", "subset.file")
    return (keep or 0.0, scorer, *(repr(values.get(name)) for name in names))


def _how(entry: Entry) -> str:
    values, scores = entry.values, (entry.summary.get("inputs") or {}).get("scores")
    if values.get("subset.file"):
        return f"file {Path(str(values['subset.file'])).name}"
    selector = str(values.get("subset.selector"))
    return f"{selector} by {scores['scorer']}" if isinstance(scores, dict) and "scorer" in scores else selector


def _scores(entry: Entry, files: dict[str, Scores]) -> Scores | None:
    """The score file of a run: the one that its settings name, or the one of the same contents in its output."""
    told = (entry.summary.get("inputs") or {}).get("scores")
    if not isinstance(told, dict) or entry.run is None:
        return None
    hash = str(told.get("hash"))
    if hash in files:
        return files[hash]
    given = entry.values.get("subset.scores")
    folders = [entry.run.path.parent / "scores", Path(str(entry.values.get("output"))) / "scores"]
    candidates: Sequence[Path] = [
        *([Path(str(given))] if given else []),
        *(file for folder in dict.fromkeys(folders) for file in sorted(folder.glob(FILES))),
    ]
    for file in candidates:
        if file.is_file():
            scores = load_scores(file)
            files[scores.hash] = scores
            if scores.hash == hash:
                return scores
    raise FileNotFoundError(f"{entry.run.path.name}: the score file that it was selected by is not there")
