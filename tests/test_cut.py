"""Boxes of decoded images as workers cut and scale them, against Pillow; and whole views against a slow restatement."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_jpeg import encoded, picture

from kdprune.data import draws as column
from kdprune.data.cut import cut
from kdprune.data.images import to_array
from kdprune.data.place import Place
from kdprune.data.reader import Reader
from kdprune.data.recipe import parse
from kdprune.data.resize import FILTERS, resize_image
from kdprune.data.sources import from_indexable, open_source
from kdprune.data.split import Split
from kdprune.data.view_settings import ViewSettings
from kdprune.data.views import crop_box, draws, padded_crop

CPU = torch.device("cpu")
NOTHING = np.array([], dtype=np.int64)
SIDES, UNITS = st.integers(1, 70), st.floats(0, 1)


def pil(image_HWC: np.ndarray) -> Image.Image:
    return Image.fromarray(image_HWC[..., 0] if image_HWC.shape[2] == 1 else image_HWC)


def part(length: int, extent: float, place: float) -> tuple[int, int]:
    """Start and extent in whole pixels inside of an axis."""
    extent = max(1, round(extent * length))
    return int(place * (length - extent)), extent


def expected_cut(image_HWC: np.ndarray, box, size, interpolation: str) -> np.ndarray:
    """int64 S×T×C by Pillow, which sees the pixels beside the box."""
    scaled = np.asarray(resize_image(pil(image_HWC), box, size, interpolation), dtype=np.int64)
    return scaled.reshape(*size, image_HWC.shape[2])


@given(
    st.sampled_from(sorted(FILTERS)), SIDES, SIDES, st.tuples(UNITS, UNITS, UNITS, UNITS), SIDES, SIDES,
    st.sampled_from([1, 3]), st.integers(0, 99), st.booleans(),
)  # fmt: skip
def test_a_box_is_what_pillow_gives(interpolation, height, width, place, rows, columns, channels, seed, hard):
    """Shrunk or enlarged, at the border or not; of images of smooth waves, and of black and white dots."""
    image_HWC = to_array(picture(height, width, seed), channels)
    if hard:
        image_HWC = np.random.default_rng(seed).integers(0, 2, image_HWC.shape, dtype=np.uint8) * 255
    (top, h), (left, w) = part(height, place[0], place[1]), part(width, place[2], place[3])
    box, size = (top, left, h, w), (rows, columns)
    made = cut(image_HWC, box, size, interpolation)
    assert made.shape == (*size, channels)
    assert made.dtype == torch.uint8
    assert made.stride()[1:] == (channels, 1)  # else torch has copied back and forth
    off = abs(made.numpy().astype(np.int64) - expected_cut(image_HWC, box, size, interpolation)).max()
    assert off <= {"bilinear": 1, "bicubic": 2, "lanczos": 0}[interpolation]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("side", "size"), [(300, 64), (64, 64), (20, 64), (64, 300)])
def test_what_lies_beside_a_box_counts_as_it_does_in_pillow(side, size, interpolation):
    """White around a black box: without it, the edges of the view would be quite black."""
    image_HWC = np.full((side + 40, side + 50, 3), 255, np.uint8)
    box = (20, 30, side, side)
    image_HWC[20 : 20 + side, 30 : 30 + side] = 0
    expected = expected_cut(image_HWC, box, (size, size), interpolation)
    assert (expected.max() > 15) == (side != size)
    made = cut(image_HWC, box, (size, size), interpolation)
    assert abs(made.numpy().astype(np.int64) - expected).max() <= 2


def test_a_cut_does_not_write_to_the_image():
    image_HWC = to_array(picture(50, 60), 3)
    before = image_HWC.copy()
    for size in ((20, 20), (40, 40), (90, 90), (20, 40)):
        cut(image_HWC, (5, 6, 40, 40), size, "bilinear").flip(1)
    np.testing.assert_array_equal(image_HWC, before)


# --- views ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of many kinds and sizes, some of the shape of a square."""
    place = tmp_path_factory.mktemp("photos") / "train" / "a"
    place.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = {
        "plain.jpg": ("RGB", "JPEG", {}),
        "rotated.jpg": ("RGB", "JPEG", {"exif": exif}),
        "progressive.jpg": ("RGB", "JPEG", {"progressive": True}),
        "grey.jpg": ("L", "JPEG", {}),
        "cmyk.jpg": ("CMYK", "JPEG", {}),
        "colours.png": ("RGB", "PNG", {}),
        "alpha.png": ("RGBA", "PNG", {}),
        "palette.png": ("P", "PNG", {}),
        "grey.webp": ("L", "WEBP", {"lossless": True}),
    }
    for (seed, (name, (mode, kind, options))), shape in itertools.product(
        enumerate(kinds.items()), ((60, 60), (75, 50), (44, 90))
    ):
        data = encoded(picture(*shape, seed, mode), kind, **options)
        (place / f"{shape[0]}{name}").write_bytes(data)
    return place.parents[1]


