"""Resizing on the device against Pillow, held-out images against timm, and the store against the workers."""

from functools import lru_cache

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg
from torch.utils._python_dispatch import TorchDispatchMode

from kdprune.data.framing import frame, frame_image, framing
from kdprune.data.place import Place
from kdprune.data.reader import Reader, plain_batches
from kdprune.data.recipe import parse
from kdprune.data.resize import BITS, FILTERS, Box, _in_parts, resize, resize_image, weights
from kdprune.data.size import height_width, size_of
from kdprune.data.sources import from_indexable
from kdprune.data.split import Split
from kdprune.data.view_settings import ViewSettings
from kdprune.models.build import build_student, build_teacher
from kdprune.models.inputs import Inputs
from kdprune.models.spec import InputSpec, own_spec

CPU = torch.device("cpu")
SIDES = st.integers(1, 60)


def photo(height: int, width: int, seed: int = 0, channels: int = 3) -> torch.Tensor:
    """A smooth image with noise and hard edges, uint8 C×H×W."""
    numbers = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    wave = np.sin(y / numbers.uniform(2, 9)) + np.sin(x / numbers.uniform(2, 9)) + numbers.normal(size=(height, width))
    image_HWC = np.stack([wave * numbers.uniform(20, 90) + 128 for _ in range(channels)], -1)
    image_HWC[height // 3 : height // 2, : width // 2] = 255 * numbers.integers(2)
    return torch.from_numpy(image_HWC.clip(0, 255).astype(np.uint8)).permute(2, 0, 1).contiguous()


def pil(image_CHW: torch.Tensor) -> Image.Image:
    image_HWC = image_CHW.permute(1, 2, 0).numpy()
    return Image.fromarray(image_HWC[..., 0] if image_HWC.shape[2] == 1 else image_HWC)


def pixels(image: Image.Image | np.ndarray) -> np.ndarray:
    """int64 C×H×W, so that differences do not wrap around."""
    image_HWC = np.asarray(image, dtype=np.int64)
    return image_HWC[None] if image_HWC.ndim == 2 else image_HWC.transpose(2, 0, 1)


def difference(ours: torch.Tensor, theirs: np.ndarray) -> int:
    return int(abs(ours.numpy().astype(np.int64) - theirs).max())


# --- Pillow's resize --------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(sorted(FILTERS)), SIDES, SIDES, st.integers(1, 40), st.integers(1, 40),
    st.tuples(*[st.floats(0, 1)] * 4), st.sampled_from([1, 3]), st.integers(0, 100),
)  # fmt: skip
def test_a_box_at_any_size_is_what_pillow_gives(interpolation, height, width, rows, columns, place, channels, seed):
    """Shrunk or enlarged, each axis by itself; a box has any place and extent in the image."""
    image = photo(height, width, seed, channels)
    # Pillow takes boxes as float32.
    h, w = np.float32(0.2 + 0.8 * place[2]) * height, np.float32(0.2 + 0.8 * place[3]) * width
    top, left = (float(np.float32(a)) for a in (place[0] * (height - h), place[1] * (width - w)))
    box = (top, left, float(np.float32(h - 1e-3)), float(np.float32(w - 1e-3)))
    expected = pixels(resize_image(pil(image), box, (rows, columns), interpolation))
    assert difference(resize(image[None], Box(*box), (rows, columns), interpolation)[0], expected) <= 1
    # Pillow itself takes one axis first or the other, whose overshooting it cuts off.
    at_once = pil(image).resize(
        (columns, rows), FILTERS[interpolation].pillow, (left, top, left + box[3], top + box[2])
    )
    assert interpolation != "bilinear" or abs(expected - pixels(at_once)).max() <= 2


