"""Files are written whole or not at all: a temporary file in the same folder, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import xxhash

from kdprune.outside import check_regular

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the user's share of it, the largest file that is allowed


class NoSpace(OSError):
    """A disk that cannot hold what is to be written; says what is needed and what is free."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


def write_whole(path: str | Path, write: Callable[[BinaryIO], object], replace: bool = True) -> None:
    """Call `write(file)` on a temporary file beside `path`, then put it in place in one step.

    Whatever goes wrong (a full disk, a kill), `path` holds either its old content or all of the new one.

    Args:
        replace: a file that is there; otherwise it stays, also if another process makes it meanwhile.

    Raises:
        NoSpace: the disk is full.
    """
    path = Path(path)
    counted = _Counted()
    try:
        with _beside(path) as (handle, temporary):
            with os.fdopen(handle, "wb") as file:
                counted.file = file
                write(cast(BinaryIO, counted))
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            if replace:
                os.replace(temporary, path)
            else:
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, path)
    except OSError as error:
        if error.errno in FULL and not isinstance(error, NoSpace):
            raise no_space(error, path, counted.bytes) from error
        if error.errno is not None and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[tuple[int, str]]:
    """A temporary file in the folder of `path`, open, and its name; afterwards there is none of this name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        yield handle, temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


class _Counted(io.BufferedIOBase):
    """A file that counts what it is given. It is no file of the operating system, past which numpy would write."""

    def __init__(self) -> None:
        self.file: BinaryIO | None = None
        self.bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        assert self.file is not None
        self.bytes += memoryview(content).nbytes
        return self.file.write(content)

    def tell(self) -> int:
        return self.bytes


def no_space(error: OSError, path: Path, needed: int | None = None) -> NoSpace:
    """What is said of a write that met the end of the disk, after what was written of the file is gone again."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    free = in_bytes(shutil.disk_usage(folder).free)
    needs = "" if needed is None else f"it needs at least {in_bytes(needed)}, "
    return NoSpace(error.errno, f"{needs}{free} are free ({error.strerror})", str(path))


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
        NoSpace: with what is needed and what is free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NoSpace(errno.ENOSPC, f"{what} need {in_bytes(needed)}, {in_bytes(free)} are free: {advice}", str(folder))


def check_writable(folder: str | Path, option: str) -> None:
    """Refuse a folder in which nothing can be written; it need not be there, and is not made.

    Args:
        option: that named it.

    Raises:
        ValueError: naming the option and what is in the way.
    """
    _check_place(Path(folder), folder, option, "a folder")


def check_writable_file(path: str | Path, option: str) -> None:
    """Refuse a file that cannot be written, or written anew; its folder need not be there, and is not made.

    Args:
        option: that named it.

    Raises:
        ValueError: naming the option and what is in the way.
    """
    if Path(path).is_dir():
        raise ValueError(f"{option}: {path} given, allowed is a file, and this is a folder")
    _check_place(Path(path).absolute().parent, path, option, "a file")


def _check_place(folder: Path, given: str | Path, option: str, allowed: str) -> None:
    """Refuse `given` where nothing can be written in a folder."""
    nearest = folder.absolute()
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if not nearest.is_dir():
        where = "this" if nearest == Path(given).absolute() else str(nearest)
        raise ValueError(f"{option}: {given} given, allowed is {allowed}, and {where} is no folder")
    try:
        with tempfile.TemporaryFile(dir=nearest):  # permissions alone do not tell, above all those of root
            pass
    except OSError as error:
        if error.errno not in FULL:
            reason = f"nothing can be written in {nearest} ({error.strerror})"
            raise ValueError(f"{option}: {given} given, and {reason}; name another folder") from None


def in_bytes(count: int) -> str:
    """Bytes, for a person."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
