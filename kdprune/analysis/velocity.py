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
from kdprune.messages import listed
from kdprune.models.build import load_model
from kdprune.models.locate import resolve_teacher, snapshots
from kdprune.pipeline.session import Session, open_session
from kdprune.pipeline.student import place
from kdprune.runs.accelerator import make_accelerator
from kdprune.runs.run_dir import read_config

log = logging.getLogger("kdprune")


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
        ValueError: fewer than two snapshots; scores of other data.
    """
    files = _files(run, at)
    config = read_config(run)
    session = open_session(config, make_accelerator("no", [], config.output))
    found = load_scores(scores, session.data.fingerprint, len(session.data.train))
    order = by_difficulty(found)
    starts = window_starts(len(order), size, windows)
    passes = len(files) * len(starts) * size * session.data.num_classes
    log.info("%d kernels of %d samples: %s backward passes of a sample", len(files) * len(starts), size, f"{passes:,}")
    rows: list[dict[str, Any]] = []
    before: list[Tensor] = []
    names = list(files)
    for index, file in enumerate(files.values()):
        grams = [_gram(file, order[start : start + size], session) for start in starts]
        for start, gram, earlier in zip(starts, grams, before, strict=False):
            ids = order[start : start + size]
            rows.append(
                {
                    "from": names[index - 1],
                    "to": names[index],
                    "start": int(start),
                    "percentile": 100 * (start + size / 2) / len(order),
                    "score": float(np.mean(found.values[ids])),
                    "velocity": velocity(earlier, gram),
                }
            )
        before = grams
    return rows


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
