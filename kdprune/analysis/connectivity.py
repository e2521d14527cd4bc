"""The line between the students of two runs (linear mode connectivity, Frankle et al. 2020, arXiv 1912.05671)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdprune.analysis.line import Line, Statistics, check_points, held_out_line, normalises_batches
from kdprune.artefact import Key, read_record
from kdprune.data.subset import load_subset
from kdprune.models.build import load_model
from kdprune.models.locate import resolve_teacher, run_of
from kdprune.models.spec import BuiltModel
from kdprune.pipeline.job import view_settings
from kdprune.pipeline.keys import network_key
from kdprune.pipeline.session import Session, open_session
from kdprune.runs.accelerator import make_accelerator
from kdprune.runs.reading import SUBSET, read_config


@dataclass(frozen=True)
class End:
    """One end of a line.

    Attributes:
        name: as it was given.
        run: its run directory.
    """

    name: str
    run: Path
    built: BuiltModel


def line_between(one: str, other: str, points: int = 11, statistics: Statistics = "measured") -> tuple[Line, str]:
    """Error and loss on held-out data, from one run's student to another's.

    Args:
        one, other: `RUN`, `RUN@EPOCH` or `RUN@stepSTEP`.
        points: of the line, its ends among them.
        statistics: of BatchNorm: measured anew at each point, the ends among them, on kept samples of both runs,
            in views of the first; or interpolated like the weights.

    Returns:
        The line, and what became of BatchNorm's statistics, in words.

    Raises:
        ValueError: no such run or snapshot; students of different kinds, runs on different data; no held-out data;
            fewer than three points.
    """
    alphas_A = check_points(points)
    ends = read_end(one), read_end(other)
    check_alike(*ends)
    session, built = session_of(ends[0].run), ends[0].built
    kept = np.union1d(*(kept_ids(end.run, session) for end in ends))
    views = view_settings(read_config(ends[0].run), session.data, built.spec)
    line = held_out_line((built, ends[1].built), alphas_A, kept, views, session, statistics)
    return line, in_words(statistics, built)


def read_end(name: str) -> End:
    """A run's student, or a snapshot of it.

    Raises:
        ValueError: neither; the snapshots that were kept are named.
    """
    path = resolve_teacher(name)
    run = None if path is None else run_of(path)
    if path is None or run is None:
        raise ValueError(f"{name} is no run: allowed are RUN, RUN@EPOCH and RUN@stepSTEP, such as {name}@step100")
    return End(name, run, load_model(path))


def check_alike(one: End, other: End) -> None:
    """Refuse two students between which there is no line, or whose held-out data differs."""
    for what, keys in (
        ("students of different kinds, with no line between them", _networks(one, other)),
        ("runs on different data", (_data(one.run), _data(other.run))),
    ):
        for name, value in keys[0].items():
            if value != keys[1][name]:
                raise ValueError(
                    f"{one.name} and {other.name} are {what}: {name} is {value} of the first and {keys[1][name]} of "
                    "the second"
                )


def session_of(run: Path) -> Session:
    """A run's data, in its precision.

    Raises:
        ValueError: it has no held-out part.
    """
    config = read_config(run)
    session = open_session(config, make_accelerator(config.train.precision, [], config.output))
    if session.data.test is None:
        raise ValueError(f"{run}: {config.data.dataset} has no held-out part, on which a line could be measured")
    return session


def kept_ids(run: Path, session: Session) -> np.ndarray:
    """The samples that a run was trained on; refuses data that is no longer that of the run."""
    return load_subset(run / SUBSET, session.data.fingerprint, len(session.data.train)).ids


def in_words(statistics: Statistics, built: BuiltModel) -> str:
    """What became of BatchNorm's statistics."""
    if not normalises_batches(built):
        return "no BatchNorm"
    measured = "measured anew at each point, the ends among them, on training views"
    return f"BatchNorm's statistics {measured if statistics == 'measured' else 'interpolated'}"


def _networks(one: End, other: End) -> tuple[Key, Key]:
    first, second = (network_key(end.built, with_weights=False) for end in (one, other))
    return {**first, "classes": one.built.num_classes}, {**second, "classes": other.built.num_classes}


def _data(run: Path) -> Key:
    """Fingerprints of the data that a run was trained and tested on."""
    record = read_record(run)
    if record is None:
        raise ValueError(f"{run} does not say what it was made of: it has no artefact.json")
    data = record["key"].get("data", {})
    return {name: data.get(name) for name in ("train", "test")}
