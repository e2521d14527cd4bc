"""Files are written whole or not at all: a temporary file in the same folder, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from kdprune.outside import check_regular


def write_whole(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Call `write(file)` on a temporary file beside `path`, then put it in place in one step.

    Whatever goes wrong (a full disk, a kill), `path` holds either its old content or all of the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_text(path: str | Path, text: str) -> None:
    write_whole(path, lambda file: file.write(text.encode()))


def write_json(path: str | Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def load_array(path: str | Path) -> Any:
    """The array in a .npy file, mapped: a header that promises more than the file holds is refused, not allocated.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no regular file, no array, one of Python objects, or a cut one.
    """
    import numpy as np

    check_regular(path, os.stat(path))
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except Exception as error:  # a header is read by Python's own tokenizer, which has errors of its own
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(array, np.ndarray):  # an archive of several
        raise ValueError(f"{path} cannot be read: it holds no single array")
    return array


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def digest(path: str | Path) -> str:
    """XXH3-128 of a file, hex: finds what a disk or a hand has changed, and is no protection against an attacker."""
    state = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            state.update(block)
    return state.hexdigest()


def check_space(folder: Path, needed: int, what: str, advice: str) -> None:
    """Refuse to begin what the disk cannot hold.

    Args:
        folder: where it is to be written; made if it is not there.
        needed: bytes.
        what: is to be written, the subject of the message ("the decoded images").
        advice: what else can be done.

    Raises:
        OSError: ENOSPC, with what is needed and what is free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{what} need {in_bytes(needed)}, {in_bytes(free)} are free: {advice}", str(folder))


def in_bytes(count: int) -> str:
    """Bytes, for a person."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
