"""What a scorer says of itself.

A scorer is a pure function of what was recorded. Its first parameters are the recorded values that it `reads`, in this
order; further ones are what a user writes in brackets, as in `el2n(epoch=10)`. It returns the score of each sample, N,
or a dictionary of columns of which one is `score`. A sample that was not observed has NaN in the record and in the
score, which is otherwise a number or ±∞.

Shapes: N samples, R repeats, E epochs, M trainings, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from kdprune.data.scores import Hard
from kdprune.messages import unknown
from kdprune.registry import register

_OF_A_PREDICTION = (
    "loss", "error_norm", "margin", "entropy", "least_confidence", "label_probability", "correct",
)  # fmt: skip

# What a kind of record holds, by the name under which a scorer reads it.
RECORDED: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "dynamics": (*_OF_A_PREDICTION, "kl"),  # float32 R×E×N
    "gradients": ("gradient_norm", "last_layer_gradient_norm"),  # float32 N×R
    "teacher": (*_OF_A_PREDICTION, "last_layer_gradient_norm", "features"),  # float32 N; features as below
    "memorization": ("trained", "untrained", "right_trained", "right_untrained"),  # float32 N: of M trainings
    "embeddings": ("features",),  # rows N×D, which need not fit in memory: `len()` and slices, float32
}
ALWAYS = ("labels", "ids", "classes", "seed", "difficulty", "mapper")  # may be read beside any record

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Declared:
    """What a scorer says of itself.

    Attributes:
        needs: the kind of record.
        reads: of it, in the order of the function's parameters; also of `labels` (int64 N, −1: none), `ids` (sample
            ids, int64 N), `classes` (int: how many the data set has), `seed` (int), `difficulty` (float32 N: scores
            of another scorer, higher is harder) and `mapper` (`map`, or one that calls in other processes).
        hard: whether a high or a low score means a hard sample.
        labels: whether it needs the label of every sample.
        paper: authors, year and arXiv number.
        cost: of the observation, in words: "one training", "one forward pass".
    """

    needs: str
    reads: tuple[str, ...]
    hard: Hard
    labels: bool
    paper: str
    cost: str

    @property
    def per_sample(self) -> bool:
        """Whether a sample's score is a function of its own record alone, so that a scorer sees blocks of samples.

        One that reads features compares samples with each other, and sees all of them at once.
        """
        return "features" not in self.reads


def scorer(
    name: str,
    *,
    needs: str,
    reads: Sequence[str],
    hard: Hard,
    labels: bool,
    paper: str,
    cost: str,
) -> Callable[[F], F]:
    """Function decorator: register a scorer with what it says of itself (see `Declared`)."""
    if needs not in RECORDED:
        raise ValueError(unknown(f"kind of record that scorer {name} needs", needs, RECORDED))
    allowed = (*RECORDED[needs], *ALWAYS)
    if hard not in get_args(Hard):
        raise ValueError(unknown(f"side that scorer {name} calls hard", hard, get_args(Hard)))
    for value in reads:
        if value not in allowed:
            raise ValueError(unknown(f"recorded value that scorer {name} reads", value, allowed))

    def keep(function: F) -> F:
        function.declared = Declared(needs, tuple(reads), hard, labels, paper, cost)  # type: ignore[attr-defined]
        return register("scorers", name)(function)

    return keep
