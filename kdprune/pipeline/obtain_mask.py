"""Where masks lie, to be found again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from accelerate import Accelerator

from kdprune.artefact import Artefact, Key, damage, key_hash, obtain
from kdprune.config import Config

FOLDER = "masks"


def obtain_mask(config: Config, accelerator: Accelerator, contents: Key, make: Callable[[Path], Iterable[str]]) -> Path:
    """The folder of a mask: found by what it is made of, or else made by the main process.

    Args:
        make: writes the files into the folder, and gives their names.

    Raises:
        ValueError: a file of it is missing or has changed.
    """
    folder = Path(config.output) / FOLDER / key_hash(contents)[:16]
    if accelerator.is_main_process:
        obtain(Artefact(folder, "a mask", contents), lambda: make(folder))
    accelerator.wait_for_everyone()
    if found := damage(folder):
        raise ValueError(f"{'; '.join(found)}: remove {folder}, the mask is then made again")
    return folder
