"""Artefacts: results that are made once, kept, and found again by what they were made of.

Everything that is made and kept is one: the decoded images, a teacher, cached targets, a search for α, a student. It is
a folder, a key and a way to make it. The **key** is a dictionary of JSON values that holds all that the result is a
function of: hashes of contents (data, subset, weights), the resolved precision, a version of the code that makes it and
the settings that it depends on, no others; never a path or a name, behind which contents can change.

`artefact.json` in the folder holds the key from the moment that making begins, and once it is finished a digest of each
of its files. So one question, "is the key there mine?", answers whether a result may be used and whether an unfinished
one may be gone on with.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from kdprune.files import digest, write_json
from kdprune.outside import MAPPING, TEXT, below, check_fields, mapping_of, read_json

log = logging.getLogger("kdprune")

FILE = "artefact.json"
LOCK = ".lock"

Key = dict[str, Any]


class Artefact:
    """A folder that holds a result, or will.

    Args:
        folder: made when something is first written.
        what: what it holds, in words, for messages ("a run", "decoded images").
        key: what the result is a function of; nested dictionaries of JSON values.
        advice: how a user gets out of a refusal, the end of the message.
        preamble: names of files that may lie in the folder although nothing of value was made yet.
    """

    def __init__(
        self,
        folder: Path,
        what: str,
        key: Mapping[str, Any],
        advice: str = "remove the folder, or name another one",
        preamble: Iterable[str] = (),
    ) -> None:
        self.folder, self.what, self.advice = folder, what, advice
        self.key: Key = json.loads(json.dumps(key))  # as it will be read back: tuples are lists, keys are text
        self._preamble = {FILE, LOCK, *preamble}

    @property
    def finished(self) -> bool:
        """Whether the result is there.

        Raises:
            ValueError: the folder holds something else, and what differs; or nothing says what it holds.
        """
        stored = self._stored()
        return stored is not None and "files" in stored

    def begin(self) -> None:
        """Write down what is about to be made here, unless it is there already."""
        if self._stored() is None:
            write_json(self.folder / FILE, {"what": self.what, "key": self.key})

    def reopen(self) -> None:
        """A finished artefact is unfinished again, so that it is made anew."""
        write_json(self.folder / FILE, {"what": self.what, "key": self.key})

    def finish(self, files: Iterable[str]) -> None:
        """Write down that it is made.

        Args:
            files: names of the files that belong to it, relative to the folder.
        """
        digests = {name: digest(self.folder / name) for name in files}
        write_json(self.folder / FILE, {"what": self.what, "key": self.key, "files": digests})

    def _stored(self) -> dict[str, Any] | None:
        """The content of `artefact.json` where it is this artefact; None where the folder is free."""
        try:
            stored = read_record(self.folder)
        except ValueError as error:
            raise ValueError(f"{error}: {self.advice}") from None
        if stored is None:
            if found := self._contents():
                raise ValueError(
                    f"{self.folder} holds {found[0]}, and no {FILE} that says what it belongs to: {self.advice}"
                )
            return None
        different = differences(stored["key"], self.key)
        if not different:
            return stored
        if "files" not in stored and not self._contents():
            return None  # it was refused, or stopped, before anything was made; `begin` writes over it
        raise ValueError(f"{self.folder} holds {self.what} of something else ({'; '.join(different)}): {self.advice}")

    def _contents(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        # Empty folders and unfinished temporary files are nothing to lose.
        found = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        return sorted(str(path) for path in found if str(path) not in self._preamble and path.suffix != ".tmp")

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Be the only process that makes this artefact; another one that does is waited for.

        The lock is the operating system's, so a process that dies leaves none behind.

        Raises:
            ValueError: the lock is no file of this folder, and what it leads to would be written over.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / LOCK
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise ValueError(f"{path} is no file of this folder, but a link, a pipe or the like: remove it")
        lock = filelock.FileLock(self.folder / LOCK, is_singleton=False)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            log.info("%s is being made by %s: waiting for it", self.folder, _owner(self.folder / LOCK))
            lock.acquire(poll_interval=0.2)
        try:
            with contextlib.suppress(OSError):  # only a message depends on it
                (self.folder / LOCK).write_text(f"process {os.getpid()} on {platform.node()}")
            yield
        finally:
            lock.release()


def obtain(artefact: Artefact, make: Callable[[], Iterable[str]]) -> None:
    """Make an artefact if it is not there; however many processes ask at once, one makes it.

    Args:
        make: writes the files into the folder, and gives their names.
    """
    if artefact.finished:
        return
    with artefact.owned():
        if not artefact.finished:  # another process may have finished it meanwhile
            artefact.begin()
            artefact.finish(make())


_FIELDS = {"what": TEXT, "key": MAPPING, "files": mapping_of(TEXT)}


def read_record(folder: Path) -> dict[str, Any] | None:
    """What `artefact.json` of a folder says: `what`, `key`, and `files` where it is finished; None if there is none.

    Raises:
        ValueError: it is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    return check_fields(read_json(path), _FIELDS, str(path), may_lack=["files"])


def damage(folder: Path) -> list[str]:
    """What is wrong with the files of a finished artefact, a line each; reads all of them."""
    record = read_record(folder)
    files = {} if record is None else record.get("files", {})
    found = []
    for name, expected in files.items():
        try:
            path = below(folder, name)
        except ValueError as error:
            found.append(f"{folder / FILE} is damaged: {error}")
            continue
        if not path.is_file():  # a pipe or a device, which might never end, is none
            found.append(f"{path} is missing")
        elif digest(path) != expected:
            found.append(f"{path} is not what was written: its digest differs")
    return found


def key_hash(key: Mapping[str, Any]) -> str:
    """SHA-256 of a key, hex; equal for equal keys, whatever the order of their entries."""
    return hashlib.sha256(json.dumps(_flat(key), sort_keys=True).encode()).hexdigest()


def differences(stored: Mapping[str, Any], requested: Mapping[str, Any]) -> list[str]:
    """Where two keys differ, for a person: "train.lr: 0.05 there, 0.1 asked for"."""
    old, new = _flat(stored), _flat(requested)
    return [
        f"{name}: {_short(old.get(name))} there, {_short(new.get(name))} asked for"
        for name in dict.fromkeys([*new, *old])
        if old.get(name) != new.get(name)
    ]


def _flat(key: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted names and values as JSON, without those that are null: a later version may add a setting."""
    flat: dict[str, str] = {}
    for name, value in key.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            flat[f"{prefix}{name}"] = json.dumps(_canonical(value), ensure_ascii=False)
    return flat


def _canonical(value: Any) -> Any:
    """15 and 15.0 are one value; so are lists and tuples."""
    if isinstance(value, list | tuple):
        return [_canonical(part) for part in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _short(value: str | None) -> str:
    text = "nothing" if value is None else value.strip('"')
    return f"{text[:12]}…" if len(text) in (32, 64) and text.isalnum() else text


def _owner(lock: Path) -> str:
    try:
        return lock.read_text() or "another process"
    except OSError:
        return "another process"


def is_held(file: Path) -> bool:
    """Whether a process holds the lock of a file now."""
    if not file.is_file():
        return False
    lock = filelock.FileLock(file, is_singleton=False)
    try:
        lock.acquire(timeout=0)
    except (filelock.Timeout, OSError):
        return True
    lock.release()
    return False
