"""What losses of features share: the pairs of layers, the shapes of their outputs, a common size for two maps.

Shapes: N samples, D features, C channels, H×W positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor
from torch.nn import functional as F

from kdprune.losses.common.base import DistillLoss, LossInput


class FeatureLoss(DistillLoss):
    """A loss that reads the outputs of layers.

    Args:
        layers: pairs (student module path, teacher module path), as in `model.get_submodule(path)`.
    """

    needs_features = True

    def __init__(self, layers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__()
        self.layers = tuple(_pair(entry) for entry in layers)

    def check(self, num_classes: int) -> None:
        super().check(num_classes)
        if not self.layers:
            name = type(self).__name__
            raise ValueError(f"{name} needs layers, pairs of module paths such as [('layer3', 'layer3')]")

    def features(
        self, student_features: Mapping[str, Tensor], teacher_features: Mapping[str, Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The features of each pair of layers in float32, the teacher's detached."""
        for student_layer, teacher_layer in self.layers:
            student = _find("student", student_layer, student_features)
            teacher = _find("teacher", teacher_layer, teacher_features)
            yield student.float(), teacher.detach().float()

    def pairs(self, batch: LossInput) -> Iterator[tuple[Tensor, Tensor]]:
        """`features` of a batch."""
        return self.features(batch.student_features, batch.teacher_features)


def as_map(features: Tensor) -> Tensor:
    """Features as a map N×C×H×W; a vector N×C becomes a map of one position."""
    if features.ndim == 2:
        return features[:, :, None, None]
    if features.ndim != 4:
        raise ValueError(f"features must be N×C×H×W or N×C, got shape {tuple(features.shape)}: choose another layer")
    return features


def as_vector(features: Tensor) -> Tensor:
    """Features as a vector N×D; a map is averaged over its positions."""
    return as_map(features).mean((2, 3))


def to_smaller(a_NCHW: Tensor, b_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Pool both maps to the smaller height and the smaller width of the two. Their channels may differ."""
    size = min(a_NCHW.shape[2], b_NCHW.shape[2]), min(a_NCHW.shape[3], b_NCHW.shape[3])
    return F.adaptive_avg_pool2d(a_NCHW, size), F.adaptive_avg_pool2d(b_NCHW, size)


def _pair(entry: Sequence[str]) -> tuple[str, str]:
    if isinstance(entry, str) or len(entry) != 2 or not all(isinstance(path, str) for path in entry):
        raise ValueError(f"layers are pairs (student module path, teacher module path), got {entry!r}")
    return entry[0], entry[1]


def _find(whose: str, layer: str, features: Mapping[str, Tensor]) -> Tensor:
    if layer not in features:
        raise ValueError(f"no features of the {whose}'s layer {layer!r} (recorded: {', '.join(features) or 'none'})")
    return features[layer]
