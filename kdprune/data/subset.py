"""The kept part of a training set, as a file: which sample ids, how they were chosen, from which data."""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kdprune import registry
from kdprune.files import read_json, write_json, write_whole

FORMAT = "kdprune subset 1"
INLINE = 100_000  # more kept ids than this stand in a binary file beside the JSON

log = logging.getLogger("kdprune")


@dataclass(frozen=True)
class Subset:
    """Kept sample ids.

    Attributes:
        ids: ascending, int64 K, positions in the unpruned training set.
        total: samples of the unpruned training set.
        fingerprint: of the data set that the ids belong to.
        chosen: how: selector, keep_fraction, balanced, seed.
        dropped: sample ids of unreadable images, which nothing was allowed to choose.
    """

    ids: np.ndarray
    total: int
    fingerprint: str
    chosen: dict[str, Any] = field(default_factory=dict)
    dropped: tuple[int, ...] = ()

    @property
    def keep_fraction(self) -> float:
        return len(self.ids) / self.total

    @property
    def hash(self) -> str:
        """SHA-256 over the ids, hex: two subsets with the same hash keep the same samples."""
        return hashlib.sha256(self.ids.astype("<i8").tobytes()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write `subset.json`, and the ids beside it as `subset.ids.npy` when there are many."""
        path = Path(path)
        content = {
            "format": FORMAT,
            "dataset_fingerprint": self.fingerprint,
            "total": self.total,
            "kept": len(self.ids),
            "keep_fraction": self.keep_fraction,
            "chosen": self.chosen,
            "dropped": list(self.dropped),
            "hash": self.hash,
        }
        if len(self.ids) > INLINE:
            beside = path.with_suffix(".ids.npy")
            write_whole(beside, lambda file: np.save(file, self.ids, allow_pickle=False))
            content["ids_file"] = beside.name
        else:
            content["ids"] = self.ids.tolist()
        write_json(path, content)


def load_subset(path: str | Path, fingerprint: str | None = None, total: int | None = None) -> Subset:
    """Read a subset file and check it against the data set that it is about to be used with.

    Raises:
        ValueError: another data set, damaged ids, ids outside the data set: each says what was found and expected.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is not a subset file: its 'format' should be {FORMAT!r}")
    if missing := {"dataset_fingerprint", "total", "chosen", "dropped", "hash"} - set(content):
        raise ValueError(f"{path} is damaged: it has no {sorted(missing)[0]!r}")
    ids = _read_ids(path, content)
    subset = Subset(ids, content["total"], content["dataset_fingerprint"], content["chosen"], tuple(content["dropped"]))
    if subset.hash != content["hash"]:
        raise ValueError(f"{path}: the ids do not match the hash in the file, so one of them was changed")
    if fingerprint is not None and subset.fingerprint != fingerprint:
        raise ValueError(
            f"{path} was made from another data set (its fingerprint is {subset.fingerprint[:12]}…, "
            f"this data set's is {fingerprint[:12]}…)"
        )
    if total is not None and subset.total != total:
        raise ValueError(f"{path} speaks of {subset.total} samples, the data set has {total}")
    if not len(ids) or np.any(np.diff(ids) <= 0) or ids[0] < 0 or ids[-1] >= subset.total:
        raise ValueError(f"{path}: ids must be ascending, without repetition, between 0 and {subset.total - 1}")
    return subset


def _read_ids(path: Path, content: dict[str, Any]) -> np.ndarray:
    if "ids_file" not in content and "ids" not in content:
        raise ValueError(f"{path} is damaged: it has neither 'ids' nor 'ids_file'")
    try:
        if "ids" in content:
            return np.array(content["ids"], dtype=np.int64).reshape(-1)
        return np.load(path.parent / content["ids_file"], allow_pickle=False).astype(np.int64).reshape(-1)
    except (ValueError, TypeError, OverflowError, EOFError) as error:
        raise ValueError(f"{path}: its ids cannot be read: {error}") from None


def select(
    labels: np.ndarray,
    fingerprint: str,
    keep_fraction: float,
    selector: str = "random",
    balanced: bool = False,
    seed: int = 0,
    dropped: np.ndarray | None = None,
    without_classes: Sequence[int] = (),
) -> Subset:
    """Choose a subset of round(keep_fraction · N) samples, at least one and at most what may be chosen.

    keep_fraction counts all N samples, whatever is excluded: kept / all means the same in every run.

    Args:
        labels: int64 N, -1 where there is no label.
        fingerprint: of the data set.
        keep_fraction: kept / all, in (0, 1].
        selector: registered name.
        balanced: exact share for every class.
        seed: the same seed gives the same subset everywhere.
        dropped: sample ids that must not be chosen.
        without_classes: classes of which no sample must be chosen.

    Raises:
        ValueError: keep_fraction outside (0, 1]; `balanced` or `without_classes` without labels; nothing is left.
    """
    if not 0 < keep_fraction <= 1:
        raise ValueError(f"--subset.keep_fraction: {keep_fraction} given, allowed is (0, 1]")
    if balanced and (labels < 0).any():
        raise ValueError("--subset.balanced: the data set has samples without a label, so classes cannot be balanced")
    dropped = np.array([], dtype=np.int64) if dropped is None else dropped
    if len(without_classes) and (labels < 0).any():
        raise ValueError("--subset.without_classes: the data set has samples without a label")
    excluded = np.flatnonzero(np.isin(labels, without_classes))
    candidates = np.setdiff1d(np.arange(len(labels)), np.union1d(dropped, excluded))
    if not len(candidates):
        raise ValueError("--subset.without_classes: all classes are given, so that no sample is left")
    count = min(max(1, round(keep_fraction * len(labels))), len(candidates))
    ids = registry.get("selectors", selector)(candidates, labels, count, seed, balanced=balanced)
    warn_of_lost_classes(labels, ids, without_classes)
    chosen = {"selector": selector, "keep_fraction": keep_fraction, "balanced": balanced, "seed": seed}
    if len(without_classes):
        chosen["without_classes"] = list(without_classes)
    return Subset(ids, len(labels), fingerprint, chosen, tuple(int(i) for i in dropped))


def class_ids(wanted: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Class indices of names or indices; a name comes before an index that reads the same.

    Raises:
        ValueError: an unknown class, with what is allowed.
    """
    ids = {str(index): index for index in range(len(classes))} | {name: i for i, name in enumerate(classes)}
    for item in wanted:
        if item not in ids:
            near = difflib.get_close_matches(item, classes, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"--subset.without_classes: unknown class {item!r}{hint} "
                f"(allowed: {_some(classes)}, or an index from 0 to {len(classes) - 1})"
            )
    return sorted({ids[item] for item in wanted})


def warn_of_lost_classes(labels: np.ndarray, ids: np.ndarray, without_classes: Sequence[int] = ()) -> None:
    """Warn when a class of the full set has no sample left; only say so where that was asked for."""
    if len(without_classes):
        log.info(
            "the subset keeps no sample of %d classes (%s), as --subset.without_classes asks",
            len(without_classes), _some(without_classes),
        )  # fmt: skip
    lost = np.setdiff1d(labels[labels >= 0], np.append(labels[ids], without_classes))
    if len(lost):
        log.warning(
            "the subset of %d samples keeps no sample of %d classes (%s): keep more, or use --subset.balanced true",
            len(ids), len(lost), _some(lost),
        )  # fmt: skip


def _some(classes: Sequence[Any] | np.ndarray) -> str:
    return ", ".join(map(str, classes[:10])) + (" …" if len(classes) > 10 else "")
