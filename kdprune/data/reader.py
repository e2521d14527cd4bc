"""Views of samples as batches on the device, from the decoded store or through worker processes.

A reader answers requests (sample ids, views) in their order; what a batch holds does not depend on the other requests.

Shapes: N samples of the request, K kept samples, C channels, S×T size of a view.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from kdprune.data import views
from kdprune.data.counter import STUDENT
from kdprune.data.cut import cut
from kdprune.data.framing import InputSize, frame, frame_image, framed_channels
from kdprune.data.images import ImageError
from kdprune.data.jpeg import is_plain, jpeg_decoder
from kdprune.data.place import Place
from kdprune.data.recipe import Recipe
from kdprune.data.size import Size, height_width, size_of, written
from kdprune.data.sources.base import Source
from kdprune.data.split import Split

__all__ = ["Batch", "InputSize", "Reader", "Request", "ViewSettings", "plain_batches", "to_device"]

# Sample ids and views, int64 N, on the host; and where samples do not count alike, their weights, float32 N.
Request = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor | None]


@dataclass
class Batch:
    """One request, answered.

    Attributes:
        ids: sample ids, int64 N, on the host.
        views: which view of each, int64 N, on the host.
        images: uint8 N×C×H×W, on the device; channels_last where workers made them.
        labels: class ids int64 N, or class probabilities float32 N×classes where samples are mixed; -1 or 0 without a
            label.
        weights: of the samples in the loss, float32 N, on the device; None: all count alike.
    """

    ids: Tensor
    views: Tensor
    images: Tensor
    labels: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True)
class ViewSettings:
    """All that a view depends on, beside the sample: it decides which cached targets belong together.

    Attributes:
        recipe: the augmentation.
        size: of the view in pixels: the side of a square, or height and width.
        seed: of the run.
        fill: mean colour of the data set, for cutout and random erasing; its length is the number of channels.
        stored: made of the decoded store and not by workers, who cut boxes out of images of any size.
        role: of the model that is trained on the views; another role draws other views.
        interpolation: how images are scaled: as the student wants them.
    """

    recipe: Recipe
    size: Size
    seed: int
    fill: tuple[int, ...]
    stored: bool
    role: str = STUDENT
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", size_of(self.size))

    def key(self) -> dict[str, Any]:
        """What is the same for two settings exactly if their views are; JSON values, for the key of an artefact."""
        size = self.size if isinstance(self.size, int) else list(self.size)
        versions = {"version": views.VIEWS_VERSION, **({} if self.stored else {"cutting": views.CUTTING_VERSION})}
        return {**asdict(self), "size": size, "fill": list(self.fill), **versions}

    def __str__(self) -> str:
        role = "" if self.role == STUDENT else f", of the {self.role}"
        scaled = f"{written(self.size)} px, {self.interpolation}"
        return f"{self.recipe}, {scaled}, {'stored' if self.stored else 'decoded'}, filled with {self.fill}{role}"


class Reader:
    """Training views of a split.

    Args:
        split: the whole training set; where its images are decoded, views are made of them, and else by workers.
        settings: how views are made.
        kept: sample ids that mixing partners are drawn from, K.
        num_classes: of mixed labels.
        place: where batches go, and how many workers decode.
    """

    def __init__(self, split: Split, settings: ViewSettings, kept: np.ndarray, num_classes: int, place: Place) -> None:
        self.split, self.settings, self.num_classes, self.place = split, settings, num_classes, place
        self.device = place.device
        self.labels = torch.from_numpy(split.labels).to(self.device)
        self.kept = torch.from_numpy(np.ascontiguousarray(kept)).to(self.device)
        self.fill = torch.tensor(settings.fill, dtype=torch.uint8, device=self.device)

    def read(self, requests: Iterable[Request]) -> Iterator[Batch]:
        """One batch for each request."""
        if self.split.images is not None:
            for request in requests:
                yield self._batch(request, None, None)
            return
        worker = _ViewWorker(self.split.source, self.split.channels, self.settings, self.kept.cpu())
        for request, decoded, partner in _loader(worker, requests, self.place):
            yield self._batch(request, decoded, partner)

    def _batch(self, request: Request, decoded: Tensor | None, decoded_partner: Tensor | None) -> Batch:
        """A batch of the request; `decoded` and `decoded_partner` are what a worker made of it, N×C×S×T."""
        host_ids, host_views, *weights = request
        ids, views_N = to_device(host_ids, self.device), to_device(host_views, self.device)
        s = self.settings
        labels = self.labels[ids]
        x = self._view(ids, views_N, decoded)
        if s.recipe.mixes:
            mix = views.mixing(s.recipe, s.seed, ids, views_N, self.kept, s.role)
            x, share = views.mixed(x, self._view(mix.partner, views_N, decoded_partner), mix)
            label, partner_label = (
                F.one_hot(y.clamp(min=0), self.num_classes) for y in (labels, self.labels[mix.partner])
            )
            labels = share[:, None] * label + (1 - share[:, None]) * partner_label
        weights_N = weights[0] if weights else None
        return Batch(host_ids, host_views, x, labels, None if weights_N is None else to_device(weights_N, self.device))

    def _view(self, ids: Tensor, views_N: Tensor, decoded: Tensor | None) -> Tensor:
        s = self.settings
        u = views.draws(s.seed, ids, views_N, s.role)
        if decoded is not None:
            return views.finish(s.recipe, to_device(decoded, self.device), u, self.fill)
        assert self.split.images is not None
        images = self.split.images[ids.to(self.split.images.device)].to(self.device)
        return views.view_of_stored(s.recipe, images, u, s.size, self.fill, s.interpolation)


def plain_batches(
    split: Split, ids: np.ndarray, spec: InputSize, place: Place, batch_size: int = 512
) -> Iterator[Batch]:
    """Samples once each, without augmentation: this process's part of them, every `world`-th from the `rank`-th on.

    Args:
        ids: sample ids of the split.
        spec: of the model that is to see them: they are cut and scaled as timm does it for evaluation, images of a
            store and large ones alike (`framing`).
    """
    parts = torch.from_numpy(ids)[place.rank :: place.world].split(batch_size)
    requests = [(part, torch.zeros_like(part)) for part in parts if len(part)]
    labels = torch.from_numpy(split.labels)
    if split.images is not None:
        for part, zeros in requests:
            x = frame(split.images[part.to(split.images.device)].to(place.device), spec)
            yield Batch(part, zeros, x, to_device(labels[part], place.device))
        return
    worker = _FrameWorker(split.source, split.channels, spec)
    for (part, zeros), x in _loader(worker, requests, place):
        yield Batch(part, zeros, to_device(x, place.device), to_device(labels[part], place.device))


def _answered(decode: Callable[..., Any]) -> Callable[..., Any]:
    """Errors as answers: what a worker raises, torch would put into a traceback of the worker's."""

    @functools.wraps(decode)
    def answer(self: Dataset, request: Request) -> Any:
        try:
            return decode(self, request)
        except (OSError, ValueError) as error:
            return error

    return answer


