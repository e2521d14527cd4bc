"""When a student is pruned: at initialisation, after a step, at the end, or little by little. Imports nothing heavy.

    init | STEP | EPOCHep | end | gradual(begin, end, every=100)

`gradual` is the cubic schedule of Zhu & Gupta 2017 (arXiv 1710.01878, eq. 1): from step `begin` on, every so many steps
until `end`, to a sparsity of s·(1 − (1 − t)³), where t is the part of the way and s the sparsity asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kdprune.calls import bind, parse_call
from kdprune.messages import about, shown

OPTION = "--student.prune_at"
INIT, END = "init", "end"


@dataclass(frozen=True)
class When:
    """The steps after which a student is pruned, of which `none` is before the first.

    Attributes:
        step: the only one, or the last one; None: the end of the training.
        begin: the first one.
        every: steps between them.
        epochs: where epochs were given: how many, until it is known how many steps they have.
    """

    step: int | None = None
    begin: int | None = None
    every: int = 1
    epochs: float | None = None

    def in_steps(self, epoch: float) -> When:
        """The same in steps, of which an epoch has `epoch`."""
        return self if self.epochs is None else When(step=max(1, round(self.epochs * epoch)))

    def share(self, step: int, done: bool) -> float | None:
        """The part of the sparsity that is due after a step; None if nothing is.

        What was not due in a training that ended early is due at its end.
        """
        last = done if self.step is None else step == self.step or (done and step < self.step)
        if last:
            return 1.0
        if self.begin is None or self.step is None or not self.begin <= step < self.step:
            return None
        if (step - self.begin) % self.every:
            return None
        return 1 - (1 - (step - self.begin) / (self.step - self.begin)) ** 3


def parse(text: str) -> When | None:
    """A moment as it was written; None for `init`.

    Raises:
        ValueError: something else, with what is allowed.
    """
    if text == INIT:
        return None
    if text == END:
        return When()
    if match := re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)ep", text):
        if float(match[1]) > 0:
            return When(epochs=float(match[1]))
    elif re.fullmatch(r"\d{1,12}", text):
        if int(text) > 0:
            return When(step=int(text))
    elif text.startswith("gradual"):
        return _gradual(text)
    raise ValueError(
        f"{OPTION}: {shown(text)} given, allowed are init, end, a number of steps (500) or of epochs (10ep), each "
        "above 0, and gradual(BEGIN, END, every=STEPS)"
    )


def _gradual(text: str) -> When:
    def gradual(begin: int, end: int, every: int = 100) -> None: ...

    with about(OPTION):
        call = parse_call(text)
        values = bind(call, gradual, "moment")
        steps = [values.get(name, 100) for name in ("begin", "end", "every")]
        whole = all(isinstance(one, int) and not isinstance(one, bool) for one in steps)
        if call.name != "gradual" or not whole or not 1 <= steps[0] < steps[1] or steps[2] < 1:
            raise ValueError(
                f"{shown(text)} given, allowed is gradual(BEGIN, END, every=STEPS), whole numbers with "
                "1 ≤ BEGIN < END and STEPS ≥ 1"
            )
    return When(step=steps[1], begin=steps[0], every=steps[2])
