"""Folders that the user named: found here or below the root, or the nearest name that is there."""

from __future__ import annotations

from pathlib import Path

from kdprune.messages import did_you_mean


def existing_folder(name: str | Path, root: str | Path | None) -> Path | None:
    """The folder called `name`, from here or from `root`; None if there is none."""
    places = [Path(name).expanduser()]
    if root is not None:
        places.append(Path(root).expanduser() / name)
    return next((place for place in places if place.is_dir()), None)


def looks_like_path(name: str) -> bool:
    """Whether `name` cannot be meant for the hub, whose names are NAME or OWNER/NAME."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1


def nearest_sibling(name: str | Path) -> str:
    """A hint for the end of a message: the existing folder with the nearest name, or nothing."""
    path = Path(name).expanduser()
    if not path.parent.is_dir():
        return f" ({path.parent} does not exist either)"
    folders = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    return did_you_mean(path.name, folders, write=lambda near: f"'{Path(name).parent / near}'")