class _ViewWorker(Dataset):
    """Decodes the images of a request and their mixing partners, and makes their views up to the flip; in a worker."""

    def __init__(self, source: Source, channels: int, settings: ViewSettings, kept: Tensor) -> None:
        self.source, self.channels, self.settings, self.kept = source, channels, settings, kept

    @_answered
    def __getitem__(self, request: Request) -> tuple[Request, Tensor, Tensor | None]:
        _use_one_thread()
        ids, views_N, *_ = request
        partner = None
        s = self.settings
        if s.recipe.mixes:
            mix = views.mixing(s.recipe, s.seed, ids, views_N, self.kept, s.role)
            partner = self._decode(mix.partner, views_N)
        return request, self._decode(ids, views_N), partner

    def _decode(self, ids: Tensor, views_N: Tensor) -> Tensor:
        s, u_ND = self.settings, views.draws(self.settings.seed, ids, views_N, self.settings.role)
        # First all are opened, for their sizes; then each is cut while its pixels are in the processor's cache.
        images = [self.source.opened(i) for i in ids.tolist()]
        height, width = torch.tensor([(image.height, image.width) for image in images]).unbind(1)
        size = height_width(s.size)
        boxes = views.crop_box(s.recipe, u_ND, height, width, size).int().tolist()
        cuts = [
            cut(self.source.pixels(i, image, self.channels), box, size, s.interpolation)
            for i, image, box in zip(ids.tolist(), images, boxes, strict=True)
        ]
        moved = views.is_whole(height, width, size).nonzero()[:, 0] if s.recipe.crop else ids[:0]
        if len(moved):
            whole_MCST = torch.stack([cuts[n] for n in moved.tolist()]).permute(0, 3, 1, 2)
            crops_MSTC = views.padded_crop(s.recipe, whole_MCST, u_ND[moved]).permute(0, 2, 3, 1)
            for n, crop_STC in zip(moved.tolist(), crops_MSTC, strict=True):
                cuts[n] = crop_STC
        flipped = views.is_flipped(s.recipe, u_ND).tolist()
        return _stacked([x_STC.flip(1) if flip else x_STC for x_STC, flip in zip(cuts, flipped, strict=True)])


