"""Processes that decode images and make views of them, where no store holds the images.

Shapes: N samples of a request, M of them that are moved in their frame, K kept samples, H×W the size of an image, S×T
of a view, C channels.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from kdprune.data import views
from kdprune.data.cut import cut
from kdprune.data.framing import InputSize, frame_image, framed_channels
from kdprune.data.images import ImageError
from kdprune.data.jpeg import is_plain, jpeg_decoder
from kdprune.data.place import Place
from kdprune.data.size import height_width
from kdprune.data.sources.base import Source
from kdprune.data.view_settings import ViewSettings

# Sample ids and views, int64 N, on the host; and where samples do not count alike, their weights, float32 N.
Request = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor | None]


def _answered(decode: Callable[..., Any]) -> Callable[..., Any]:
    """Errors as answers: what a worker raises, torch would put into a traceback of the worker's."""

    @functools.wraps(decode)
    def answer(self: Dataset, request: Request) -> Any:
        try:
            return decode(self, request)
        except (OSError, ValueError) as error:
            return error

    return answer


class ViewWorker(Dataset):
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


class FrameWorker(Dataset):
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


def answers(worker: ViewWorker | FrameWorker, requests: Iterable[Request], place: Place) -> Iterator[Any]:
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
