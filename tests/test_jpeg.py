"""torchvision's decoder of plain JPEG files against Pillow, on files of all kinds, whole and damaged."""

import io
import itertools
import sys

import numpy as np
import pytest
import torch
import torchvision.io
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kdprune.data.images import ImageError, decode, open_image, to_array
from kdprune.data.jpeg import decode_jpeg, is_plain, jpeg_decoder, pixels_of
from kdprune.data.place import Place
from kdprune.data.reader import plain_batches
from kdprune.data.sources import from_indexable, open_source
from kdprune.data.split import Split
from kdprune.models.spec import InputSpec

SIDES = st.integers(1, 70)
OPTIONS = st.fixed_dictionaries(
    {"quality": st.integers(1, 100), "subsampling": st.sampled_from([0, 1, 2]), "progressive": st.booleans(),
     "optimize": st.booleans(), "restart_marker_blocks": st.sampled_from([0, 3])}
)  # fmt: skip


def picture(height: int, width: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Waves of all colours, with noise and an edge."""
    numbers = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(y / numbers.uniform(2, 9)) + np.sin(x / numbers.uniform(2, 9)) for _ in range(3)]
    pixels = np.stack(waves, -1) * 60 + 128 + numbers.normal(0, 9, (height, width, 3))
    pixels[height // 3 : height // 2] = numbers.integers(0, 256, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def by_pillow(data: bytes, channels: int) -> np.ndarray:
    image = decode(data)
    image.load()
    return to_array(image, channels)


@given(SIDES, SIDES, st.integers(0, 99), st.sampled_from(["RGB", "L"]), OPTIONS)
def test_a_plain_file_has_pillows_pixels(height, width, seed, mode, options):
    data = encoded(picture(height, width, seed, mode), **options)
    pixels = decode_jpeg(decode(data), 3)
    assert pixels is not None
    assert pixels.flags["C_CONTIGUOUS"]
    assert pixels.flags["WRITEABLE"]
    np.testing.assert_array_equal(pixels, by_pillow(data, 3))
    grey = decode_jpeg(decode(data), 1)
    assert (grey is None) == (mode == "RGB")  # Pillow makes grey of colours
    if grey is not None:
        np.testing.assert_array_equal(grey, by_pillow(data, 1))


def test_exif_orientation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(picture(30, 50), exif=exif)
    pixels = decode_jpeg(decode(data), 3)
    assert pixels.shape == (30, 50, 3)
    np.testing.assert_array_equal(pixels, by_pillow(data, 3))


def drafted() -> Image.Image:
    """Somebody has asked Pillow for a smaller image already."""
    image = decode(encoded(picture(64, 64)))
    image.draft("RGB", (16, 16))
    return image


def loaded() -> Image.Image:
    image = decode(encoded(picture(9, 9)))
    image.load()
    image.putpixel((0, 0), (1, 2, 3))
    return image


def several() -> Image.Image:
    return decode(encoded(picture(9, 9), "MPO", save_all=True, append_images=[picture(9, 9, 1)]))


OTHERS = {
    "CMYK": lambda: decode(encoded(picture(9, 9, mode="CMYK"))),
    "PNG": lambda: decode(encoded(picture(9, 9), "PNG")),
    "palette": lambda: decode(encoded(picture(9, 9).quantize(4), "PNG")),
    "RGBA": lambda: decode(encoded(picture(9, 9, mode="RGBA"), "PNG")),
    "16 bits": lambda: decode(encoded(Image.fromarray(np.full((9, 9), 0x1234, np.uint16)), "PNG")),
    "JPEG in a TIFF": lambda: decode(encoded(picture(16, 16), "TIFF", compression="jpeg")),
    "several": several,
    "drafted": drafted,
    "loaded": loaded,
    "no file": lambda: picture(9, 9),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_not_plain_is_left_to_pillow(kind):
    assert decode_jpeg(OTHERS[kind](), 3) is None
    image = OTHERS[kind]()
    image.load()
    np.testing.assert_array_equal(pixels_of(OTHERS[kind](), 3), to_array(image, 3))


def outcome(read) -> np.ndarray | str:
    try:
        return read()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


WHOLE = [
    encoded(picture(40, 50), **options)
    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 2})
]


@given(
    st.sampled_from(WHOLE), st.integers(0, 10**4), st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255))),
    st.integers(0, 10**4), st.integers(0, 50),
)  # fmt: skip
def test_damaged_files_end_as_they_do_in_pillow(data, end, changes, start, missing):
    """In the same pixels, or in the same words."""
    damaged = bytearray(data[: end if end < len(data) else None])
    for place, value in changes:
        if place < len(damaged):
            damaged[place] = value
    del damaged[start : start + missing]
    ours = outcome(lambda: pixels_of(decode(bytes(damaged)), 3))
    np.testing.assert_array_equal(ours, outcome(lambda: by_pillow(bytes(damaged), 3)))


@pytest.fixture
def forgotten():
    """What was found out about the decoder; it is found out again in the test, and after it."""
    jpeg_decoder.cache_clear()
    yield
    jpeg_decoder.cache_clear()


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("wrong", ["absent", "without JPEG", "removed", "other pixels"])
def test_without_a_decoder_that_gives_pillows_pixels_pillow_decodes(wrong, monkeypatch, caplog):
    if wrong == "absent":
        monkeypatch.setitem(sys.modules, "torchvision.io", None)
    elif wrong == "removed":
        monkeypatch.delattr(torchvision.io, "decode_jpeg")
    else:
        true = torchvision.io.decode_jpeg

        def decoder(data: torch.Tensor, mode: object) -> torch.Tensor:
            if wrong == "without JPEG":
                raise RuntimeError("Couldn't load the image extension")
            return true(data, mode) ^ 1

        monkeypatch.setattr(torchvision.io, "decode_jpeg", decoder)
    for seed in range(3):
        data = encoded(picture(30, 40, seed))
        assert decode_jpeg(decode(data), 3) is None
        np.testing.assert_array_equal(pixels_of(decode(data), 3), by_pillow(data, 3))
    (said,) = [record.message for record in caplog.records]  # once
    assert "Pillow" in said


def test_real_photos(shared_data):
    source = open_source(f"hfds/{shared_data / 'imagenette5'}", "test")
    fast = 0
    for sample_id in source.spread(80):
        image = source.opened(sample_id)
        fast += is_plain(image)
        np.testing.assert_array_equal(source.pixels(sample_id, image, 3), to_array(source[sample_id], 3))
    assert fast > 60


# --- sources ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for i, mode in itertools.product(range(3), ("RGB", "L", "CMYK")):
        place = tmp_path / "photos" / "train" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{mode}{i}.jpg").write_bytes(encoded(picture(20 + i, 30, i, mode)))
    return tmp_path / "photos"


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_folder_gives_what_its_files_hold(folder, in_memory, monkeypatch):
    if not in_memory:
        monkeypatch.setattr("kdprune.data.sources.folder.IN_MEMORY", 10)
    source = open_source(str(folder), "train")
    for sample_id, channels in itertools.product(range(len(source)), (1, 3)):
        image = source.opened(sample_id)
        assert is_plain(image) == in_memory
        with open(source.describe(sample_id), "rb") as file:
            expected = open_image(file)
            expected.load()
        assert image.size == expected.size
        np.testing.assert_array_equal(source.pixels(sample_id, image, channels), to_array(expected, channels))


def test_a_mode_without_conversion_is_named():
    source = from_indexable([(Image.new("F", (2, 2)), 0)], "mine", "train")
    with pytest.raises(ImageError, match=r"image 0 of mine \(train\): floating-point images"):
        source.pixels(0, source.opened(0), 3)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_ends_too_early_is_named_with_pillows_words(folder, workers):
    source = open_source(str(folder), "train")
    path = source.describe(1)
    with open(path, "r+b") as file:
        file.truncate(500)
    with pytest.raises(ImageError, match="cannot be decoded: image file is truncated") as raised:
        list(plain_batches(_split(source), np.arange(9), SPEC, Place(torch.device("cpu"), workers)))
    assert path in str(raised.value)


SPEC = InputSpec(3, 16, (0.5,) * 3, (0.25,) * 3)


def _split(source) -> Split:
    return Split(source, 3, None, np.array([], dtype=np.int64))


def test_workers_keep_to_themselves_what_libjpeg_mends(tmp_path, capfd):
    place = tmp_path / "photos" / "train" / "a"
    place.mkdir(parents=True)
    data = encoded(picture(40, 50))
    (place / "0.jpg").write_bytes(data[:-100] + data[-2:])
    source = open_source(str(tmp_path / "photos"), "train")
    capfd.readouterr()
    assert decode_jpeg(source.opened(0), 3) is not None
    assert "premature end of data" in capfd.readouterr().err
    (batch,) = plain_batches(_split(source), np.arange(1), SPEC, Place(torch.device("cpu"), 1))
    assert batch.images.shape == (1, 3, 16, 16)
    assert capfd.readouterr().err == ""