def slow_views(source, settings: ViewSettings, channels: int, view: int) -> np.ndarray:
    """int64 N×C×S×T: one image at a time through Pillow, crop, then padded crop, then flip."""
    made = []
    size = (settings.size, settings.size) if isinstance(settings.size, int) else settings.size
    for i in range(len(source)):
        u_1D = draws(settings.seed, torch.tensor([i]), torch.tensor([view]), settings.role)
        image_HWC = to_array(source[i], channels)
        height, width = (torch.tensor([side]) for side in image_HWC.shape[:2])
        box = crop_box(settings.recipe, u_1D, height, width, size)[0].tolist()
        x = expected_cut(image_HWC, box, size, settings.interpolation).transpose(2, 0, 1)
        if settings.recipe.crop and image_HWC.shape[0] * size[1] == image_HWC.shape[1] * size[0]:
            x = padded_crop(settings.recipe, torch.from_numpy(x)[None], u_1D)[0].numpy()
        made.append(x[..., ::-1] if u_1D[0, column.FLIP] < settings.recipe.flip else x)
    return np.stack(made)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("recipe", "interpolation"),
    [("rrc", "bilinear"), ("rrc+flip", "bicubic"), ("rrc(0.5)+flip(1)", "lanczos"), ("crop(5)+flip", "bilinear"),
     ("flip(0.3)", "bilinear"), ("none", "bicubic")],
)  # fmt: skip
def test_views_of_files_of_all_kinds_are_those_of_pillow_flipped_once(folder, recipe, interpolation, channels, workers):
    """From workers, a flip that is left out or done twice is a view of the wrong side."""
    source = open_source(str(folder), "train")
    settings = ViewSettings(parse(recipe), 32, 5, (0,) * channels, stored=False, interpolation=interpolation)
    reader = Reader(Split(source, channels, None, NOTHING), settings, np.arange(len(source)), 1, Place(CPU, workers))
    ids = torch.arange(len(source))
    batches = list(reader.read([(part, torch.full_like(part, 7)) for part in ids.split(10)]))
    for batch in batches:  # as convolutions take it without a copy
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.images.stride(1) == (1 if channels == 3 else 32 * 32)
    made = torch.cat([batch.images for batch in batches]).numpy().astype(np.int64)
    expected = slow_views(source, settings, channels, 7)
    assert abs(made - expected).max() <= 2
    assert abs(made - expected[..., ::-1]).reshape(len(made), -1).max(1).min() > 20


@pytest.mark.parametrize("recipe", ["flip", "flip(1)", "crop(2)+flip+mixup", "rrc+flip+cutmix"])
def test_the_store_and_the_workers_flip_the_same_images_and_partners(recipe):
    images = torch.stack([torch.from_numpy(to_array(picture(24, 24, seed), 3)).permute(2, 0, 1) for seed in range(20)])

    source = from_indexable([(pil(image.permute(1, 2, 0).numpy()), 0) for image in images], "mine", "train")
    made = []
    for stored in (images, None):
        settings = ViewSettings(parse(recipe), 24, 3, (0, 0, 0), stored is not None)
        reader = Reader(Split(source, 3, stored, NOTHING), settings, np.arange(20), 1, Place(CPU))
        (batch,) = reader.read([(torch.arange(20), torch.zeros(20, dtype=torch.int64))])
        made.append(batch.images.numpy().astype(np.int64))
    assert abs(made[0] - made[1]).max() <= 2
    if recipe == "flip(1)":
        np.testing.assert_array_equal(made[1], images.flip(-1))
