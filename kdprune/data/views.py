"""Views: the random changes of an image, as a function of (seed, view, sample id).

A view is uint8 like the image it is made of, so that it is the same thing for the student and for every teacher
whatever their means, sizes and precisions. Everything is vectorised over the batch and runs where the images are.

Shapes: N samples of the batch, C channels, H×W stored size, S×T size of a view, D draws.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kdprune.data import counter
from kdprune.data import draws as column
from kdprune.data.augment import randaugment, trivialaugment
from kdprune.data.boxes import crop_box
from kdprune.data.colour import grey, jitter
from kdprune.data.draws import bits, draws
from kdprune.data.recipe import Recipe
from kdprune.data.resize import Box, resize
from kdprune.data.size import Size, height_width

__all__ = [
    "CUTTING_VERSION", "VIEWS_VERSION", "Mix", "crop_box", "draws", "finish", "mixed", "mixing", "padded_crop",
    "view_of_stored",
]  # fmt: skip

VIEWS_VERSION = 2
"""Raised by every change after which the same recipe, seed and sample give other pixels, here, in `resize` or in the
counter; then nothing that was computed from the old views (cached targets) is used again."""

CUTTING_VERSION = 1
"""The same for changes that only views made by workers see: in how these decode, cut and scale an image."""


def view_of_stored(
    recipe: Recipe,
    images_NCHW: Tensor,
    u_ND: Tensor,
    size: Size,
    fill_C: Tensor,
    interpolation: str = "bilinear",
) -> Tensor:
    """Views of decoded images of one size, uint8 N×C×S×T."""
    height, width = images_NCHW.shape[-2:]
    shape = height_width(size)
    x = images_NCHW
    if recipe.rrc > 0 or (height, width) != shape:
        sides = _extent(height, width, u_ND.device).expand(len(u_ND), 2)
        box_N4 = crop_box(recipe, u_ND, sides[:, 0], sides[:, 1], shape)
        x = resize(x, Box(*box_N4.unbind(1)), shape, interpolation)
    if recipe.crop and is_whole(height, width, shape):
        x = padded_crop(recipe, x, u_ND)
    if recipe.flip > 0:
        x = torch.where(is_flipped(recipe, u_ND)[:, None, None, None], x.flip(-1), x)
    return finish(recipe, x, u_ND, fill_C)


def is_whole(height: Any, width: Any, size: tuple[int, int]) -> Any:
    """Whether the largest part of the shape of a size is the whole image, so that `crop` moves it by padding it."""
    return height * size[1] == width * size[0]


def is_flipped(recipe: Recipe, u_ND: Tensor) -> Tensor:
    """Whether each view is turned from left to right, bool N."""
    return u_ND[:, column.FLIP] < recipe.flip


def finish(recipe: Recipe, x_NCHW: Tensor, u_ND: Tensor, fill_C: Tensor) -> Tensor:
    """The parts of a recipe that come after the flip, from the colours to random erasing. uint8 to uint8."""
    if recipe.recolours:  # by means, whose sums are to be made in one order: images of workers are channels_last
        x_NCHW = x_NCHW.contiguous()
    if recipe.randaugment:
        x_NCHW = randaugment(recipe.randaugment, recipe.magnitude, x_NCHW, u_ND)
    if recipe.trivialaugment:
        x_NCHW = trivialaugment(x_NCHW, u_ND)
    if recipe.jitter > 0 or recipe.hue > 0:
        x_NCHW = jitter(recipe.jitter, recipe.hue, x_NCHW, u_ND)
    if recipe.grey > 0:
        x_NCHW = grey(recipe.grey, x_NCHW, u_ND)
    height, width = x_NCHW.shape[-2:]
    if recipe.cutout:
        centre = u_ND[:, column.CUT_Y : column.CUT_X + 1] * _extent(height, width, u_ND.device)
        top_left = centre.floor() - recipe.cutout // 2
        x_NCHW = _fill(x_NCHW, top_left, torch.full_like(top_left, recipe.cutout), fill_C)
    if recipe.erase > 0:
        area = (0.02 + 0.31 * u_ND[:, column.ERASE_AREA]) * height * width
        ratio = torch.exp((2 * u_ND[:, column.ERASE_RATIO] - 1) * math.log(1 / 0.3))
        extent = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).round()
        limit = _extent(height, width, u_ND.device)
        extent = torch.minimum(extent, limit) * (u_ND[:, column.ERASE, None] < recipe.erase)
        top_left = (u_ND[:, column.ERASE_Y : column.ERASE_X + 1] * (limit - extent + 1)).floor()
        x_NCHW = _fill(x_NCHW, top_left, extent, fill_C)
    return x_NCHW


class Mix(NamedTuple):
    """How a sample is mixed with its partner. All N."""

    partner: Tensor  # sample ids, int64
    lam: Tensor  # share of the sample itself, float32
    is_cut: Tensor  # bool: CutMix rather than mixup
    centre: Tensor  # N×2, centre of CutMix's box as fractions of height and width


def mixing(
    recipe: Recipe, seed: int, ids_N: Tensor, views_N: Tensor, kept_K: Tensor, role: str = counter.STUDENT
) -> Mix:
    """Partner and λ of each sample, as a function of (seed, role, view, sample id) and of the set of kept ids.

    λ ~ Beta(a, a) by the inverse of its distribution function, one for each sample (timm's mode 'elem').
    """
    u = counter.uniform(bits(seed, "mix", role, ids_N, views_N), 5)
    # 24 random bits cannot reach more than 16 million kept ids; the hash itself has 64.
    pick = bits(seed, "partner", role, ids_N, views_N)
    partner = kept_K[pick.remainder(len(kept_K))]
    if recipe.mixup > 0 and recipe.cutmix > 0:
        is_cut = u[:, 0] < 0.5
    else:
        is_cut = torch.full_like(u[:, 0], recipe.cutmix > 0, dtype=torch.bool)
    lam_mix, lam_cut = (beta_quantile(a or 1.0, u[:, 1]) for a in (recipe.mixup, recipe.cutmix))
    return Mix(partner, torch.where(is_cut, lam_cut, lam_mix), is_cut, u[:, 2:4])


def mixed(x_NCHW: Tensor, partner_NCHW: Tensor, mix: Mix) -> tuple[Tensor, Tensor]:
    """Mixed views, uint8, and the share λ of each sample's own label (for CutMix the exact share of the area)."""
    height, width = x_NCHW.shape[-2:]
    lam = mix.lam[:, None, None, None]
    blend = (lam * x_NCHW + (1 - lam) * partner_NCHW).round().to(torch.uint8)
    size = _extent(height, width, x_NCHW.device)
    half = (1 - mix.lam).sqrt()[:, None] * size / 2
    low = (mix.centre * size - half).round().clamp(min=0)
    high = torch.minimum((mix.centre * size + half).round(), size)
    inside = _inside(low, high - low, height, width)
    pasted = torch.where(inside[:, None], partner_NCHW, x_NCHW)
    share = 1 - (high - low).prod(1) / (height * width)
    is_cut = mix.is_cut
    return torch.where(is_cut[:, None, None, None], pasted, blend), torch.where(is_cut, share, mix.lam)


def beta_quantile(a: float, u_N: Tensor) -> Tensor:
    """The inverse distribution function of Beta(a, a) at u, from a table of 4,096 points and linear between them."""
    table = _beta_table(a, u_N.device)
    place = u_N * (len(table) - 1)
    low = place.long().clamp(max=len(table) - 2)
    return torch.lerp(table[low], table[low + 1], place - low)


@lru_cache(maxsize=8)
def _beta_table(a: float, device: torch.device) -> Tensor:
    from scipy.special import betaincinv

    return torch.tensor(betaincinv(a, a, np.linspace(0, 1, 4096)), dtype=torch.float32, device=device)


def padded_crop(recipe: Recipe, images_NCHW: Tensor, u_ND: Tensor) -> Tensor:
    """Random crop of the image's own size after padding with black: a shift by whole pixels."""
    height, width = images_NCHW.shape[-2:]
    padding = max(1, min(height, width) // 8) if recipe.crop == -1 else recipe.crop
    shift = (u_ND[:, column.TOP : column.LEFT + 1] * (2 * padding + 1)).floor().long()
    rows = torch.arange(height, device=u_ND.device) + shift[:, :1]
    columns = torch.arange(width, device=u_ND.device) + shift[:, 1:]
    padded = F.pad(images_NCHW, (padding,) * 4)
    flat = (rows[:, :, None] * padded.shape[-1] + columns[:, None, :]).flatten(1)
    flat = flat[:, None].expand(-1, images_NCHW.shape[1], -1)
    return padded.flatten(2).gather(2, flat).view(images_NCHW.shape)


def _fill(x_NCHW: Tensor, top_left_N2: Tensor, extent_N2: Tensor, fill_C: Tensor) -> Tensor:
    inside = _inside(top_left_N2, extent_N2, *x_NCHW.shape[-2:])
    return torch.where(inside[:, None], fill_C.to(x_NCHW)[None, :, None, None], x_NCHW)


def _inside(top_left_N2: Tensor, extent_N2: Tensor, height: int, width: int) -> Tensor:
    """Whether a pixel lies in its sample's box, bool N×H×W."""
    y = torch.arange(height, device=top_left_N2.device)
    x = torch.arange(width, device=top_left_N2.device)
    top, left = top_left_N2[:, :1], top_left_N2[:, 1:]
    in_rows = (y >= top) & (y < top + extent_N2[:, :1])
    in_columns = (x >= left) & (x < left + extent_N2[:, 1:])
    return in_rows[:, :, None] & in_columns[:, None, :]


@lru_cache(maxsize=64)
def _extent(height: int, width: int, device: torch.device) -> Tensor:
    """[height, width] on the device; kept, because making it anew would stop the host at every step."""
    return torch.tensor([height, width], dtype=torch.float32, device=device)
