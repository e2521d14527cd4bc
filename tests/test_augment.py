"""RandAugment, TrivialAugment, hue and grey against torchvision, operation by operation, and how often each occurs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode, RandAugment, TrivialAugmentWide
from torchvision.transforms import functional as F
from torchvision.transforms.autoaugment import _apply_op

from kdprune.data import augment
from kdprune.data import draws as column
from kdprune.data.augment import apply, randaugment, trivialaugment
from kdprune.data.colour import grey, hue_shifted, jitter
from kdprune.data.draws import draws
from kdprune.data.recipe import parse
from kdprune.data.views import view_of_stored

NAMES = list(RandAugment()._augmentation_space(31, (8, 8)))
seeds = st.integers(0, 10**6)


def photos(n: int, height: int, width: int, channels: int = 3, seed: int = 0) -> torch.Tensor:
    """Smooth images, each with its own range of values, so that stretching and equalising change them."""
    numbers = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    made = []
    for _ in range(n * channels):
        wave = np.sin(y / numbers.uniform(2, 9)) + np.cos(x / numbers.uniform(2, 9)) + numbers.normal(size=y.shape) / 4
        made.append((numbers.uniform(30, 200) + wave * numbers.uniform(5, 40)).clip(0, 255))
    return torch.from_numpy(np.stack(made).astype(np.uint8)).view(n, channels, height, width)


def some_draws(n: int, seed: int = 0) -> torch.Tensor:
    return draws(seed, torch.arange(n), torch.zeros(n, dtype=torch.int64))


def theirs(image: torch.Tensor, name: str, magnitude: float) -> torch.Tensor:
    """Of Pillow's images, or where pixels move, of tensors: Pillow does not blend them with what lies beside the image.

    Of colours it is the other way round: torchvision's grey of tensors is rounded down, from weights that add up to
    0.9999.
    """
    if name in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"):
        return _apply_op(image, name, magnitude, InterpolationMode.BILINEAR, None)
    return F.pil_to_tensor(_apply_op(F.to_pil_image(image), name, magnitude, InterpolationMode.BILINEAR, None))


def off(ours: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return (ours.int() - expected.int()).abs()


def test_operations_stand_in_torchvisions_order():
    assert len(NAMES) == augment.COUNT
    by_name = {"color": augment.COLOUR, "autocontrast": augment.AUTOCONTRAST, "shearx": augment.SHEAR_X}
    assert {name: NAMES.index(NAMES[value]) for name, value in by_name.items()} == by_name
    assert [NAMES[value].lower() for value in by_name.values()] == list(by_name)


@pytest.mark.parametrize(("height", "width"), [(24, 24), (17, 30), (64, 48)])
@pytest.mark.parametrize("wide", [False, True])
def test_magnitudes_are_torchvisions(wide, height, width):
    space = TrivialAugmentWide()._augmentation_space(31) if wide else RandAugment()._augmentation_space(
        31, (height, width))  # fmt: skip
    table = augment._magnitudes(wide, height, width, torch.device("cpu"))
    for row, (name, (magnitudes, signed)) in zip(table, space.items(), strict=True):
        assert torch.equal(row, magnitudes.float().expand(31)), name
        index = NAMES.index(name)
        assert signed == (augment.SHEAR_X <= index <= augment.SHARPNESS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
@settings(max_examples=10)
@given(seed=seeds, wide=st.booleans())
def test_each_operation_is_torchvisions(name, channels, seed, wide):
    """All bins and both signs, within rounding; where pixels move, a coordinate at an edge may fall on either side."""
    height, width = 20, 26
    images = photos(4, height, width, channels, seed)
    operation = NAMES.index(name)
    table = augment._magnitudes(wide, height, width, torch.device("cpu"))
    numbers = np.random.default_rng(seed)
    magnitudes = table[operation, torch.from_numpy(numbers.integers(31, size=4))]
    if augment.SHEAR_X <= operation <= augment.SHARPNESS:
        magnitudes = magnitudes * torch.from_numpy(numbers.choice([-1, 1], 4))
    made = apply(images, torch.full((4,), operation), magnitudes)
    expected = torch.stack([theirs(x, name, m) for x, m in zip(images, magnitudes.tolist(), strict=True)])
    assert made.dtype == torch.uint8
    # Of colours a grey value at a half is rounded to the other side, and so is the result.
    assert off(made, expected).max() <= (2 if name == "Color" else 1)
    assert (off(made, expected) <= 1).float().mean() >= 0.999


@pytest.mark.parametrize("image", [0, 128, 255, "two values", "one pixel apart"])
def test_images_without_contrast_keep_their_pixels_where_torchvision_does(image):
    x = torch.full((1, 3, 9, 9), 90, dtype=torch.uint8) if isinstance(image, str) else torch.full(
        (1, 3, 9, 9), image, dtype=torch.uint8)  # fmt: skip
    if image == "two values":
        x[..., :4] = 12
    if image == "one pixel apart":
        x[..., 0, 0] = 91
    for name in ("AutoContrast", "Equalize", "Sharpness"):
        made = apply(x, torch.tensor([NAMES.index(name)]), torch.tensor([0.5]))
        assert off(made[0], theirs(x[0], name, 0.5)).max() <= 1


@pytest.mark.parametrize("side", [1, 2, 3])
def test_tiny_images(side):
    x = photos(augment.COUNT, side, side)
    magnitudes = [3.0 if name == "Posterize" else 0.3 for name in NAMES]
    made = apply(x, torch.arange(augment.COUNT), torch.tensor(magnitudes))
    for image, ours, name, magnitude in zip(x, made, NAMES, magnitudes, strict=True):
        assert off(ours, theirs(image, name, magnitude)).max() <= 1


@given(seeds, st.integers(1, 4), st.integers(0, 30))
def test_randaugment_is_its_operations_one_after_the_other(seed, n, m):
    images, u = photos(6, 16, 16, seed=seed), some_draws(6, seed)
    table = augment._magnitudes(False, 16, 16, torch.device("cpu"))
    expected = images.clone()
    for i in range(6):
        for k in range(n):
            operation = int(u[i, column.OPERATIONS][k] * 14)
            sign = -1 if u[i, column.SIGNS][k] < 0.5 and 1 <= operation <= 9 else 1
            expected[i] = apply(expected[i : i + 1], torch.tensor([operation]), sign * table[operation, m : m + 1])[0]
    assert torch.equal(randaugment(n, m, images, u), expected)


@given(seeds)
def test_trivialaugment_is_one_operation_of_a_drawn_magnitude(seed):
    images, u = photos(8, 16, 16, seed=seed), some_draws(8, seed)
    table = augment._magnitudes(True, 16, 16, torch.device("cpu"))
    made = trivialaugment(images, u)
    for i in range(8):
        operation = int(u[i, column.OPERATIONS][0] * 14)
        sign = -1 if u[i, column.SIGNS][0] < 0.5 and 1 <= operation <= 9 else 1
        magnitude = sign * table[operation, int(u[i, column.BIN] * 31)]
        expected = theirs(images[i], NAMES[operation], magnitude.item())
        assert off(made[i], expected).max() <= 2


def test_every_operation_sign_and_bin_occurs_as_often_as_the_others():
    u = some_draws(14_000)
    operations, negative = augment._operations(u)
    for k in range(column.MOST_OPERATIONS):
        counts = torch.bincount(operations[:, k], minlength=14)
        assert (abs(counts - 1000) < 6 * 1000**0.5).all()
    assert abs(negative.float().mean() - 0.5) < 0.01
    assert (abs(torch.bincount((u[:, column.BIN] * 31).long(), minlength=31) - 14_000 / 31) < 130).all()
    # No two decisions share a column.
    correlations = torch.corrcoef(u.T) - torch.eye(u.shape[1])
    assert correlations.abs().max() < 0.05


# --- hue and grey -----------------------------------------------------------------------------------------------------


@given(seeds)
def test_hue_is_turned_as_torchvision_does(seed):
    images = photos(8, 9, 9, seed=seed)
    images[0, 1:] = images[0, 0]  # grey has no hue
    shift = torch.from_numpy(np.random.default_rng(seed).uniform(-0.5, 0.5, 8)).float()
    made = hue_shifted(images.float(), shift).round()
    expected = torch.stack([F.adjust_hue(image, turn) for image, turn in zip(images, shift.tolist(), strict=True)])
    assert off(made, expected).max() <= 1
    assert torch.equal(made[0], images[0].float())


@given(seeds, st.floats(0.01, 0.5))
def test_jitter_turns_the_hue_last_and_no_farther_than_asked(seed, hue):
    images, u = photos(8, 9, 9, seed=seed), some_draws(8, seed)
    turn = hue * (2 * u[:, column.HUE] - 1)
    assert turn.abs().max() <= hue
    expected = torch.stack([F.adjust_hue(image, angle) for image, angle in zip(images, turn.tolist(), strict=True)])
    assert off(jitter(0.0, hue, images, u), expected).max() <= 1
    without = jitter(0.4, 0.0, images, u)
    expected = torch.stack([F.adjust_hue(image, angle) for image, angle in zip(without, turn.tolist(), strict=True)])
    # What comes before is not rounded first; a turn may move such a half, and theirs rounds down.
    assert off(jitter(0.4, hue, images, u), expected).float().mean() < 1


def test_images_of_one_channel_have_neither_hue_nor_colour_to_lose():
    images, u = photos(8, 9, 9, channels=1), some_draws(8)
    assert torch.equal(jitter(0.4, 0.5, images, u), jitter(0.4, 0.0, images, u))
    assert torch.equal(grey(1.0, images, u), images)


def test_grey_is_torchvisions_as_often_as_asked():
    images, u = photos(1, 9, 9).expand(4000, -1, -1, -1), some_draws(4000)
    made = grey(0.3, images, u)
    is_grey = (made == made[:, :1]).flatten(1).all(1)
    assert is_grey.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert off(made[is_grey][0], F.rgb_to_grayscale(images[0], 3)).max() <= 1
    assert torch.equal(made[~is_grey][0], images[0])


def test_parts_are_applied_in_one_order():
    """Flip, then the operations, then jitter, then grey, then cutout."""
    images, u = photos(20, 12, 12), some_draws(20)
    fill = torch.tensor([1, 2, 3], dtype=torch.uint8)
    recipe = parse("cutout(4)+grey(0.5)+jitter(0.3, 0.1)+randaugment(2, 12)+flip")
    x = torch.where((u[:, column.FLIP] < 0.5)[:, None, None, None], images.flip(-1), images)
    x = grey(0.5, jitter(0.3, 0.1, randaugment(2, 12, x, u), u), u)
    made = view_of_stored(recipe, images, u, 12, fill)
    changed = (made != x).any(1).flatten(1).sum(1)
    assert (changed <= 16).all()
    is_filled = (made != x).any(1)[:, None].expand_as(made)
    assert torch.equal(made[is_filled], fill[:, None, None].expand_as(made[0]).expand_as(made)[is_filled])
