"""What a sweep remembers: a line of JSON for each task that ended. Only hints and messages depend on it.

What is finished is known by the artefacts themselves, and is found by their contents. The journal says where a run was
found last time, so that what it is made of need not be looked for, and why one failed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from kdprune.artefact import read_record
from kdprune.outside import open_regular, parse_json

FOLDER, FILE, LOCK = "sweeps", "journal.jsonl", ".lock"


class Journal:
    """The journal of the sweep in a folder, which only one process leads at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Lead the sweep.

        Raises:
            ValueError: another process does.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.folder / LOCK, is_singleton=False)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ValueError(f"{self.folder}: another process is at this sweep; give this one another --name") from None
        try:
            yield
        finally:
            lock.release()

    def write(self, entry: dict[str, Any]) -> None:
        """Add an entry in one call, so that a killed process leaves at most its last line unfinished."""
        with open(self.folder / FILE, "ab+") as file:
            torn = file.tell() and not _ends_a_line(file)
            file.write(b"\n" * bool(torn) + json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def entries(self) -> Iterator[dict[str, Any]]:
        """All entries; lines that are none are passed over."""
        with contextlib.suppress(FileNotFoundError), open_regular(self.folder / FILE) as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    entry = parse_json(line, str(self.folder / FILE))
                    if isinstance(entry, dict) and isinstance(entry.get("id"), str):
                        yield entry

    def last(self) -> dict[str, dict[str, Any]]:
        """The latest entry for each id."""
        return {entry["id"]: entry for entry in self.entries()}

    def seen_finished(self) -> dict[str, dict[str, Any]]:
        """Entries, by their ids, of runs that were finished last time and whose directories say so still."""
        return {id: entry for id, entry in self.last().items() if entry.get("state") == "finished" and _is_there(entry)}


def _is_there(entry: dict[str, Any]) -> bool:
    with contextlib.suppress(ValueError, OSError):
        record = read_record(Path(entry["path"])) if isinstance(entry.get("path"), str) else None
        return record is not None and "files" in record
    return False


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
