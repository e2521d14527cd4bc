"""From uint8 views to a model's input."""

import numpy as np
import pytest
import torch
from PIL import Image

from kdprune.models.build import InputSpec
from kdprune.models.inputs import Inputs

CPU = torch.device("cpu")


def spec(channels: int = 3, size: int = 8) -> InputSpec:
    return InputSpec(channels, size, (0.5, 0.4, 0.3)[:channels], (0.25, 0.2, 0.1)[:channels])


def pixels(channels: int = 3, height: int = 8, width: int = 8) -> torch.Tensor:
    return torch.randint(0, 256, (5, channels, height, width), dtype=torch.uint8)


def normalised(x: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    mean, std = (torch.tensor(v, dtype=torch.float64)[None, :, None, None] for v in (spec.mean, spec.std))
    return (x.double() / 255 - mean) / std


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_values_are_normalised_and_laid_out(channels, channels_last):
    images = pixels(channels)
    before = images.clone()
    x = Inputs(spec(channels), CPU, channels_last)(images)
    assert x.dtype == torch.float32
    assert torch.allclose(x.double(), normalised(images, spec(channels)), atol=1e-5)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert x.is_contiguous(memory_format=layout)
    assert torch.equal(images, before)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(6, 10), (1, 3), (9, 1)])
@pytest.mark.parametrize("in_layout", [torch.contiguous_format, torch.channels_last])
def test_no_layout_changes_a_bit(channels, size, in_layout):
    images = pixels(channels, *size).contiguous(memory_format=in_layout)
    plain, last = (Inputs(spec(channels, size), CPU, channels_last)(images) for channels_last in (False, True))
    assert torch.equal(plain, last)
    assert last.is_contiguous(memory_format=torch.channels_last)


def test_a_grey_view_becomes_three_equal_channels_and_keeps_its_pixels():
    images = pixels(1)
    x = Inputs(spec(3), CPU, True)(images)
    assert torch.allclose(x.double(), normalised(images.expand(-1, 3, -1, -1), spec(3)), atol=1e-5)
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_a_colour_view_becomes_grey_as_pillow_does():
    images = pixels(3)
    x = Inputs(spec(1), CPU, False)(images)
    pil = [np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")) for image in images]
    expected = normalised(torch.from_numpy(np.stack(pil))[:, None], spec(1))
    assert (x.double() - expected).abs().max() <= 1.01 / 255 / 0.25  # Pillow rounds down, in integers


@pytest.mark.parametrize("size", [4, 5, 8, 16])
def test_a_view_is_scaled_to_the_models_size(size):
    images = pixels(3)
    x = Inputs(spec(3, size), CPU, True)(images)
    assert x.shape == (5, 3, size, size)
    back = (x.double() * torch.tensor(spec().std)[:, None, None] + torch.tensor(spec().mean)[:, None, None]) * 255
    for image, scaled in zip(images, back, strict=True):
        pil = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((size, size), Image.Resampling.BILINEAR)
        assert abs(scaled.permute(1, 2, 0).numpy() - np.asarray(pil)).max() < 1.01
    assert back.min() > -0.01
    assert back.max() < 255.01


@pytest.mark.parametrize(("height", "width"), [(8, 12), (13, 8), (8, 9)])
def test_the_centre_square_of_a_view_that_is_none(height, width):
    images = pixels(3, height, width)
    top, left = (height - 8) // 2, (width - 8) // 2
    square = images[..., top : top + 8, left : left + 8]
    assert torch.equal(Inputs(spec(), CPU, False)(images), Inputs(spec(), CPU, False)(square.contiguous()))


def test_two_models_of_different_size_and_normalisation_see_the_same_view():
    flat = torch.full((2, 3, 8, 8), 90, dtype=torch.uint8)
    for size in (4, 8, 13):
        x = Inputs(spec(3, size), CPU, True)(flat)
        assert torch.allclose(x.double(), normalised(flat[..., :1, :1], spec()).expand_as(x), atol=1e-5)


def test_in_front_of_a_model_it_takes_views_and_adds_no_weights():
    model = torch.nn.Conv2d(3, 2, 3)
    deployed = torch.nn.Sequential(Inputs(spec()), model).eval()
    images = pixels()
    with torch.no_grad():
        assert torch.equal(deployed(images), model(Inputs(spec(), CPU, False)(images)))
        exported = torch.export.export(deployed, (images,)).module()
        assert torch.equal(exported(images), deployed(images))
    assert not list(deployed[0].parameters())
    assert deployed.state_dict().keys() == {"1.weight", "1.bias"}


def test_its_buffers_follow_the_model_to_a_device():
    inputs = torch.nn.Sequential(Inputs(spec())).to("meta")[0]
    assert inputs.scale.device == inputs.shift.device == torch.device("meta")
    assert Inputs(spec(), torch.device("meta")).scale.device.type == "meta"
