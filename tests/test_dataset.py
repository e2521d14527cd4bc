"""A data set as a run opens it: by name, or at hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from kdprune.config import DataConfig
from kdprune.data.dataset import data_of, no_ids, open_data
from kdprune.data.images import ImageError
from kdprune.data.sources import from_indexable
from kdprune.data.split import Split
from kdprune.data.statistics import mean_and_std
from kdprune.data.validation import validation_ids


def items(count, classes=3, seed=0, size=6):
    random = np.random.default_rng(seed)
    return [(random.integers(0, 256, (size, size, 3), dtype=np.uint8), i % classes) for i in range(count)]


@pytest.fixture
def config(tmp_path):
    return DataConfig(root=str(tmp_path / "root"), workers=0)


def test_data_at_hand_is_opened_like_data_with_a_name(config):
    data = data_of(items(30), items(8, seed=1), config, progress=False)
    assert (len(data.train), len(data.test), data.num_classes, data.channels, data.stored_size) == (30, 8, 3, 3, 6)
    assert (data.train.images[7].numpy() == items(30)[7][0].transpose(2, 0, 1)).all()
    assert data.test.labels.tolist() == [i % 3 for i in range(8)]
    again = data_of(items(30), items(8, seed=2), config, progress=False)
    assert again.fingerprint == data.fingerprint
    assert again.test_fingerprint != data.test_fingerprint


def test_a_held_out_part_at_hand_may_lack_the_last_class_and_may_have_no_other(config):
    assert data_of(items(30), items(8, classes=2), config, progress=False).test.classes == ["0", "1", "2"]
    with pytest.raises(ValueError, match="train split has 3 classes and the held-out split has 4"):
        data_of(items(30), items(8, classes=4), config, progress=False)
    assert data_of(items(30), None, config, progress=False).test_fingerprint is None


def test_a_hugging_face_data_set_at_hand(config):
    import datasets

    pairs = items(9)
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    columns = {"img": [Image.fromarray(pixels) for pixels, _ in pairs], "label": [label for _, label in pairs]}
    table = datasets.Dataset.from_dict(columns, features=features)
    data = data_of(table, table.select(range(4)), config, progress=False)
    assert data.classes == ["a", "b", "c"]
    assert (data.train.images[4].numpy() == pairs[4][0].transpose(2, 0, 1)).all()
    assert len(data.test) == 4


@pytest.mark.parametrize("memory_gb", [4.0, 0.0])
def test_unreadable_images_fail_or_are_dropped_from_all_that_is_read(config, memory_gb, caplog):
    pairs = items(40)
    pairs[3] = (Image.new("F", (6, 6)), 0)
    config = replace(config, memory_gb=memory_gb, val_fraction=0.5)
    if memory_gb:
        with pytest.raises(ImageError, match="image 3 of"):
            data_of(pairs, None, config, progress=False)
    pairs[3] = (np.zeros((6, 6, 3)), 0)  # its values are no uint8, so that not even a worker can open it
    data = data_of(pairs, items(5), replace(config, bad_images="drop"), progress=False)
    assert (data.train.images is not None) == bool(memory_gb)
    assert data.train.unreadable.tolist() == [3]
    assert data.train.readable.tolist() == [i for i in range(40) if i != 3]
    assert data.train.spread(40).tolist() == data.train.readable.tolist()
    assert data.test.unreadable.tolist() == []
    assert 3 not in data.validation
    assert "1 unreadable images are dropped, the first is image 3" in caplog.text


def test_the_validation_part_follows_the_seed(config):
    config = replace(config, dataset="digits", val_fraction=0.1)
    for seed in (0, 5):
        data = open_data(config, seed, progress=False)
        assert np.array_equal(data.validation, validation_ids(data.train.labels, 0.1, seed))
    assert len(open_data(replace(config, val_fraction=0.0), progress=False).validation) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_and_std_are_those_of_the_pixels_whatever_the_number_of_threads(channels):
    """They are part of keys: a run under `accelerate launch` has other threads than one without."""
    images = torch.randint(256, (300, channels, 9, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    source = from_indexable([(image, 0) for image in images], "noise", "train", ["a"])
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            stored = mean_and_std(Split(source, channels, images, no_ids()))
            found.append((stored, mean_and_std(Split(source, channels, None, no_ids()))))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]
    pixels = images.double().movedim(1, -1).reshape(-1, channels) / 255
    mean, std = found[0][0]
    assert mean == pytest.approx(pixels.mean(0).tolist(), rel=1e-12)
    assert std == pytest.approx(pixels.std(0).tolist(), rel=1e-12)
    some = pixels.view(300, -1, channels)[source.spread(256)].flatten(0, 1)
    mean, std = found[0][1]
    assert mean == pytest.approx(some.mean(0).tolist(), rel=1e-9)
    assert std == pytest.approx(some.std(0, correction=0).tolist(), rel=1e-9)
