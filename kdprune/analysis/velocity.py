"""How fast the kernel of easy and of hard samples changes along a training (Paul et al. 2021, §5.1).

Shapes: W windows, S snapshots.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdprune.analysis.ntk import ntk_gram, velocity
from kdprune.analysis.ranks import by_difficulty, window_starts
from kdprune.data.reader import plain_batches
from kdprune.data.scores import load_scores
from kdprune.files import in_bytes
from kdprune.messages import listed
from kdprune.models.build import load_model
from kdprune.models.locate import resolve_teacher, snapshots
from kdprune.pipeline.session import Session, open_session
from kdprune.pipeline.student import place
from kdprune.runs.accelerator import make_accelerator
from kdprune.runs.reading import read_config

log = logging.getLogger("kdprune")

MEMORY = 2**34  # bytes of two kernels


def velocities(
    run: Path, scores: Path, at: Sequence[str] = (), size: int = 100, windows: int = 10
) -> list[dict[str, Any]]:
    """The velocity of the kernel of each window of ranks between successive snapshots of a run.

    Args:
        run: with snapshots (`--train.save_epochs`, `--train.save_steps`).
        scores: a score file of its data.
        at: snapshots as in `RUN@`: "5" after epoch 5, "step300" after step 300 (default: those after epochs).
        size: samples of a window, of successive ranks; 100 in the paper.
        windows: spread evenly from the easiest samples to the hardest.

    Returns:
        A row a window and pair: `from`, `to`, `start` (rank), `percentile` (of the window's middle), `score` (its
        mean), `velocity`.

    Raises:
        ValueError: fewer than two snapshots; scores of other data; kernels that take more than 16 GiB.
    """
    files = _files(run, at)
    config = read_config(run)
    session = open_session(config, make_accelerator("no", [], config.output))
    found = load_scores(scores, session.data.fingerprint, len(session.data.train))
    order = by_difficulty(found)
    starts = window_starts(len(order), size, windows)
    _check_cost(len(files) * len(starts), size, session.data.num_classes)
    rows: list[dict[str, Any]] = []
    for start in starts:
        ids = order[start : start + size]
        where = {
            "start": int(start),
            "percentile": 100 * (start + size / 2) / len(order),
            "score": float(np.mean(found.values[ids])),
        }
        # One window after the other, so that no more than two kernels are held.
        grams = ((name, _gram(file, ids, session)) for name, file in files.items())
        before, earlier = next(grams)
        for name, gram in grams:
            rows.append({"from": before, "to": name, **where, "velocity": velocity(earlier, gram)})
            before, earlier = name, gram
    pairs = {name: index for index, name in enumerate(files)}
    return sorted(rows, key=lambda row: pairs[row["to"]])


def _check_cost(kernels: int, size: int, classes: int) -> None:
    """Say what is to be computed, and refuse kernels that would fill the memory."""
    if (needed := 2 * 8 * (size * classes) ** 2) > MEMORY:
        most = int((MEMORY / 16) ** 0.5 / classes)
        raise ValueError(
            f"--size: {size} given, and two kernels of so many samples and {classes:,} classes take "
            f"{in_bytes(needed)}; allowed are 1 to {most:,}"
        )
    passes = kernels * size * classes
    log.info("%d kernels of %d samples: %s backward passes of a sample", kernels, size, f"{passes:,}")


def _files(run: Path, at: Sequence[str]) -> dict[str, Path]:
    kept = snapshots(run)
    names = list(at) or [name for name in kept if name.isdecimal()]
    if len(names) < 2:
        raise ValueError(
            f"{run}: a velocity needs two snapshots, and {listed(names) or 'none'} is given (kept: "
            f"{listed(list(kept)) or 'none; see --train.save_epochs'})"
        )
    found = {name: resolve_teacher(f"{run}@{name}") for name in names}
    return {name: path for name, path in found.items() if path is not None}


def _gram(weights: Path, ids: np.ndarray, session: Session) -> Tensor:
    built = load_model(weights)
    inputs = place(built, session.accelerator.device)
    batches = plain_batches(session.data.train, ids, built.spec, session.place)
    images = torch.cat([inputs(batch.images) for batch in batches])
    return ntk_gram(built.model.eval(), images)
