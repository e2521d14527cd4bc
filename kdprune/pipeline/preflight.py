"""What is measured of a teacher before the first step, kept as an artefact: its engine and its accuracy.

Which engine bears the run's precision takes several passes over a batch, and the accuracy one over all held-out data.
Both are functions of the teacher, the data and the surroundings, so they are measured once.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
from accelerate.utils import broadcast_object_list

from kdprune.artefact import Artefact, Key, damage, key_hash
from kdprune.config import Config
from kdprune.data.views import VIEWS_VERSION
from kdprune.files import write_json
from kdprune.models.spec import BuiltModel
from kdprune.outside import NUMBER, Kind, check_fields, optional, read_json
from kdprune.pipeline.keys import ids_hash, network_key
from kdprune.pipeline.session import Session
from kdprune.runs.accelerator import DTYPES, device_name
from kdprune.teachers.frozen import Route, short

log = logging.getLogger("kdprune")

FOLDER, FILE = "preflight", "preflight.json"
VERSION = 1
"""Of the measurement. To be raised with a change after which a teacher gets another engine or another accuracy."""


def _one_of(*allowed: str) -> Kind:
    return Kind(f"one of {', '.join(allowed)}", lambda value: value in allowed)


_FIELDS = {
    "route": _one_of(*get_args(Route)), "precision": _one_of(*map(short, DTYPES.values())),
    "test_top1": optional(NUMBER),
}  # fmt: skip


@dataclass(frozen=True)
class Preflight:
    """What was measured.

    Attributes:
        route, precision: of the engine, as a run's summary names them.
        test_top1: its accuracy on held-out data; None where there is none.
    """

    route: str
    precision: str
    test_top1: float | None


def preflight(config: Config, session: Session, built: BuiltModel, examples: np.ndarray, **engine: Any) -> Artefact:
    """The artefact of a teacher, made or not.

    Args:
        examples: ids of the training samples that the engine is compared on.
        engine: what decides how far the engine may go, JSON values.
    """
    data, accelerator = session.data, session.accelerator
    key: Key = {
        "version": VERSION,
        "teacher": network_key(built),
        "data": {"train": data.fingerprint, "test": data.test_fingerprint, "examples": ids_hash(examples)},
        "tested": None if data.test is None else ids_hash(data.test.readable),
        "decoded": [split is not None and split.images is not None for split in (data.train, data.test)],
        "views": VIEWS_VERSION,
        "engine": engine,
        "precision": accelerator.mixed_precision,
        "device": device_name(accelerator.device),
        "processes": accelerator.num_processes,
        "packages": {name: version(name) for name in ("kdprune", "torch", "timm")},
    }
    return Artefact(Path(config.output) / FOLDER / key_hash(key)[:16], "the preflight of a teacher", key)


def found(artefact: Artefact, session: Session) -> Preflight | None:
    """What was measured before, as the main process sees it; None where it was not, or was changed since."""
    seen: list[Preflight | None] = [None]
    if session.accelerator.is_main_process and artefact.finished:
        if wrong := damage(artefact.folder):
            log.warning("%s: the teacher is measured again", "; ".join(wrong))
            artefact.reopen()
        else:
            path = artefact.folder / FILE
            seen = [Preflight(**check_fields(read_json(path), _FIELDS, str(path)))]
    broadcast_object_list(seen)
    return seen[0]


def keep(artefact: Artefact, measured: Preflight, session: Session) -> None:
    """Write down what was measured; of several commands that measured at once, each writes the same."""
    if not session.accelerator.is_main_process:
        return
    with artefact.owned():
        if not artefact.finished:
            artefact.begin()
            write_json(artefact.folder / FILE, asdict(measured))
            artefact.finish([FILE])
