"""Views of samples as batches on the device, from the decoded store or through worker processes.

A reader answers requests (sample ids, views) in their order; what a batch holds does not depend on who else is asked.

Shapes: N samples of the request, C channels, K classes, S view side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from kdprune.data import views
from kdprune.data.images import to_array
from kdprune.data.recipe import Recipe
from kdprune.data.sources.base import Source

Request = tuple[Tensor, Tensor]  # sample ids and views, int64 N, on the host


@dataclass
class Batch:
    """One request, answered.

    Attributes:
        ids: sample ids, int64 N, on the host.
        views: which view of each, int64 N, on the host.
        images: uint8 N×C×H×W, on the device.
        target: class ids int64 N, or class probabilities float32 N×K where samples are mixed; -1 or 0 without a label.
    """

    ids: Tensor
    views: Tensor
    images: Tensor
    target: Tensor


@dataclass(frozen=True)
class ViewSettings:
    """All that a view depends on, beside the sample: it decides which cached targets belong together.

    Attributes:
        recipe: the augmentation.
        size: side of the view in pixels, where the recipe or the large-image path scales.
        seed: of the run.
        fill: mean colour of the data set, for cutout and random erasing.
        stored: made of the decoded store and not by workers, who cut boxes out of images of any size.
    """

    recipe: Recipe
    size: int
    seed: int
    fill: tuple[int, ...]
    stored: bool

    def __str__(self) -> str:
        return f"{self.recipe}, {self.size} px, {'stored' if self.stored else 'decoded'}, filled with {self.fill}"


class Reader:
    """Training views. `images` is the decoded store, or None: then workers decode from `source`.

    Args:
        source: the full training set.
        settings: how views are made.
        images: uint8 M×C×H×W of all samples, on the device or memory-mapped on the host.
        kept: sample ids that mixing partners are drawn from.
        channels, num_classes: of the data set.
        device: where batches go.
        workers: processes that decode; 0 decodes in this one.
    """

    def __init__(
        self,
        source: Source,
        settings: ViewSettings,
        images: Tensor | None,
        kept: np.ndarray,
        channels: int,
        num_classes: int,
        device: torch.device,
        workers: int,
    ) -> None:
        self.source, self.settings, self.images = source, settings, images
        self.channels, self.num_classes = channels, num_classes
        self.device, self.workers = device, workers
        self.labels = torch.from_numpy(source.labels).to(device)
        self.kept = torch.from_numpy(np.ascontiguousarray(kept)).to(device)
        self.fill = torch.tensor(settings.fill, dtype=torch.uint8, device=device)

    def read(self, requests: Iterable[Request]) -> Iterator[Batch]:
        """One batch for each request."""
        if self.images is not None:
            for ids, views_N in requests:
                yield self._finish(ids, views_N, None)
            return
        worker = _Worker(self.source, self.settings, self.channels, self.kept.cpu())
        for ids, views_N, own, partner in _loader(worker, requests, self.workers, self.device):
            yield self._finish(ids, views_N, (own, partner))

    def _finish(self, ids: Tensor, views_N: Tensor, decoded: tuple[Tensor, Tensor | None] | None) -> Batch:
        here, views_here = to_device(ids, self.device), to_device(views_N, self.device)
        recipe, seed = self.settings.recipe, self.settings.seed
        target = self.labels[here]
        x = self._view(here, views_here, None if decoded is None else decoded[0])
        if recipe.mixes:
            mix = views.mixing(recipe, seed, here, views_here, self.kept)
            partner = self._view(mix.partner, views_here, None if decoded is None else decoded[1])
            x, share = views.mixed(x, partner, mix)
            own, other = (F.one_hot(y.clamp(min=0), self.num_classes) for y in (target, self.labels[mix.partner]))
            target = share[:, None] * own + (1 - share[:, None]) * other
        return Batch(ids, views_N, x, target)

    def _view(self, ids: Tensor, views_N: Tensor, decoded: Tensor | None) -> Tensor:
        s = self.settings
        u = views.draws(s.seed, ids, views_N)
        if decoded is not None:
            return views.finish(s.recipe, to_device(decoded, self.device), u, self.fill)
        assert self.images is not None
        images = self.images[ids.to(self.images.device)].to(self.device)
        return views.view_of_stored(s.recipe, images, u, s.size, self.fill)


def held_out_batches(
    source: Source, images: Tensor | None, size: int, crop_pct: float, channels: int, batch_size: int,
    device: torch.device, workers: int, rank: int = 0, world: int = 1, ids: np.ndarray | None = None,
) -> Iterator[Batch]:  # fmt: skip
    """Every sample once, without augmentation; each process gets its own part and none is repeated.

    Args:
        size, crop_pct: large images are scaled so that the short side is size / crop_pct, and the centre is kept;
            images of a store stay as they are, and the model's input scales them.
        ids: the samples to read (default: all).
    """
    chosen = torch.arange(len(source)) if ids is None else torch.from_numpy(ids)
    requests = [(part, torch.zeros_like(part)) for part in chosen[rank::world].split(batch_size)]
    labels = torch.from_numpy(source.labels)
    if images is not None:
        for part, zeros in requests:
            x = images[part.to(images.device)].to(device)
            yield Batch(part, zeros, x, to_device(labels[part], device))
        return
    worker = _Worker(source, None, channels, None, (size, crop_pct))
    for part, zeros, x, _ in _loader(worker, requests, workers, device):
        yield Batch(part, zeros, to_device(x, device), to_device(labels[part], device))


class _Worker(Dataset):
    """Decodes and crops the images of a request; runs in a worker process."""

    def __init__(
        self,
        source: Source,
        settings: ViewSettings | None,
        channels: int,
        kept: Tensor | None,
        centre: tuple[int, float] | None = None,
    ) -> None:
        self.source, self.settings, self.channels, self.kept, self.centre = source, settings, channels, kept, centre

    def __getitem__(self, request: Request) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if get_worker_info() is not None:
            torch.set_num_threads(1)
        ids, views_N = request
        own = self._decode(ids, views_N)
        partner = torch.empty(0, dtype=torch.uint8)
        if self.settings is not None and self.settings.recipe.mixes:
            assert self.kept is not None
            mix = views.mixing(self.settings.recipe, self.settings.seed, ids, views_N, self.kept)
            partner = self._decode(mix.partner, views_N)
        return ids, views_N, own, partner

    def _decode(self, ids: Tensor, views_N: Tensor) -> Tensor:
        opened = [self.source[i] for i in ids.tolist()]
        if self.settings is None:
            assert self.centre is not None
            return self._pixels(opened, [_centre_box(image, *self.centre) for image in opened], self.centre[0])
        s, u_ND = self.settings, views.draws(self.settings.seed, ids, views_N)
        height, width = (torch.tensor([getattr(image, side) for image in opened]) for side in ("height", "width"))
        x = self._pixels(opened, views.crop_box(s.recipe, u_ND, height, width).tolist(), s.size)
        fits = (height == s.size) & (width == s.size)  # nothing to cut out or to scale: as from a decoded store
        if s.recipe.crop and fits.any():
            x[fits] = views.padded_crop(s.recipe, x[fits], u_ND[fits])
        return x

    def _pixels(self, opened: list[Image.Image], boxes: list[Any], size: int) -> Tensor:
        pixels = [_resize(image, box, size, self.channels) for image, box in zip(opened, boxes, strict=True)]
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


def _centre_box(image: Image.Image, size: int, crop_pct: float) -> tuple[float, float, float, float]:
    """The centre square that is left when the short side becomes size / crop_pct and size is kept."""
    side = min(image.height, image.width) * min(1.0, crop_pct)
    return (image.height - side) / 2, (image.width - side) / 2, side, side


def _resize(image: Image.Image, box: tuple[float, ...], size: int, channels: int) -> np.ndarray:
    """The box of an image at size×size, bilinear with antialiasing, uint8 S×S×C."""
    top, left, height, width = box
    pixels = to_array(image, channels)
    whole = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    small = whole.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))
    return np.asarray(small).reshape(size, size, channels)


def _loader(worker: _Worker, requests: Iterable[Request], workers: int, device: torch.device) -> Iterable:
    return DataLoader(
        worker,
        sampler=requests,
        batch_size=None,  # a request is a whole batch already
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=device.type == "cuda",
    )


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """To the device without stopping the host."""
    if device.type == "cuda" and x.device.type == "cpu" and not x.is_pinned():
        x = x.pin_memory()
    return x.to(device, non_blocking=True)
