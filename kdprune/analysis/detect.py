"""Wrong labels of a data set by several detectors, and how well they find labels that were flipped on purpose."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kdprune.analysis.indicator import NAME as INDICATOR
from kdprune.analysis.indicator import ROUNDS, aum_with_indicator, score_by
from kdprune.analysis.noise import Suspects, beyond, detection, flip_labels, hardest_share
from kdprune.config import Config
from kdprune.data.relabelled import with_labels
from kdprune.pipeline.effect import settled
from kdprune.pipeline.recipes import check_optimizers
from kdprune.pipeline.session import Session, open_session
from kdprune.pipeline.teachers import check_models
from kdprune.runs.accelerator import make_accelerator
from kdprune.scorers.common.apply import bound, declared

log = logging.getLogger("kdprune")

FOLDER = "noise"  # in the output
DETECTORS = ("el2n", "aum", INDICATOR)
SHARE = 0.01


@dataclass(frozen=True)
class Detected:
    """What the detectors say.

    Attributes:
        session: with the labels that were looked at.
        folder: of what was made for it.
        suspects: by detector.
        is_wrong: which labels were flipped, bool N; None where nothing was planted.
        true_labels: of before, int64 N.
        table: a row a detector: see `detection`.
    """

    session: Session
    folder: Path
    suspects: dict[str, Suspects]
    is_wrong: np.ndarray | None
    true_labels: np.ndarray
    table: list[dict[str, float | str]]


def detect(
    config: Config, detectors: Sequence[str] = DETECTORS, planted: float | None = None, share: float | None = None
) -> Detected:
    """Record, score and flag; what was recorded and trained before is found.

    Args:
        config: data, recording (`--record.*`) and, where `record` does not say otherwise, the student's training.
        detectors: scorers, as in `--subset.scorer`, and `aum_indicator`.
        planted: share of the labels to flip first, by `flip_labels` with the seed of the subset.
        share: of the samples that detectors without a threshold of their own flag (default: what was planted, or 1%).

    Raises:
        ValueError: an unknown detector; a share outside (0, 1); records of other labels.
    """
    for text in detectors:
        if text != INDICATOR:
            bound(text, "--detectors")
    if config.record.files:
        raise ValueError("--record.files: given, and detectors record the labels that they are to judge; leave it out")
    share = next(given for given in (share, planted, SHARE) if given is not None)
    if not 0 < share < 1:
        raise ValueError(f"--{'share' if share != planted else 'planted'}: {share:g} given, allowed is (0, 1)")
    check_optimizers(config)
    check_models(config)
    kinds = {"dynamics" if text == INDICATOR else declared(bound(text)[0].name).needs for text in detectors}
    config = settled(config, "analyse noise", kinds - {"nothing"})
    session = open_session(config, make_accelerator(config.train.precision, [], config.output))
    data, seed = session.data, config.seed_of("subset")
    true_labels = data.train.labels
    if planted is not None:
        flipped = flip_labels(true_labels, planted, data.num_classes, seed)
        session = replace(session, data=with_labels(data, flipped, data.classes))
    _say_cost(config, detectors, session)
    # Runs on changed labels lie apart: their settings name the data set, and cannot say how its labels were changed.
    name = f"{data.train.source.name.rstrip('/').split('/')[-1]}-planted{planted or 0:g}-s{seed}"
    folder = Path(config.output) / FOLDER / f"{name}-{session.data.fingerprint[:8]}"
    config = replace(config, output=str(folder), name=None)
    suspects = {text: _suspects(text, config, session, share) for text in detectors}
    is_wrong = None if planted is None else session.data.train.labels != true_labels
    table = [_row(text, found, is_wrong) for text, found in suspects.items()]
    return Detected(session, folder, suspects, is_wrong, true_labels, table)


def _suspects(text: str, config: Config, session: Session, share: float) -> Suspects:
    if text == INDICATOR:
        return beyond(aum_with_indicator(config, session), 0.0)
    return hardest_share(score_by(text, config, session), share, config.seed_of("subset"))


def _row(text: str, found: Suspects, is_wrong: np.ndarray | None) -> dict[str, float | str]:
    of_all: dict[str, float] = {"flagged": int(found.flagged.sum())}
    measured = of_all if is_wrong is None else detection(found, is_wrong)
    return {"detector": text, "threshold": found.threshold, **measured}


def _say_cost(config: Config, detectors: Sequence[str], session: Session) -> None:
    trainings = config.record.repeats * (bool(set(detectors) - {INDICATOR}) + ROUNDS * (INDICATOR in detectors))
    epochs = config.record.train.epochs or config.train.epochs
    log.info(
        "%d trainings of %g epochs over %s samples, unless they are found", trainings, epochs,
        f"{len(session.data.train):,}",
    )  # fmt: skip