def slow_weights(start: float, extent: float, size: int, length: int) -> np.ndarray:
    """Pillow's `precompute_coeffs` for its bilinear filter, in float64, with loops."""
    made = np.zeros((size, length))
    scale = extent / size
    for row in range(size):
        centre = start + (row + 0.5) * scale
        for pixel in range(length):
            made[row, pixel] = max(0.0, 1 - abs((pixel + 0.5 - centre) / max(scale, 1.0)))
        made[row] /= made[row].sum()
    return made


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.floats(0.1, 1))
def test_weights_are_those_of_pillow(size, length, place, share):
    extent = share * length
    start = place * (length - extent)
    made = weights(torch.tensor([start]), torch.tensor([extent]), size, length, "bilinear")[0].numpy()
    expected = np.round(slow_weights(float(np.float32(start)), float(np.float32(extent)), size, length) * 2**BITS)
    assert abs(made - expected).max() <= 1


@pytest.mark.parametrize("interpolation", sorted(FILTERS))
def test_sums_are_exact_so_neither_batch_nor_order_matter(interpolation):
    """The sums of products in float64 and in float32, forwards and backwards, are the same numbers."""
    row = _in_parts(weights(torch.tensor([3.3]), torch.tensor([490.7]), 30, 500, interpolation))[0]
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (500, 50))).float()
    exact = row.double() @ values.double()
    assert torch.equal((row @ values).double(), exact)
    assert torch.equal((row.flip(1) @ values.flip(0)).double(), exact)
    images = torch.stack([photo(50, 70, seed) for seed in range(9)])
    boxes = torch.rand(9, 4) * 20 + 10
    whole = resize(images, Box(*boxes.unbind(1)), (16, 24), interpolation)
    for n in range(9):
        one = resize(images[n : n + 1], Box(*boxes[n : n + 1].unbind(1)), (16, 24), interpolation)
        assert torch.equal(whole[n : n + 1], one)


@pytest.mark.parametrize("interpolation", sorted(FILTERS))
def test_where_nothing_is_scaled_nothing_changes(interpolation):
    images = torch.stack([photo(20, 30, seed) for seed in range(4)])
    assert torch.equal(resize(images, Box(0, 0, 20, 30), (20, 30), interpolation), images)
    places = torch.tensor([[0.0, 0.0], [3, 4], [10, 5], [11, 18]])
    cut = resize(images, Box(places[:, 0], places[:, 1], 9, 12), (9, 12), interpolation)
    for image, part, (top, left) in zip(images, cut, places.long().tolist(), strict=True):
        assert torch.equal(part, image[:, top : top + 9, left : left + 12])


@pytest.mark.parametrize("level", [0, 1, 127, 254, 255])
def test_a_flat_image_stays_flat(level):
    flat = torch.full((1, 3, 224, 301), level, dtype=torch.uint8)
    for interpolation in FILTERS:
        assert (resize(flat, Box(1.5, 2.5, 200, 290), (17, 400), interpolation) == level).all()


def test_mixed_precision_around_it_changes_nothing():
    images = photo(60, 60)[None]
    expected = resize(images, Box(0, 0, 60, 60), (32, 32))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(resize(images, Box(0, 0, 60, 60), (32, 32)), expected)


# --- the store and the workers ----------------------------------------------------------------------------------------


@lru_cache
def photos(height: int, width: int, channels: int = 3):
    images = torch.stack([photo(height, width, seed, channels) for seed in range(12)])
    return from_indexable([(pil(image), 0) for image in images], "mine", "train"), images


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, (12, 20), 56, 80])
@pytest.mark.parametrize("shape", [(56, 56), (56, 75)])
@pytest.mark.parametrize("recipe", ["rrc", "none", "crop+flip", "crop(3)+cutout(4)+erase(0.6)", "flip+rrc(0.5)+mixup"])
def test_the_store_and_the_workers_show_the_same_at_any_size(recipe, shape, size, channels):
    source, images = photos(*shape, channels)
    empty = np.array([], dtype=np.int64)
    made = []
    for stored in (images, None):
        settings = ViewSettings(parse(recipe), size, 3, (7,) * channels, stored is not None)
        reader = Reader(Split(source, channels, stored, empty), settings, np.arange(12), 1, Place(CPU))
        (batch,) = reader.read([(torch.arange(12), torch.full((12,), 5))])
        made.append(batch.images)
    assert made[0].shape[-2:] == height_width(size)
    assert difference(made[0], made[1].numpy().astype(np.int64)) <= (2 if "mixup" in recipe else 1)


