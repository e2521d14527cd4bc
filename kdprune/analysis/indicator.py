"""AUM with its indicator class: a threshold for wrong labels that is measured (Pleiss et al. 2020, arXiv 2001.10528).

A share 1/(C+1) of the samples, the threshold samples, are given a label that no sample deserves, of a class of their
own, and a network is trained. What their margins come to is what a wrong label comes to: a sample whose AUM is not
above the 99th percentile of theirs is called mislabelled. A second round with other threshold samples gives the first
ones an AUM under their own label.

Shapes: N samples of the unpruned training set, C classes, T threshold samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from kdprune.config import Config, SubsetConfig
from kdprune.data.counter import key
from kdprune.data.relabelled import with_labels
from kdprune.data.scores import Scores
from kdprune.pipeline.score import with_scores
from kdprune.pipeline.session import Session
from kdprune.pipeline.train import train
from kdprune.selectors.common.order import hashes

NAME = "aum_indicator"
ROUNDS = 2
QUANTILE = 0.99  # of the threshold samples' AUM
CLASS = "(threshold samples)"


def threshold_samples(ids_N: np.ndarray, num_classes: int, seed: int = 0) -> list[np.ndarray]:
    """The threshold samples of two rounds, which share none: ids, int64 T, ascending, with T = ⌊N / (C+1)⌋.

    So many that the new class is as large as the others are on average.

    Raises:
        ValueError: too few samples for one a round.
    """
    count = len(ids_N) // (num_classes + 1)
    if not count:
        raise ValueError(f"{NAME} needs more than {num_classes:,} samples for {num_classes:,} classes: {len(ids_N):,}")
    shuffled = ids_N[np.argsort(hashes(key(seed, "threshold samples"), ids_N))]
    return [np.sort(shuffled[count * r : count * (r + 1)]) for r in range(ROUNDS)]


def above_threshold(aum_N: np.ndarray, threshold_T: np.ndarray) -> np.ndarray:
    """AUM less the 99th percentile of the threshold samples' AUM, float32 N; 0 and below: mislabelled (§3.3 there).

    The percentile is the smallest value that 99% of the threshold samples do not exceed, so that it is one of them.

    Args:
        threshold_T: ids of the threshold samples.
    """
    reached = aum_N[threshold_T]
    return aum_N - np.quantile(reached[~np.isnan(reached)], QUANTILE, method="inverted_cdf")


def aum_with_indicator(
    config: Config, session: Session, scored: Callable[[Config, Session], Scores] | None = None
) -> Scores:
    """Train with threshold samples in two rounds, and say how far each sample is above the threshold of its round.

    Args:
        config: of its recording (`--record.*`).
        scored: AUM of a session's labels (default: recorded, and scored by `aum`).

    Returns:
        Scores of which 0 and below mean a mislabelled sample.

    Raises:
        ValueError: samples without a label; too few samples.
    """
    data, seed = session.data, config.seed_of("subset")
    labels, candidates = data.train.labels, np.setdiff1d(data.train.readable, data.validation)
    if (labels < 0).any():
        raise ValueError(f"{NAME} needs labels, and {int((labels < 0).sum()):,} of {len(labels):,} samples have none")
    rounds = threshold_samples(candidates, data.num_classes, seed)
    above_RN = []
    for threshold_T in rounds:
        changed = labels.copy()
        changed[threshold_T] = data.num_classes
        relabelled = replace(session, data=with_labels(data, changed, [*data.classes, CLASS]))
        above_RN.append(above_threshold((scored or recorded_aum)(config, relabelled).values, threshold_T))
    values = above_RN[0]
    values[rounds[0]] = above_RN[1][rounds[0]]
    origin = {"kind": "dynamics", "rounds": ROUNDS, "quantile": QUANTILE, "seed": seed}
    return Scores(values, labels, data.fingerprint, NAME, "low", tuple(data.classes), origin)


def recorded_aum(config: Config, session: Session) -> Scores:
    """AUM of the labels of a session, which is recorded if it was not before."""
    return score_by("aum", config, session)


def score_by(scorer: str, config: Config, session: Session) -> Scores:
    """Scores of the labels of a session by a scorer's name, whose record is made if it is not there."""
    asked = replace(config, subset=SubsetConfig(scorer=scorer, selector="hardest"))
    scores = with_scores(asked, session, train).scores
    assert scores is not None
    return scores
