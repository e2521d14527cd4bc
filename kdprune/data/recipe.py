"""The view recipe: which random changes a view of an image is made with.

A recipe is text, parts joined by '+': `crop(4)+flip+cutout(8)`. Imports nothing heavy: the command line checks it.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import NamedTuple

from kdprune import calls
from kdprune.messages import about, shown, unknown

MOST_OPERATIONS = 10  # of RandAugment


@dataclass(frozen=True)
class Recipe:
    """What each part means; None or 0 leaves it out.

    Attributes:
        crop: black padding on every side, in pixels, before a random crop back to the image's size
            (He et al. 2016: 4 at 32 px); -1: an eighth of the image's side.
        rrc: random resized crop (Szegedy et al. 2015): smallest area as a fraction; aspect ratio 3/4 to 4/3.
        flip: probability of a horizontal flip.
        cutout: side of a square filled with the mean colour, in pixels (DeVries & Taylor 2017: 16 at 32 px).
        erase: probability of random erasing of 2–33% of the area, filled with the mean colour (Zhong et al. 2017).
        jitter: strength of brightness, contrast and saturation, each by a factor in [1 - s, 1 + s].
        hue: largest turn of the hues, as a part of the whole circle (`jitter`'s second value).
        grey: probability of a grey image.
        randaugment: operations of RandAugment (Cubuk et al. 2020), each of `magnitude` of 0 to 30.
        trivialaugment: whether one operation is applied with TrivialAugment (Müller & Hutter 2021).
        mixup: both parameters of the Beta distribution of λ (Zhang et al. 2018), one λ for each sample.
        cutmix: the same for CutMix (Yun et al. 2019). With both, each sample takes one of the two, half and half.
    """

    crop: int = 0
    rrc: float = 0.0
    flip: float = 0.0
    cutout: int = 0
    erase: float = 0.0
    jitter: float = 0.0
    hue: float = 0.0
    grey: float = 0.0
    randaugment: int = 0
    magnitude: int = 9
    trivialaugment: bool = False
    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def mixes(self) -> bool:
        """Whether a view is made of two samples, so that its label is a mixture, too."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def recolours(self) -> bool:
        """Whether a part computes new values of pixels: of RandAugment's and its kin's operations, or of colours."""
        return self.randaugment > 0 or self.trivialaugment or max(self.jitter, self.hue, self.grey) > 0


class _Parameter(NamedTuple):
    """One number in the brackets of a part, and the field of the recipe that it sets."""

    name: str
    field: str
    default: float
    lowest: float
    highest: float
    what: str
    whole: bool = False


_BETA = "parameter of the Beta distribution"
_PARTS = {
    "crop": [_Parameter("pad", "crop", -1, -1, 10**4, "padding in pixels", whole=True)],
    "rrc": [_Parameter("min_area", "rrc", 0.08, 0.0, 1.0, "smallest area")],
    "flip": [_Parameter("p", "flip", 0.5, 0.0, 1.0, "probability")],
    "randaugment": [
        _Parameter("n", "randaugment", 2, 1, MOST_OPERATIONS, "number of operations", whole=True),
        _Parameter("m", "magnitude", 9, 0, 30, "magnitude", whole=True),
    ],
    "trivialaugment": [],
    "jitter": [
        _Parameter("strength", "jitter", 0.4, 0.0, 1.0, "strength"),
        _Parameter("hue", "hue", 0.0, 0.0, 0.5, "largest turn of the hues"),
    ],
    "grey": [_Parameter("p", "grey", 0.1, 0.0, 1.0, "probability")],
    "cutout": [_Parameter("side", "cutout", 16, 1, 10**4, "side in pixels", whole=True)],
    "erase": [_Parameter("p", "erase", 0.25, 0.0, 1.0, "probability")],
    "mixup": [_Parameter("a", "mixup", 0.2, 0.0, 100.0, _BETA)],
    "cutmix": [_Parameter("a", "cutmix", 1.0, 0.0, 100.0, _BETA)],
}
_ALTERNATIVES = (("crop", "rrc"), ("randaugment", "trivialaugment"))


def parse(text: str, option: str = "--data.augment") -> Recipe:
    """Read a recipe; messages name the option that it was given with.

    Raises:
        ValueError: an unknown part (with the nearest known one), a value outside its range, or `crop` beside `rrc` or
            `randaugment` beside `trivialaugment`.
    """
    if isinstance(text, str) and text.strip() in ("", "none"):
        return Recipe()
    values: dict[str, float] = {}
    names: set[str] = set()
    with about(option):
        for product in calls.parse(text):
            call = product[0]
            if len(product) > 1 or not isinstance(call, calls.Call):
                raise ValueError(f"{shown(text)} given; a part is NAME or NAME(VALUE), and '+' joins parts")
            if call.name not in _PARTS:
                raise ValueError(unknown("part", call.name, [*_PARTS, "none"]))
            if call.name in names:
                raise ValueError(f"{call.name!r} stands twice in {shown(text)}")
            names.add(call.name)
            values |= _values(call)
        for pair in _ALTERNATIVES:
            if names.issuperset(pair):
                raise ValueError(f"{' and '.join(pair)} given, allowed is one of the two")
    return Recipe(**values)  # type: ignore[arg-type]


def _values(call: calls.Call) -> dict[str, float]:
    """The fields that a part sets."""
    parameters = _PARTS[call.name]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(p.name, kind, default=p.default) for p in parameters])
    given = calls.bind(call, signature, "part")
    if not parameters:
        return {call.name: True}
    return {p.field: _value(call, p, given.get(p.name, p.default)) for p in parameters}


def _value(call: calls.Call, parameter: _Parameter, value: object) -> float:
    whole = parameter.whole
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not parameter.lowest <= value <= parameter.highest
        or (whole and value != int(value))
    ):
        kind = "a whole number" if whole else "a number"
        raise ValueError(
            f"{shown(str(call))} given; {parameter.what}, allowed is {kind} in "
            f"[{parameter.lowest:g}, {parameter.highest:g}]"
        )
    return int(value) if whole else float(value)
