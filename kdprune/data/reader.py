"""Views of samples as batches on the device, from the decoded store or through worker processes.

A reader answers requests (sample ids, views) in their order; what a batch holds does not depend on the other requests.

Shapes: N samples of the request, K kept samples, C channels, S×T size of a view.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kdprune.data import views
from kdprune.data.framing import InputSize, frame
from kdprune.data.place import Place
from kdprune.data.size import height_width
from kdprune.data.split import Split
from kdprune.data.view_settings import ViewSettings
from kdprune.data.workers import FrameWorker, Request, ViewWorker, answers

__all__ = ["Batch", "InputSize", "Reader", "Request", "plain_batches", "to_device"]


AT_ONCE, AT_ONCE_ON_CPU = 2**21, 2**18
"""Pixels of the views that are made together. Those of a small batch cost what it costs to ask for them, so several
batches are made at once; on a CPU they stay in its caches."""


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
            for group in self._groups(requests, self.split.images):
                yield from self._batches(group)
            return
        worker = ViewWorker(self.split.source, self.split.channels, self.settings, self.kept.cpu())
        for request, decoded, partner in answers(worker, requests, self.place):
            yield self._batch(request, decoded, partner)

    def _groups(self, requests: Iterable[Request], images_NCHW: Tensor) -> Iterator[list[Request]]:
        """Requests whose views are made together: one, or several that are small."""
        (height, width), (s, t) = images_NCHW.shape[-2:], height_width(self.settings.size)
        most = AT_ONCE_ON_CPU if self.device.type == "cpu" else AT_ONCE
        samples = most // max(height * width, s * t)
        group: list[Request] = []
        asked = 0
        for request in requests:
            if group and asked + len(request[0]) > samples:
                yield group
                group, asked = [], 0
            group.append(request)
            asked += len(request[0])
        if group:
            yield group

    def _batches(self, group: list[Request]) -> Iterator[Batch]:
        """One batch for each request; a view is a function of its sample, so they can be made together."""
        if len(group) == 1:
            yield self._batch(group[0], None, None)
            return
        all_ids, all_views = torch.cat([ids for ids, *_ in group]), torch.cat([views_N for _, views_N, *_ in group])
        made, sizes = self._batch((all_ids, all_views), None, None), [len(ids) for ids, *_ in group]
        for request, x, y in zip(group, made.images.split(sizes), made.labels.split(sizes), strict=True):
            ids, views_N, *weights = request
            yield Batch(ids, views_N, x, y, self._weights(*weights))

    def _weights(self, weights_N: Tensor | None = None) -> Tensor | None:
        return None if weights_N is None else to_device(weights_N, self.device)

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
        return Batch(host_ids, host_views, x, labels, self._weights(*weights))

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
    worker = FrameWorker(split.source, split.channels, spec)
    for (part, zeros), x in answers(worker, requests, place):
        yield Batch(part, zeros, to_device(x, place.device), to_device(labels[part], place.device))


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """To the device without stopping the host."""
    if device.type == "cuda" and x.device.type == "cpu" and not x.is_pinned():
        x = x.pin_memory()
    return x.to(device, non_blocking=True)