def test_a_view_that_shrinks_has_no_stripes_of_its_own():
    """Stripes of one pixel become grey; without antialiasing they stay stripes, or vanish."""
    stripes = torch.arange(224)[None, None, None].remainder(2).mul(255).to(torch.uint8).expand(4, 3, 224, -1)
    for recipe in ("none", "rrc(0.9)"):
        settings = ViewSettings(parse(recipe), 48, 3, (0, 0, 0), True)
        source = from_indexable([(pil(image), 0) for image in stripes], "mine", "train")
        reader = Reader(Split(source, 3, stripes, np.array([], dtype=np.int64)), settings, np.arange(4), 1, Place(CPU))
        (batch,) = reader.read([(torch.arange(4), torch.zeros(4, dtype=torch.int64))])
        assert (batch.images[..., 1:-1].float() - 127.5).abs().max() < 40


@given(SIDES, SIDES, SIDES, SIDES)
def test_crop_moves_every_view_of_images_that_have_its_shape_and_of_those_that_have_room(height, width, rows, columns):
    """A view is either a part at a random place, or the whole image, which is then padded and moved."""
    source, images = photos(height, width)
    settings = ViewSettings(parse("crop"), size_of((rows, columns)), 0, (0, 0, 0), True)
    reader = Reader(Split(source, 3, images, np.array([], dtype=np.int64)), settings, np.arange(12), 1, Place(CPU))
    (batch,) = reader.read([(torch.arange(12), torch.zeros(12, dtype=torch.int64))])
    assert batch.images.shape == (12, 3, rows, columns)


# --- timm's evaluation ------------------------------------------------------------------------------------------------

