"""Whether all entries of a folder of cached targets are whole, whatever teacher they are of."""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from kdprune.artefact import FILE, Key
from kdprune.outside import check_fields, whole
from kdprune.teachers.cache import TargetCache, whole_pages

_VIEW = re.compile(r"view_(\d{5,9})\.bin")


def damaged_entries(folder: Path, key: Key) -> tuple[int, list[str]]:
    """Check every entry of a folder of cached targets against its checksum.

    Args:
        key: of the folder, as `targets_key` makes it.

    Returns:
        How many views there are, and what is wrong, a line each.

    Raises:
        ValueError: a key that is none of cached targets.
    """
    check_fields(key, {"samples": whole(1, 2**48)}, str(folder / FILE))
    paths, total = sorted(path for path in folder.glob("view_*.bin") if _VIEW.fullmatch(path.name)), key["samples"]
    # A file that is longer or shorter than the others is found by its length.
    length = statistics.mode(path.stat().st_size for path in paths) if paths else 0
    if paths and length < whole_pages(4 * total):  # nothing is made as long as a column that is not there
        return len(paths), [f"{folder} is damaged: files of {length:,} bytes cannot hold targets of {total:,} samples"]
    cache = TargetCache(folder, key, total, _Form((length - whole_pages(4 * total)) // (2 * total)))
    views = [int(path.stem.removeprefix("view_")) for path in paths]
    problems = []
    for view in views:
        try:
            damaged = cache.damaged(view)
        except ValueError as error:
            problems.append(str(error))
            continue
        if len(damaged):
            path, first = folder / f"view_{view:05d}.bin", damaged[0]
            problems.append(f"{path}: {len(damaged):,} entries are damaged, the first one of sample {first}")
    return len(views), problems


@dataclass
class _Form:
    """The form of entries that are checked and never decoded."""

    words: int
    about: str = ""

    def encode(self, logits_NC: Tensor, like_NW: Tensor | None = None) -> Tensor:
        raise AssertionError

    def decode(self, words_NW: Tensor, temperature: float) -> Tensor:
        raise AssertionError
