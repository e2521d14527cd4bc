"""Views of a data set as batches, for a training loop of one's own.

Shapes: N images of a batch, C channels, S×T size of a view, K kept samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdprune.api.data import opened
from kdprune.api.select import fingerprint_of_labels
from kdprune.api.surroundings import restored_surroundings
from kdprune.config import DataConfig
from kdprune.data import recipe
from kdprune.data.dataset import Data
from kdprune.data.place import Place
from kdprune.data.reader import Batch, Reader, Request, plain_batches
from kdprune.data.size import size_of
from kdprune.data.stream import Stream
from kdprune.data.subset import Subset, load_subset
from kdprune.data.view_settings import ViewSettings
from kdprune.models.inputs import Inputs
from kdprune.models.spec import InputSpec


class Views:
    """Random views of the kept part of a data set, each a function of (seed, view, sample id).

    So they are the same for student and teacher, in every process, and in a run of `train` with the same settings.

    Args:
        data: as for `train`, or a name such as "digits".
        augment: the recipe ([views](views.md)), as in `data.augment`.
        subset: what is kept: of `select`, or a file; None for all that can be read.
        seed: of order and views.
        image_size: S in pixels, or [S, T]; by default the stored size (the shorter side of images that are not square).
            It must be given where the images are decoded by workers.
        device: where batches go, such as "cuda:1"; by default the fastest one.
        workers: as in the settings `data.*`.
        memory_gb: as there.
        root: as there.

    Attributes:
        data: what was opened: `train` and `test` with `labels` and `classes`, `mean`, `std`, `fingerprint`.
        subset: what is kept.
        spec: the input of a model that is trained on these views: channels, size, mean and std of the data.

    Raises:
        ValueError: data that cannot be opened, a bad recipe, a subset of other data.

    Example:
        >>> import kdprune
        >>> views = kdprune.Views("digits", "crop(1)", subset=kdprune.select("digits", 0.5))
        >>> batch = next(views.batches(32, epochs=1))
        >>> batch.images.dtype, tuple(batch.images.shape), tuple(batch.labels.shape)
        (torch.uint8, (32, 1, 8, 8), (32,))
    """

    def __init__(
        self,
        data: Any,
        augment: str = "crop+flip",
        *,
        subset: Subset | str | Path | None = None,
        seed: int = 0,
        image_size: int | Sequence[int] | None = None,
        device: str | torch.device | None = None,
        workers: int | None = None,
        memory_gb: float = 4.0,
        root: str | None = None,
    ) -> None:
        made_of = recipe.parse(augment)
        settings = DataConfig(root=root, workers=workers, memory_gb=memory_gb)
        with restored_surroundings():
            self.data: Data = opened(data, settings, seed)
        self.place = Place(torch.device(device) if device is not None else _fastest(), self.data.workers)
        given = image_size or self.data.stored_size
        if given is None:
            raise ValueError("image_size: not given, and these images are decoded by workers, so they have no one size")
        size = size_of(given)
        self.subset = _checked(subset, self.data)
        self.spec = InputSpec(self.data.channels, size, self.data.mean, self.data.std)
        fill = tuple(round(255 * m) for m in self.data.mean)
        self.settings = ViewSettings(made_of, size, seed, fill, self.data.train.images is not None)
        self._reader = Reader(self.data.train, self.settings, self.subset.ids, self.num_classes, self.place)
        self._inputs: dict[InputSpec, Inputs] = {}

    @property
    def num_classes(self) -> int:
        return self.data.num_classes

    @property
    def device(self) -> torch.device:
        return self.place.device

    def batches(self, batch_size: int, epochs: float, views: int | None = None) -> Iterator[Batch]:
        """Every kept sample once an epoch, in an order that is a function of the seed and the epoch.

        The epochs follow each other without a gap, so that every batch is full and no sample is left out.

        Args:
            batch_size: N.
            epochs: passes over the kept samples; they need not be whole.
            views: number of different views of a sample: epoch e has view e mod `views`; None: one for each epoch.

        Yields:
            `ids` and `views`, int64 N, on the host; on the device `images`, uint8 N×C×S×T, and `labels`, int64 N, or
            float32 N×classes where samples are mixed.

        Example:
            >>> import kdprune
            >>> len(list(kdprune.Views("digits").batches(128, epochs=2)))  # 2 · 1347 / 128
            21
        """
        order = Stream(self.subset.ids, batch_size, self.settings.seed)

        def requests() -> Iterator[Request]:
            for step in range(max(1, int(epochs * len(self.subset.ids) // batch_size))):
                ids, epoch_N = order.batch(step)
                yield ids, epoch_N if views is None else epoch_N % views

        return self._reader.read(requests())

    def held_out(self, batch_size: int = 512, spec: InputSpec | None = None) -> Iterator[Batch]:
        """Every held-out sample once, without augmentation, as in `batches`; the last batch may be smaller.

        Args:
            spec: the input of the model that is evaluated, such as `teacher.spec`: images are cut and scaled as timm
                does it for that model. By default that of a model that is trained on these views.

        Raises:
            ValueError: the data has no held-out part.
        """
        if self.data.test is None:
            raise ValueError("data: it has no held-out part; give a pair (train, test)")
        return plain_batches(self.data.test, self.data.test.readable, spec or self.spec, self.place, batch_size)

    def normalise(self, images: Tensor, spec: InputSpec | None = None) -> Tensor:
        """What a model takes, of uint8 images N×C×H×W: float32 N×C×S×T, (x/255 − mean) / std.

        Args:
            images: of a batch.
            spec: the input of a model, such as `teacher.spec`; by default the data's own mean, std and size.
        """
        spec = spec or self.spec
        if spec not in self._inputs:
            self._inputs[spec] = Inputs(spec, self.device)
        normalised: Tensor = self._inputs[spec](images)
        return normalised


def _fastest() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _checked(subset: Subset | str | Path | None, data: Data) -> Subset:
    """The kept samples, which must be of this data."""
    total = len(data.train)
    if subset is None:
        return Subset(data.train.readable, total, data.fingerprint)
    if not isinstance(subset, Subset):
        return load_subset(subset, data.fingerprint, total)
    if subset.fingerprint not in (data.fingerprint, fingerprint_of_labels(data.train.labels)):
        raise ValueError(f"subset: it was chosen from other data ({subset.total} samples, this data has {total})")
    return subset