MODELS = [
    "resnet18.a1_in1k",  # bicubic, 0.95
    "resnet18.tv_in1k",  # bilinear, 0.875
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",  # bicubic, 0.9, another mean
    "mobilenetv3_small_100.lamb_in1k",
    "efficientnet_b0.ra_in1k",
    "inception_v3.tv_in1k",  # 299
    "convnext_small.fb_in22k_ft_in1k_384",  # squash, 1.0
    "coatnet_rmlp_2_rw_384.sw_in12k_ft_in1k",
    "resnetv2_50x1_bit.goog_in21k",
]
PATCHED = [  # smaller sizes of what pretrained models have, and what few of them have
    {"input_size": (3, 40, 40), "interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center"},
    {"input_size": (3, 40, 40), "interpolation": "bilinear", "crop_pct": 1.15, "crop_mode": "center"},
    {"input_size": (3, 33, 33), "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "squash"},
    {"input_size": (3, 40, 40), "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "border"},
    {"input_size": (3, 40, 40), "interpolation": "bilinear", "crop_pct": 0.8, "crop_mode": "border"},
    {"input_size": (3, 256, 192), "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"},  # sapiens2
    {"input_size": (3, 48, 32), "interpolation": "bicubic", "crop_pct": 0.95, "crop_mode": "center"},
    {"input_size": (3, 32, 48), "interpolation": "bilinear", "crop_pct": 0.9, "crop_mode": "squash"},
    {"input_size": (3, 48, 32), "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "border"},
    {"input_size": (3, 40, 40), "interpolation": "lanczos", "crop_pct": 0.9, "crop_mode": "center"},
]


def bare(config: dict) -> torch.nn.Module:
    """A module with nothing of a model but its configuration."""
    module = torch.nn.Identity()
    module.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.2, 0.1), **config}
    return module


def configurations() -> list:
    made = []
    for name in MODELS:
        config = get_pretrained_cfg(name).to_dict()
        _, height, width = config["input_size"]
        # A quarter of the size keeps everything else, and takes a sixteenth of the time.
        made.append(pytest.param({**config, "input_size": (3, height // 4, width // 4)}, id=name))
    for config in PATCHED:
        made.append(pytest.param(config, id=f"{config['crop_mode']}-{config['crop_pct']}-{config['input_size']}"))
    return made


def agree(ours: torch.Tensor, theirs: torch.Tensor, spec: InputSpec) -> bool:
    """Within 1 of 255, but for one pixel in a thousand, whose rounded rounding is off by 2."""
    off = (ours - theirs).abs() * 255 * torch.tensor(spec.std)[:, None, None]
    return bool((off <= 1.01).float().mean() >= 0.999 and off.max() <= 2.01)


def columns_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow as it was up to version 12: 13 may take rows first, and cuts off what overshoots in between."""
    resize = Image.Image.resize

    def in_two_steps(image: Image.Image, size: tuple[int, int], resample: int, *more: object) -> Image.Image:
        assert not more
        return resize(resize(image, (size[0], image.height), resample), size, resample)

    monkeypatch.setattr(Image.Image, "resize", in_two_steps)


@pytest.mark.parametrize("config", configurations())
def test_a_pretrained_model_is_evaluated_as_timm_evaluates_it(config, monkeypatch):
    """Stored images of one size, shrunk, of their size and enlarged, and streamed images of mixed sizes."""
    module = bare(config)
    spec = own_spec(module, 3, None)
    transform = create_transform(**resolve_data_config({}, model=module), is_training=False)
    inputs = Inputs(spec)
    nothing = np.array([], dtype=np.int64)
    for height, width in ((90, 90), (90, 121), (61, 150), (30, 40), spec.size_HW, (150, 61)):
        images = torch.stack([photo(height, width, seed) for seed in range(3)])
        source = from_indexable([(pil(image), 0) for image in images], "mine", "test")
        with monkeypatch.context() as patch:
            if height > 2 * width:
                columns_first(patch)
            expected = torch.stack([transform(pil(image)) for image in images])
        for stored in (images, None):
            (batch,) = plain_batches(Split(source, 3, stored, nothing), np.arange(3), spec, Place(CPU))
            assert batch.images.shape[-2:] == spec.size_HW
            assert agree(inputs(batch.images), expected, spec)
        assert agree(Inputs(spec, whole_images=True)(images), expected, spec)
    mixed = [photo(*shape, seed) for seed, shape in enumerate([(70, 40), (33, 90), (120, 119), (8, 15)])]
    source = from_indexable([(pil(image), 0) for image in mixed], "mine", "test")
    (batch,) = plain_batches(Split(source, 3, None, nothing), np.arange(4), spec, Place(CPU))
    columns_first(monkeypatch)
    expected = torch.stack([transform(pil(image)) for image in mixed])
    assert agree(inputs(batch.images), expected, spec)


@pytest.mark.parametrize("stored", [False, True])
def test_a_border_of_a_models_mean_colour_around_grey_images(stored):
    module = bare(PATCHED[3])
    spec = own_spec(module, 3, None)
    transform = create_transform(**resolve_data_config({}, model=module), is_training=False)
    images = torch.stack([photo(30, 50, seed, 1) for seed in range(3)])
    source = from_indexable([(pil(image), 0) for image in images], "mine", "test")
    split = Split(source, 1, images if stored else None, np.array([], dtype=np.int64))
    (batch,) = plain_batches(split, np.arange(3), spec, Place(CPU))
    expected = torch.stack([transform(pil(image).convert("RGB")) for image in images])
    assert (Inputs(spec)(batch.images) - expected).abs().max() <= 1.01 / 255 / min(spec.std)


def test_a_pretrained_model_keeps_its_evaluation_and_one_from_scratch_has_none(monkeypatch):
    """Weights need no network: timm builds the model, and loads nothing into it."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **more: create(name, pretrained=False, **more))
    own = get_pretrained_cfg("resnet18.a1_in1k")
    for built in (
        build_teacher("resnet18.a1_in1k", 1000, channels=3, image_size=32, pretrained=True),
        build_student("resnet18.a1_in1k", 7, channels=3, image_size=32, img_size=64, pretrained=True),
    ):
        spec = built.spec
        assert (spec.interpolation, spec.crop_pct, spec.crop_mode) == (own.interpolation, own.crop_pct, own.crop_mode)
        assert (spec.mean, spec.std) == (own.mean, own.std)
    assert built.spec.size == 64
    spec = build_student("resnet18.a1_in1k", 7, channels=3, image_size=32, mean=(0.5,) * 3, std=(0.2,) * 3).spec
    assert spec == InputSpec(3, 32, (0.5,) * 3, (0.2,) * 3, "bilinear", 1.0, "center")


def test_views_are_scaled_by_the_models_interpolation():
    views = torch.stack([photo(32, 32, seed) for seed in range(4)])
    for interpolation in FILTERS:
        inputs = Inputs(InputSpec(3, 48, (0.5,) * 3, (0.25,) * 3, interpolation, crop_pct=0.5))
        expected = np.stack([pixels(pil(view).resize((48, 48), FILTERS[interpolation].pillow)) for view in views])
        assert abs(inputs(views).numpy() - (expected / 255 - 0.5) / 0.25).max() <= 1.01 / 255 / 0.25


# --- sizes and headers ------------------------------------------------------------------------------------------------


def test_a_square_has_one_spelling():
    assert size_of(8) == size_of([8, 8]) == size_of((8, 8)) == 8
    assert size_of([8, 9]) == (8, 9)
    assert InputSpec(1, (8, 8), (0.5,), (0.2,)) == InputSpec(1, 8, (0.5,), (0.2,))
    spec = InputSpec(1, (6, 8), (0.5,), (0.2,), "bicubic", 0.9, "squash")
    assert InputSpec.from_json(spec.to_json()) == spec
    assert spec.size_HW == (6, 8)


def test_files_of_a_time_without_crop_modes_keep_their_evaluation():
    before = {"channels": 1, "size": 8, "mean": [0.5], "std": [0.2], "interpolation": "bicubic", "crop_pct": 1.0}
    assert InputSpec.from_json(before) == InputSpec(1, 8, (0.5,), (0.2,), "bilinear", 1.0, "center")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"interpolation": "random"}, "interpolation.*'random', allowed are bilinear"),
     ({"crop_mode": "centre"}, "crop_mode.*allowed are center"),
     ({"crop_pct": 0.0}, "crop_pct must be above 0")],
)  # fmt: skip
def test_an_input_that_cannot_be_made_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        InputSpec(1, 8, (0.5,), (0.2,), **wrong)


def test_an_image_of_one_pixel_or_of_an_extreme_shape_is_framed():
    spec = InputSpec(3, 16, (0.5,) * 3, (0.25,) * 3, crop_mode="border")
    for shape in ((1, 1), (1, 300), (3000, 2)):
        image = photo(*shape)
        assert frame_image(pil(image), spec).shape == (16, 16, 3)
        assert difference(frame(image[None], spec)[0], pixels(frame_image(pil(image), spec))) <= 1
        box = framing(*shape, spec)[0]
        assert box[0] + box[2] <= shape[0] + 1e-9


class _Waits(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(func)
        return func(*args, **(kwargs or {}))


def test_nothing_waits_for_the_device():
    images = torch.stack([photo(20, 20, seed) for seed in range(3)])
    with _Waits():
        Inputs(InputSpec(3, 8, (0.5,) * 3, (0.25,) * 3))(images)
        resize(images, Box(*torch.tensor([[0.0, 0, 20, 20]] * 3).unbind(1)), (8, 8))