class _FrameWorker(Dataset):
    """Decodes the images of a request, and cuts and scales them for a model; runs in a worker."""

    def __init__(self, source: Source, channels: int, spec: InputSize) -> None:
        self.source, self.channels, self.spec = source, framed_channels(channels, spec), spec

    @_answered
    def __getitem__(self, request: Request) -> tuple[Request, Tensor]:
        _use_one_thread()
        frames = []
        for i in request[0].tolist():
            image_HWC = self.source.pixels(i, self.source.opened(i), self.channels)
            frame_HWC = frame_image(_as_image(image_HWC), self.spec)
            frames.append(torch.from_numpy(frame_HWC))
        return request, _stacked(frames)


def _use_one_thread() -> None:
    """Workers share the cores among themselves."""
    if get_worker_info() is not None:
        torch.set_num_threads(1)


def _as_image(pixels_HWC: np.ndarray) -> Image.Image:
    """Mode L or RGB."""
    return Image.fromarray(pixels_HWC[..., 0] if pixels_HWC.shape[2] == 1 else pixels_HWC)


def _stacked(images_HWC: list[Tensor]) -> Tensor:
    """Images of one size as uint8 N×C×H×W, channels_last, as convolutions like it best.

    A worker writes them into memory that it shares with its parent.
    """
    x_NHWC: Tensor = default_collate(images_HWC)
    count, height, width, channels = x_NHWC.shape
    return x_NHWC.view(count, 1, height, width) if channels == 1 else x_NHWC.permute(0, 3, 1, 2)


def _get_ready(source: Source) -> None:
    """Load here what decodes the images, and not in every worker: they are forked."""
    with contextlib.suppress(ImageError):  # a worker meets it again
        if is_plain(source.opened(0)):
            jpeg_decoder()


def _loader(worker: _ViewWorker | _FrameWorker, requests: Iterable[Request], place: Place) -> Iterator[Any]:
    """Answers of workers to requests, in their order.

    Raises:
        ImageError: an image that cannot be read; and other errors of reading, as a worker met them.
        ChildProcessError: a worker died.
    """
    _get_ready(worker.source)
    loader = DataLoader(
        worker,
        sampler=requests,
        batch_size=None,  # a request is a whole batch already
        num_workers=place.workers,
        prefetch_factor=4 if place.workers else None,
        pin_memory=place.device.type == "cuda",
    )
    try:
        for answer in loader:
            if isinstance(answer, Exception):
                raise answer
            yield answer
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ChildProcessError(
            f"a process that decodes images died ({str(error).splitlines()[0]}); if memory ran out, use fewer with "
            "--data.workers"
        ) from None


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """To the device without stopping the host."""
    if device.type == "cuda" and x.device.type == "cpu" and not x.is_pinned():
        x = x.pin_memory()
    return x.to(device, non_blocking=True)
