"""The part of an image that a view shows, before it is scaled to the view's size.

Shapes: N samples of the batch, D draws, T tries.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdprune.data.draws import LEFT, TOP, TRIES, areas_and_ratios
from kdprune.data.recipe import Recipe

NARROWEST, WIDEST = 3 / 4, 4 / 3  # width / height of a random resized crop


def crop_box(recipe: Recipe, u_ND: Tensor, height_N: Tensor, width_N: Tensor, size: tuple[int, int] = (1, 1)) -> Tensor:
    """The box of each view: a random resized crop, or else the largest part of the shape of a size.

    The latter is at a random place if the recipe has `crop`, in the middle if not.

    Args:
        height_N, width_N: of the images.
        size: of the views, height and width; only their ratio matters.

    Returns:
        float32 N×4: top, left, height, width in whole pixels, inside of the image.
    """
    height, width = height_N.float(), width_N.float()
    if recipe.rrc > 0:
        return resized_crop_box(recipe.rrc, u_ND, height, width)
    scale = torch.minimum(height / size[0], width / size[1])
    h = torch.minimum((size[0] * scale).round().clamp(min=1), height)
    w = torch.minimum((size[1] * scale).round().clamp(min=1), width)
    place = u_ND[:, TOP : LEFT + 1] if recipe.crop else torch.full_like(u_ND[:, :2], 0.5)
    return torch.stack([*_placed(place, height, width, h, w), h, w], 1)


def resized_crop_box(min_area: float, u_ND: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Szegedy et al. 2015 as torchvision's RandomResizedCrop has it: the first of ten tries that fits into the image.

    A try is an area drawn from [min_area, 1] of the image's and a log-uniform ratio of width to height in [3/4, 4/3].
    Where none fits, it is the largest part in the middle whose ratio is within these bounds.
    """
    area_NT, ratio_NT = areas_and_ratios(u_ND)
    area_NT = (min_area + (1 - min_area) * area_NT) * (height * width)[:, None]
    low, high = math.log(NARROWEST), math.log(WIDEST)
    ratio_NT = torch.exp(low + (high - low) * ratio_NT)
    h_NT, w_NT = (area_NT / ratio_NT).sqrt().round(), (area_NT * ratio_NT).sqrt().round()
    fits_NT = (h_NT >= 1) & (w_NT >= 1) & (h_NT <= height[:, None]) & (w_NT <= width[:, None])
    # The first that fits has the largest number, so that no tie has to be broken.
    first_N1 = (fits_NT * torch.arange(TRIES, 0, -1, device=fits_NT.device)).argmax(1, keepdim=True)
    found = fits_NT.any(1)
    h = torch.where(found, h_NT.gather(1, first_N1)[:, 0], torch.minimum((width / NARROWEST).round(), height))
    w = torch.where(found, w_NT.gather(1, first_N1)[:, 0], torch.minimum((height * WIDEST).round(), width))
    random = _placed(u_ND[:, TOP : LEFT + 1], height, width, h, w)
    middle = ((height - h) / 2).floor(), ((width - w) / 2).floor()
    top, left = (torch.where(found, at_random, central) for at_random, central in zip(random, middle, strict=True))
    return torch.stack([top, left, h, w], 1)


def _placed(place_N2: Tensor, height: Tensor, width: Tensor, h: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Top and left of a box at a place in [0, 1)² among all that it may have."""
    top = (place_N2[:, 0] * (height - h + 1)).floor().minimum(height - h)
    return top, (place_N2[:, 1] * (width - w + 1)).floor().minimum(width - w)
