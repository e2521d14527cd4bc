"""The state of a training: all that a checkpoint holds, and that a run needs to go on as if it had not been stopped."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class Stateful(Protocol):
    """What has a state of its own: models, optimizers, scalers, targets, observers."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


@dataclass
class TrainState:
    """How far a training is. Randomness is no part of it: every draw is a function of the step.

    Attributes:
        total: steps of the run.
        parts: whatever else has a state, by name.
        first: the step at which it began, of a student that was rewound.
        step: steps that are done, those before the first among them.
        history: a row of metrics for each epoch that is done.
        seconds, epoch_seconds: in training steps, of the run and of the epoch so far.
        lost_steps, lost_seconds: that were done, and had to be done again because the process was killed.
    """

    total: int
    parts: Mapping[str, Stateful]
    first: int = 0
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    lost_steps: int = 0
    lost_seconds: float = 0.0
    _clock: float = 0.0

    def __post_init__(self) -> None:
        self.step = max(self.step, self.first)

    def start_clock(self) -> None:
        """What follows is time in training steps."""
        self._clock = time.perf_counter()

    def tick(self) -> None:
        """Add the time since the last look at the clock to the time in training steps."""
        now = time.perf_counter()
        self.seconds += now - self._clock
        self.epoch_seconds += now - self._clock
        self._clock = now

    @property
    def steps(self) -> int:
        """Of this training, from its first to its last."""
        return self.total - self.first

    @property
    def done(self) -> bool:
        return self.step >= self.total

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint. Every process must call it: some parts add up over all of them."""
        return {
            "step": self.step,
            "history": self.history,
            "seconds": [self.seconds, self.epoch_seconds],
            "lost": [self.lost_steps, self.lost_seconds],
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        for name, part in self.parts.items():
            if name in state["parts"]:  # an observer may look on from now on
                part.load_state_dict(state["parts"][name])
        self.step, self.history = state["step"], state["history"]
        self.seconds, self.epoch_seconds = state["seconds"]
        self.lost_steps, self.lost_seconds = state.get("lost", (0, 0.0))

    def count_lost(self, steps: float, seconds: float) -> None:
        """Count what is not in this state, of `steps` and `seconds` that were spent in all before a kill."""
        self.lost_steps = max(self.lost_steps, round(steps) - self.step)
        self.lost_seconds = max(self.lost_seconds, seconds - self.seconds)
