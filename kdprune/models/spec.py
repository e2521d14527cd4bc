"""A built model and how it wants its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from timm.data import resolve_model_data_config
from torch import nn

from kdprune.data.framing import CROP_MODES
from kdprune.data.resize import FILTERS
from kdprune.data.size import Size, height_width, size_of
from kdprune.outside import FINITE, TEXT, Kind, check_fields, list_of, whole


@dataclass(frozen=True)
class InputSpec:
    """How a model wants its images: normalised as (x − mean) / std with x in [0, 1].

    Attributes:
        channels: 1 or 3.
        size: in pixels, the side of a square or (height, width).
        mean, std: of each channel.
        interpolation, crop_pct, crop_mode: how whole images are scaled and cut for it (`kdprune.data.framing`);
            training views, which are random parts already, are only scaled.
    """

    channels: int
    size: Size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    crop_pct: float = 1.0
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", size_of(self.size))
        for what, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise ValueError(f"{what} has {len(values)} values for images of {self.channels} channels")
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0, got {self.std}")
        for what, value, allowed in (
            ("interpolation", self.interpolation, tuple(FILTERS)), ("crop_mode", self.crop_mode, CROP_MODES),
        ):  # fmt: skip
            if value not in allowed:
                raise ValueError(f"{what} of the model's input is {value!r}, allowed are {', '.join(allowed)}")
        if not self.crop_pct > 0:
            raise ValueError(f"crop_pct must be above 0, got {self.crop_pct}")

    @property
    def size_HW(self) -> tuple[int, int]:
        return height_width(self.size)

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> InputSpec:
        """The input that a file describes.

        Raises:
            ValueError: a field that is missing, unknown (of a later version), or of another kind.
        """
        check_fields(content, _FIELDS, "the input of a model", may_lack=["crop_mode"])
        if "crop_mode" not in content:  # of a time when every model was given bilinear images
            content = {**content, "interpolation": "bilinear"}
        try:
            return cls(**{**content, "mean": tuple(content["mean"]), "std": tuple(content["std"])})
        except TypeError as error:
            raise ValueError(f"the input of a model is damaged, or of another version: {error}") from None


_SIDE = whole(1, 4096)
_SIZE = Kind(
    "a side, or height and width, in pixels",
    lambda size: _SIDE.fits(size) or (isinstance(size, list | tuple) and len(size) == 2 and all(map(_SIDE.fits, size))),
)
_FIELDS = {"channels": whole(1, 4096), "size": _SIZE, "mean": list_of(FINITE), "std": list_of(FINITE),
           "interpolation": TEXT, "crop_pct": FINITE, "crop_mode": TEXT}  # fmt: skip


@dataclass
class BuiltModel:
    """A model with what has to be known to use it and to save it.

    Attributes:
        model: the network; logits are [N, num_classes].
        name: its name for `timm.create_model`; of a module of the user's own, that of its class.
        classes: names of the classes in the order of the logits, where known.
        info: free notes that travel in the header of the file (smoothing, epoch, …); JSON values only.
        model_args: arguments of the model besides class count, channels and image size, needed to build it again.
        structure: of a module of the user's own, which cannot be built by name: a hash of what it is made of.
        widths: shapes of the tensors that are narrower than the named model's (`kdprune.models.narrow`).
    """

    model: nn.Module = field(repr=False)
    name: str
    num_classes: int
    spec: InputSpec
    classes: list[str] | None = None
    info: dict[str, Any] = field(default_factory=dict)
    model_args: dict[str, Any] = field(default_factory=dict)
    structure: str | None = None
    widths: dict[str, tuple[int, ...]] = field(default_factory=dict)


def own_spec(model: nn.Module, channels: int, size: Size | None) -> InputSpec:
    """The input that a timm model was made for, by its pretrained configuration.

    Args:
        channels: channels that this instance takes; the configuration's normalisation is adapted to them.
        size: pixels that this instance takes; None for the configuration's.
    """
    config = resolve_model_data_config(model)
    return InputSpec(
        channels=channels,
        size=size or size_of(config["input_size"][1:]),
        mean=_for_channels(config["mean"], channels),
        std=_for_channels(config["std"], channels),
        interpolation=config["interpolation"],
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"],
    )


def scratch_spec(model_spec: InputSpec, mean: Sequence[float] | None, std: Sequence[float] | None) -> InputSpec:
    """The input of a model without a past: the data's normalisation, the whole image."""
    return InputSpec(
        channels=model_spec.channels,
        size=model_spec.size,
        mean=model_spec.mean if mean is None else _repeated(mean, model_spec.channels),
        std=model_spec.std if std is None else _repeated(std, model_spec.channels),
    )


def _for_channels(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """RGB statistics for another number of channels: their average, as timm's adapted first convolution sums them."""
    values = tuple(values)
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def _repeated(values: Sequence[float], channels: int) -> tuple[float, ...]:
    values = tuple(float(value) for value in values)
    return values * channels if len(values) == 1 else values
