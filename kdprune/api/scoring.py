"""Records and scores from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from kdprune.api.data import parts_of
from kdprune.api.runs import config_of, several
from kdprune.api.surroundings import restored_surroundings
from kdprune.config import Config
from kdprune.data.scores import Scores
from kdprune.pipeline import train as training
from kdprune.pipeline.given import Given
from kdprune.scorers.common import apply
from kdprune.scorers.common.observation import observe

Kind = Literal["dynamics", "embeddings", "gradients", "teacher", "memorization"]


def record(
    kind: Kind,
    settings: Mapping[str, Any] | Config,
    data: Any = None,
    student: nn.Module | None = None,
    teachers: nn.Module | Sequence[nn.Module] | None = None,
) -> list[Path]:
    """Record what scorers need, as `kdprune record` does, or find it.

    Args:
        kind: dynamics of proxies (`record.*` in the settings says of which), pooled features, per-sample gradient norms
            of proxies, what a pass of the teacher gives, or many trainings on parts of the data.
        settings: as for `train`.
        data: as for `train`.
        student: as for `train`.
        teachers: as for `train`.

    Returns:
        The folders of the record, for `score`: one, or those of several repeats.

    Raises:
        ValueError: settings that do not fit, said before anything is trained.
        Interrupted: SIGINT or SIGTERM came; the same call goes on.

    Example:
        >>> import kdprune
        >>> settings = {"student": {"model": "mlp_64"}, "train": {"epochs": 2}, "record": {"repeats": 2}}
        >>> records = kdprune.record("dynamics", settings)
        >>> scores = kdprune.score("el2n(epoch=1)", records)
        >>> scores.hard, kdprune.select(scores, 0.3, "hardest").ids.shape
        ('high', (404,))
    """
    given = Given(None if data is None else parts_of(data), student, several(teachers))
    with restored_surroundings():
        return training.record(kind, config_of(settings), given)


def score(
    scorer: str, records: str | Path | Sequence[str | Path], *, seed: int = 0, base: Scores | None = None
) -> Scores:
    """Score every sample by what was recorded; reads the record, and writes nothing.

    Args:
        scorer: a name, or a name with arguments, such as "aum(epochs=10)" (`kdprune list scorers`).
        records: a folder of a record, or the runs that recorded their dynamics, one a repeat.
        seed: of scorers that draw.
        base: scores of another scorer, for those that start from them.

    Returns:
        The scores, for `select`; `save` writes a file for `subset.scores`.

    Raises:
        FileNotFoundError: no record there.
        ValueError: an unknown scorer, one that needs another record or labels, an epoch that was not recorded, a record
            that is not finished.

    Example:
        >>> import kdprune
        >>> settings = {"student": {"model": "mlp_64"}, "train": {"epochs": 2, "record": "plain"}}
        >>> run = kdprune.train(settings).path
        >>> kdprune.score("aum", run).values.shape
        (1347,)
    """
    folders = [records] if isinstance(records, str | Path) else list(records)
    if not folders:
        raise ValueError("records: none given")
    difficulty = None if base is None else base.difficulty
    with restored_surroundings():
        return apply.score(
            scorer, observe([Path(folder) for folder in folders]), seed=seed, difficulty=difficulty, option="scorer"
        )
