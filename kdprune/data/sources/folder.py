"""A folder of images: `train/` and a held-out folder of class folders, class folders alone, or images alone."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from pathlib import Path

import numpy as np
from PIL import Image

from kdprune.data.images import decode, open_image
from kdprune.data.sources.base import HELD_OUT, NoHeldOut, Source, Stamp, check_same_classes
from kdprune.outside import check_regular, open_regular

log = logging.getLogger("kdprune")

# torchvision's list and the newer formats of Pillow
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif", ".avif")
IN_MEMORY = 2**26  # bytes of a file that is read whole; of a larger one Pillow reads what it needs
LAYOUT = "expected train/CLASS/*.jpg and val/CLASS/*.jpg (or valid/, validation/, test/)"


class Folder(Source):
    """Images in files. Paths are kept as one array of bytes: a million `str` would be copied into every worker."""

    kind = "folder"

    def __init__(self, name: str, split: str, folder: Path, files: list[str], labels: list[int], classes: list[str]):
        self._folder = folder
        self._files = np.array([os.fsencode(file) for file in files], dtype=np.bytes_)
        super().__init__(name, split, labels, classes)

    def _open(self, sample_id: int) -> Image.Image:
        with open_regular(self._path(sample_id)) as file:  # it may have been replaced since it was found
            if (size := os.fstat(file.fileno()).st_size) <= IN_MEMORY:
                return decode(file.read(size))
            image = open_image(file)
            image.load()
        return image

    def describe(self, sample_id: int) -> str:
        return str(self._path(sample_id))

    def stamp(self) -> Stamp:
        """Paths below the folder with sizes, and times of modification; one `stat` a file, of which none is opened."""
        contents, modified = hashlib.sha256(), hashlib.sha256()
        folder = os.fsencode(self._folder)
        for file in self._files:
            size, time = _size_and_time(os.path.join(folder, file))
            contents.update(b"%s\0%d\0" % (file, size))
            modified.update(b"%d\0" % time)
        return Stamp(contents.digest(), modified.digest())

    def _path(self, sample_id: int) -> Path:
        return self._folder / os.fsdecode(bytes(self._files[sample_id]))


def open_folder(folder: Path, name: str, split: str) -> Source:
    """Open one split of a folder of images.

    Class folders and the files inside them (at any depth) are in natural order: class2 before class10. Hidden files and
    files that are not images are passed over. A folder without class folders is an unlabelled training set.

    Raises:
        ValueError: no such split, no images, or other classes held out than in training.
    """
    folder = folder.absolute()
    train, held_out = _layout(folder, name)
    if split == "train":
        if train is None:
            raise ValueError(f"{name}: no train split, only {_names(held_out)}; {LAYOUT}")
        return _scan(name, split, train)
    if not held_out:
        raise NoHeldOut(f"{name}: no held-out split for 'test'; {LAYOUT}")
    if len(held_out) > 1:
        log.info("%s: held out is %s, of %s", name, held_out[0].name, _names(held_out))
    if train is not None and (classes := _class_folders(train)):  # an unlabelled train split fits any held-out one
        check_same_classes(name, classes, _class_folders(held_out[0]))
    return _scan(name, split, held_out[0])


def _layout(folder: Path, name: str) -> tuple[Path | None, list[Path]]:
    """The folder to train on and those held out, labelled ones first."""
    held_out = [folder / word for word in HELD_OUT if (folder / word).is_dir()]
    held_out.sort(key=lambda path: not _class_folders(path))
    if (folder / "train").is_dir():
        return folder / "train", held_out
    return (None, held_out) if held_out else (folder, [])


def _scan(name: str, split: str, folder: Path) -> Folder:
    classes = _class_folders(folder)
    files: list[str] = []
    labels: list[int] = []
    for label, class_name in enumerate(classes):
        found = _images(folder, class_name)
        if not found:
            raise ValueError(f"{name}: class folder {folder / class_name} holds no images ({', '.join(EXTENSIONS)})")
        files += found
        labels += [label] * len(found)
    loose = [entry.name for entry in os.scandir(folder) if _is_image(entry.name) and not entry.is_dir()]
    for file in loose if not files else []:
        _check_file(folder / file)
    if not files:
        files, labels = sorted(loose, key=_natural), [-1] * len(loose)
    elif loose:
        log.warning("%s: %d images beside the class folders of %s are left out", name, len(loose), folder)
    if not files:
        raise ValueError(f"{name}: no images ({', '.join(EXTENSIONS)}) in {folder}; {LAYOUT}")
    return Folder(name, split, folder, files, labels, classes)


def _class_folders(folder: Path) -> list[str]:
    names = [entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
    return sorted(names, key=_natural)


def _images(folder: Path, class_name: str) -> list[str]:
    """Images below a class folder, relative to `folder`, in natural order."""
    found = []
    folders, seen = [class_name], set()
    while folders:
        inside = folders.pop()
        if (place := os.path.realpath(folder / inside)) in seen:
            continue  # links in a circle
        seen.add(place)
        for entry in os.scandir(place):
            path = os.path.join(inside, entry.name)
            if entry.is_dir():
                folders.append(path)
            elif _is_image(entry.name):
                if not entry.is_file():  # known without a look at the file itself
                    _check_file(folder / path)
                found.append(path)
    return sorted(found, key=_natural)


def _check_file(path: Path) -> None:
    """Refuse a pipe, socket or device, which a reader may wait for without end; a link to nothing is a bad image."""
    with contextlib.suppress(OSError):
        check_regular(path, os.stat(path))


def _size_and_time(path: bytes) -> tuple[int, int]:
    """Bytes, and nanoseconds of the last modification; -1 and 0 for a link that leads nowhere, an unreadable image."""
    try:
        about = os.stat(path)
    except OSError:
        return -1, 0
    return about.st_size, about.st_mtime_ns


def _is_image(file: str) -> bool:
    return not file.startswith(".") and file.lower().endswith(EXTENSIONS)


def _natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that reads digits as numbers; the name itself breaks ties."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], name


def _names(folders: list[Path]) -> str:
    return ", ".join(f"{folder.name}/" for folder in folders)
