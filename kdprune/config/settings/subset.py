"""Settings of the kept part of the training set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kdprune.config.conditions import only, setting
from kdprune.config.settings.values import as_list
from kdprune.config.settings.when import CHOSEN, KEPT, SCORED, SELECTION


@dataclass
class SubsetConfig:
    """The kept part of the training set.

    Args:
        keep_fraction: Kept samples / all samples, in (0, 1]; with a dynamic of rs2, those of an epoch.
        selector: How the kept samples are chosen: a name, or NAME(ARGUMENTS).
        balanced: Give every class its exact share, by largest remainder.
        class_floor: Keep at least so many samples of every class, or such a share in (0, 1) of what uniform pruning
            would leave of it; the others make room in proportion.
        without_classes: Names or indices of classes of which no sample is kept. keep_fraction still counts all samples,
            those of these classes too, and keeps at most what is left: 1.0 keeps all of it.
        file: A subset.json to use instead of selecting.
        scorer: How hard each sample is, for selectors that ask: a name, or NAME(ARGUMENTS). What it needs is recorded
            first (see record), unless it was before.
        scores: A score file to use instead of scoring.
        hard: Which scores mean a hard sample (default: what the scorer or the file says).
        features: A record of embeddings, for selectors that read features (default: recorded as record says).
        dynamic: Which of the kept samples each epoch holds, if not all of them: infobatch(ratio, anneal),
            curriculum(order, pacing, start, end), or rs2, which draws each epoch from all samples.
    """

    keep_fraction: float = setting(1.0, only(lambda s: s.draws_each_epoch or not s.config.subset.file, KEPT))
    selector: str = setting("random", *SELECTION)
    scorer: str | None = setting(None, SCORED)
    scores: str | None = setting(None, SCORED)
    hard: Literal["high", "low"] | None = setting(None, SCORED)
    features: str | None = setting(
        None, only(lambda s: s.reads_features, "selector {config.subset.selector} reads no features")
    )
    balanced: bool = setting(False, *SELECTION, CHOSEN)
    class_floor: float = setting(0, *SELECTION, CHOSEN)
    without_classes: list[int | str] | int | str = field(default_factory=list)
    file: str | None = None
    dynamic: str | None = setting(
        None, only(lambda s: not s.draws_all, "--subset.keep_fraction is 1, so that each epoch holds all samples")
    )

    def __post_init__(self) -> None:
        given = self.without_classes
        self.without_classes = [str(item) for item in ([given] if isinstance(given, int) else as_list(given))]
