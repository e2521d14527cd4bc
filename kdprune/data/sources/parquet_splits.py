"""Which parquet files of a folder make up the training split, and which are held out."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from kdprune.data.sources.base import HELD_OUT

# train.parquet, train-00000-of-00004.parquet, and the hub's train-00000-of-00004-0123456789abcdef.parquet
_FILE = re.compile(rf"(train|{'|'.join(HELD_OUT)})(?:-(\d+)-of-(\d+)(?:-[0-9a-f]+)?)?\.parquet")
LAYOUT = "train.parquet and test.parquet or validation.parquet, or shards such as train-00000-of-00004.parquet"


def find_splits(folder: Path, name: str) -> tuple[list[Path], dict[str, list[Path]]]:
    """Files of the training split (empty if there is none) and of each held-out split, in order.

    Files may lie in the folder, in subfolders, or in subfolders called like the split (`train/0000.parquet`).

    Raises:
        ValueError: no parquet files, none of a known split, shards missing, or several data sets in one folder.
    """
    files = sorted(folder.absolute().rglob("*.parquet"))
    if not files:
        raise ValueError(f"{name}: no parquet files in {folder}; expected {LAYOUT}")
    splits: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        splits[_split(file)].append(file)
    other = splits.pop("", [])
    if not splits:
        raise ValueError(
            f"{name}: no split in the names {', '.join(file.name for file in other[:5])}; expected {LAYOUT}"
        )
    for split, shards in splits.items():
        _check_shards(split, shards, name)
    return splits.get("train", []), {split: splits[split] for split in HELD_OUT if split in splits}


def _split(file: Path) -> str:
    match = _FILE.fullmatch(file.name)
    if match:
        return match[1]
    return file.parent.name if file.parent.name in ("train", *HELD_OUT) else ""


def _check_shards(split: str, files: list[Path], name: str) -> None:
    folders = sorted({str(file.parent) for file in files})
    if len(folders) > 1:
        raise ValueError(f"{name}: {split} files in several folders, give one of them: {', '.join(folders)}")
    numbers = [match.groups() for file in files if (match := _FILE.fullmatch(file.name))]
    totals = {total for _, _, total in numbers}
    if len(totals) > 1:
        raise ValueError(f"{name}: {split} files of different sets: {', '.join(file.name for file in files[:5])}")
    if totals and (total := totals.pop()) is not None and len(files) != int(total):
        raise ValueError(f"{name}: {len(files)} of the {int(total)} {split} shards are in {folders[0]}")
