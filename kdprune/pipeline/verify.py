"""`kdprune verify`: whether what lies on the disk is what was written there."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kdprune.artefact import FILE, Key, damage, read_record
from kdprune.data.dataset import cache_root
from kdprune.pipeline.lineage import teacher_run
from kdprune.runs.reading import SUMMARY, read_config, read_summary
from kdprune.teachers.cache import TARGETS
from kdprune.teachers.cache_check import damaged_entries
from kdprune.training.checkpoint import damaged_checkpoints

log = logging.getLogger("kdprune")


@dataclass
class Verified:
    """What was found in one folder.

    Attributes:
        what: it holds.
        files: how many were read and compared.
        problems: what is wrong, a line each.
        finished: whether all of it is there.
    """

    folder: Path
    what: str
    files: int
    finished: bool
    problems: list[str] = field(default_factory=list)


def verify(folders: Iterable[Path]) -> Iterator[Verified]:
    """Check whatever lies in the folders, and the teachers, decoded images and cached targets that runs were made of.

    Raises:
        FileNotFoundError: a folder that is not there, or has nothing in it that could be checked.
    """
    seen: set[Path] = set()
    for folder in folders:
        found = sorted(path.parent for path in folder.rglob(FILE)) if folder.is_dir() else []
        if not found:
            raise FileNotFoundError(f"{folder} holds no run and no cache: there is no {FILE} in it")
        while found:
            one = found.pop(0)
            if one.resolve() not in seen:
                seen.add(one.resolve())
                result = verify_one(one)
                yield result
                found += [] if result.problems else _sources(one)


def verify_one(folder: Path) -> Verified:
    """Check one artefact: every file against its digest, checkpoints and cached targets against their checksums."""
    try:
        record = read_record(folder)
    except ValueError as error:
        return Verified(folder, "damaged", 0, False, [str(error)])
    if record is None:
        return Verified(folder, "a teacher's run", 0, False, [f"{folder / FILE} is missing"])
    files = record.get("files", {})
    result = Verified(folder, record["what"], len(files), "files" in record, damage(folder))
    checkpoints = sorted((folder / "checkpoints").glob("step_*.pth"))
    result.files += len(checkpoints)
    result.problems += damaged_checkpoints(checkpoints)
    if record["what"] == TARGETS:  # which any run fills on, so they are never finished
        result.finished = True
        try:
            views, problems = damaged_entries(folder, record["key"])
        except ValueError as error:
            views, problems = 0, [str(error)]
        result.files += views
        result.problems += problems
    return result


def _sources(run: Path) -> Iterator[Path]:
    """Teachers' runs, decoded images and cached targets that a run was made of, where they are still there."""
    if not (run / SUMMARY).is_file():
        return
    config, data = read_config(run), _key(run).get("data")
    data = data if isinstance(data, dict) else {}
    stores = cache_root(config.data.root) / "decoded"
    for folder in _artefacts(stores):
        if _key(folder).get("fingerprint", data.get("train")) in (data.get("train"), data.get("test")):
            yield folder
    described = read_summary(run)["teacher"]
    for teacher, made_of in zip(described, read_summary(run).get("inputs", {}).get("teachers", []), strict=False):
        found = teacher_run(run, teacher["source"]) if made_of.get("run") is not None else None
        if found is not None:
            yield found[0]
    teachers = [teacher.get("weights_hash") for teacher in described]
    for folder in _artefacts(Path(config.teacher.cache or Path(config.output) / "targets")):
        key = _key(folder)
        teacher = key.get("teacher")
        made_by = teacher.get("weights") if isinstance(teacher, dict) else None
        if not key or (key.get("data") == data.get("train") and made_by in teachers):
            yield folder  # or one whose record cannot be read, and which may be the run's


def _artefacts(folder: Path) -> list[Path]:
    """Those in a folder that settings name, which may be any: its subfolders are looked at, and no others."""
    return sorted(path.parent for pattern in (FILE, f"*/{FILE}") for path in folder.glob(pattern))


def _key(folder: Path) -> Key:
    try:
        record = read_record(folder)
    except ValueError:
        return {}
    return {} if record is None else record["key"]
