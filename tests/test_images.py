import io

import numpy as np
import pytest
from PIL import Image

from kdprune.data.images import ImageError, fit, to_array
from kdprune.data.sources import from_indexable, open_source
from kdprune.data.statistics import natural_channels

RED_HWC = np.full((4, 6, 3), (200, 10, 30), dtype=np.uint8)


def through_file(image: Image.Image, file_format: str, **options) -> Image.Image:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return Image.open(file)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I", "I;16"])
def test_every_mode_becomes_uint8_of_the_asked_shape(mode):
    image = Image.new("L", (6, 4), 255)
    image = Image.fromarray(np.full((4, 6), 65535, np.uint16)) if mode.startswith("I") else image
    for channels in (1, 3):
        array = to_array(image.convert(mode), channels)
        assert array.shape == (4, 6, channels)
        assert array.dtype == np.uint8
        assert array.flags["C_CONTIGUOUS"]
        assert array.flags["WRITEABLE"]
        assert (array == 255).all()


def test_alpha_is_dropped_as_convert_does():
    pixels = np.dstack([RED_HWC, np.zeros((4, 6), np.uint8)])
    assert (to_array(Image.fromarray(pixels), 3) == RED_HWC).all()


@pytest.mark.parametrize("transparency", [0, b"\x00\x80"])
def test_palette_with_transparency_keeps_its_colours(transparency, recwarn):
    image = Image.fromarray(RED_HWC).quantize(2)
    image = through_file(image, "PNG", transparency=transparency)
    assert image.mode == "P"
    assert (to_array(image, 3) == RED_HWC).all()
    assert not recwarn


def test_palette_gives_colours_not_indices():
    image = Image.fromarray(RED_HWC).quantize(2)
    assert (to_array(image, 3) == RED_HWC).all()


def test_cmyk_jpeg_has_the_colours_of_convert():
    image = through_file(Image.fromarray(RED_HWC).convert("CMYK"), "JPEG")
    assert image.mode == "CMYK"
    assert (to_array(image, 3) == np.array(image.convert("RGB"))).all()
    assert abs(to_array(image, 3).astype(int) - RED_HWC).max() < 8


def test_colour_becomes_luma():
    assert (to_array(Image.fromarray(RED_HWC), 1)[..., 0] == np.array(Image.fromarray(RED_HWC).convert("L"))).all()


def test_16_bit_grey_keeps_its_upper_eight_bits():
    values = np.array([[0, 255, 256, 0x1234, 0xFFFF]], dtype=np.uint16)
    image = through_file(Image.fromarray(values), "PNG")
    assert to_array(image, 1)[0, :, 0].tolist() == [0, 0, 1, 0x12, 0xFF]
    assert (to_array(image, 3) == to_array(image, 1)).all()


def test_exif_orientation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = through_file(Image.fromarray(RED_HWC), "JPEG", exif=exif)
    assert to_array(image, 3).shape == (4, 6, 3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("F", (2, 2)), "no agreed range"),
        (Image.fromarray(np.full((2, 2), 70000, np.int32)), "beyond 16 bits"),
        (Image.fromarray(np.full((2, 2), -1, np.int32)), "beyond 16 bits"),
    ],
)
def test_values_without_a_known_range_are_refused(image, message):
    with pytest.raises(ImageError, match=message):
        to_array(image, 3)


def test_other_channel_counts_are_refused():
    with pytest.raises(ValueError, match=r"channels is 4 .allowed: 1 for grey, 3 for RGB"):
        to_array(Image.new("RGB", (2, 2)), 4)


@pytest.mark.parametrize("shape", [(5, 9, 3), (9, 5, 1), (2, 2, 3), (4, 100, 1)])
def test_fit_covers_the_asked_size(shape):
    array = fit(np.full(shape, 7, np.uint8), (4, 6))
    assert array.shape == (4, 6, shape[2])
    assert (array == 7).all()


def test_fit_keeps_the_centre():
    wide = np.zeros((4, 12, 1), np.uint8)
    wide[:, 4:8] = 255
    assert (fit(wide, (4, 4)) == 255).all()


def test_natural_channels_looks_at_the_pixels():
    grey_as_rgb = [(Image.new("RGB", (2, 2), (i, i, i)), 0) for i in range(5)]
    assert natural_channels(from_indexable(grey_as_rgb, "grey", "train")) == 1
    one_coloured = [*grey_as_rgb, (Image.new("RGB", (2, 2), (1, 2, 3)), 0)]
    assert natural_channels(from_indexable(one_coloured, "colour", "train")) == 3
    assert natural_channels(open_source("digits", "train")) == 1
