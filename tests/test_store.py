import errno
import json
import logging
import multiprocessing
import os
import pickle
import signal
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from kdprune.data import decoding as _decoding
from kdprune.data import store as module
from kdprune.data.fingerprint import fingerprint
from kdprune.data.images import ImageError, to_array
from kdprune.data.sources import from_indexable, open_source
from kdprune.data.sources.base import Source
from kdprune.data.store import open_store, store_size

PRINT = "0123456789abcdef" * 4


def picture(seed: int, height: int = 6, width: int = 8) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def source_of(images) -> Source:
    return from_indexable([(image, 0) for image in images], "mine", "train")


@pytest.fixture
def photos(tmp_path):
    """Nine JPEG files of 6×8; the fourth can be damaged."""
    folder = tmp_path / "photos" / "cat"
    folder.mkdir(parents=True)
    for index in range(9):
        picture(index).save(folder / f"{index}.jpg")
    return folder.parent


def damage(photos):
    file = photos / "cat" / "3.jpg"
    file.write_bytes(file.read_bytes()[:-40])
    return file


def opened(source, cache, **options):
    return open_store(source, (6, 8), 3, cache, PRINT, **{"progress": False, **options})


def direct(source, channels=3) -> np.ndarray:
    return np.stack([to_array(source[i], channels).transpose(2, 0, 1) for i in range(len(source))])


def stored_file(cache):
    return next(cache.glob("*.u8"))


def leftovers(cache) -> list[str]:
    return [file.name for file in cache.glob(".*")]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("workers", [None, 0, 3])
def test_a_store_holds_what_direct_decoding_gives(photos, tmp_path, channels, workers, monkeypatch):
    monkeypatch.setattr(_decoding, "SMALL_PIXELS", 0)
    monkeypatch.setattr(_decoding, "CHUNK_BYTES", 400)
    source = open_source(str(photos), "train")
    images = open_store(source, (6, 8), channels, tmp_path / "c", PRINT, workers=workers, progress=False).images
    assert images.dtype == torch.uint8
    assert images.shape == (9, channels, 6, 8)
    assert (images.numpy() == direct(source, channels)).all()
    assert not leftovers(tmp_path / "c")


def test_real_images(shared_data, tmp_path):
    source = open_source(f"hfds/{shared_data / 'cifar10'}", "test")
    assert store_size(source, 3, 2**30) == (32, 32)
    store = open_store(source, (32, 32), 3, tmp_path, fingerprint(source), progress=False)
    for sample_id in source.spread(100):
        assert (store.images[sample_id].numpy() == to_array(source[sample_id], 3).transpose(2, 0, 1)).all()


def test_the_second_opening_decodes_nothing(photos, tmp_path, monkeypatch):
    source = open_source(str(photos), "train")
    first = opened(source, tmp_path / "c").images
    monkeypatch.setattr(Source, "__getitem__", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(opened(source, tmp_path / "c").images, first)


def test_writing_to_the_images_leaves_the_file_alone(photos, tmp_path):
    source = open_source(str(photos), "train")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = opened(source, tmp_path / "c")
        store.images.zero_()
    assert (opened(source, tmp_path / "c").images.numpy() == direct(source)).all()


def test_a_store_pickles_as_its_path(photos, tmp_path):
    store = opened(open_source(str(photos), "train"), tmp_path / "c")
    data = pickle.dumps(store)
    assert len(data) < 1000
    assert torch.equal(pickle.loads(data).images, store.images)


@pytest.mark.parametrize("change", ["truncate", "no sidecar", "damaged sidecar", "other print", "sidecar of strings"])
def test_a_store_that_is_not_whole_is_rebuilt(photos, tmp_path, change):
    source = open_source(str(photos), "train")
    cache = tmp_path / "c"
    opened(source, cache)
    file = stored_file(cache)
    sidecar = file.with_suffix(".json")
    if change == "truncate":
        os.truncate(file, 100)
    elif change == "no sidecar":
        file.write_bytes(bytes(file.stat().st_size))
        sidecar.unlink()
    elif change == "damaged sidecar":
        sidecar.write_text("{")
    elif change == "other print":
        file.write_bytes(bytes(file.stat().st_size))
        sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "fingerprint": "other"}))
    else:
        sidecar.write_text('["whole"]')
    assert (opened(source, cache).images.numpy() == direct(source)).all()


def test_an_unreadable_image_fails_by_its_path(photos, tmp_path):
    file = damage(photos)
    with pytest.raises(ImageError, match=str(file)):
        opened(open_source(str(photos), "train"), tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []


def test_an_image_without_conversion_fails_by_its_name(tmp_path):
    with pytest.raises(ImageError, match=r"image 1 of mine .train.: .*no agreed range"):
        opened(source_of([picture(0), Image.new("F", (8, 6))]), tmp_path)


def test_an_unreadable_image_is_dropped_on_request(photos, tmp_path, caplog):
    file = damage(photos)
    source = open_source(str(photos), "train")
    for _ in range(2):
        store = opened(source, tmp_path / "c", on_error="drop")
        assert store.bad_ids.dtype == np.int64
        assert store.bad_ids.tolist() == [3]
        assert not store.images[3].any()
        assert (store.images[4].numpy() == to_array(source[4], 3).transpose(2, 0, 1)).all()
    assert f"1 unreadable images are dropped, the first is {file}" in caplog.text


def test_what_was_dropped_fails_later_until_it_is_mended(photos, tmp_path):
    file = damage(photos)
    source = open_source(str(photos), "train")
    opened(source, tmp_path / "c", on_error="drop")
    with pytest.raises(ImageError, match=str(file)):
        opened(source, tmp_path / "c")
    assert opened(source, tmp_path / "c", on_error="drop").bad_ids.tolist() == [3]
    picture(3).save(file)
    assert opened(source, tmp_path / "c").bad_ids.tolist() == []


def test_an_image_of_another_size_is_fitted_and_told(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    store = opened(source_of([picture(0), picture(1, 20, 10), picture(2)]), tmp_path)
    assert store.images.shape == (3, 3, 6, 8)
    assert store.images[1].any()
    assert "1 of 3 images were not 6×8: resized and cropped" in caplog.text


def test_only_uniform_images_within_the_budget_are_stored(photos):
    source = source_of([picture(i) for i in range(9)])
    needed = 9 * 3 * 6 * 8
    assert store_size(source, 3, needed) == (6, 8)
    assert store_size(source, 1, needed // 3) == (6, 8)
    assert store_size(source, 3, needed - 1) is None
    assert store_size(source_of([picture(0), picture(1, 8, 6)]), 3, 10**6) is None
    damage(photos)
    assert store_size(open_source(str(photos), "train"), 3, 10**6) == (6, 8)


def test_a_wrong_choice_on_error_is_refused(photos, tmp_path):
    with pytest.raises(ValueError, match="unknown on_error 'dropp'; did you mean 'drop'"):
        opened(open_source(str(photos), "train"), tmp_path, on_error="dropp")


def test_a_full_disk_is_told_before_decoding(photos, tmp_path, monkeypatch):
    usage = module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pytest.raises(OSError, match="take 0 MiB and 0 MiB are free; choose another cache folder"):
        opened(open_source(str(photos), "train"), tmp_path / "c")


def test_a_disk_that_fills_up_leaves_nothing_behind(photos, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("kdprune.files.os.fsync", full)
    with pytest.raises(OSError, match="choose another cache folder or free some space") as caught:
        opened(open_source(str(photos), "train"), tmp_path / "c")
    assert caught.value.errno == errno.ENOSPC
    assert list((tmp_path / "c").iterdir()) == []


class Deadly(Source):
    """Its last image kills the process, as a power cut would."""

    def _open(self, sample_id):
        if sample_id == len(self) - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return picture(sample_id)


def run_processes(*targets):
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=target) for target in targets]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_killed_build_leaves_nothing_half_valid(tmp_path):
    deadly = Deadly("mine", "train", [0] * 9, ["a"])
    assert run_processes(lambda: opened(deadly, tmp_path)) == [-signal.SIGKILL]
    assert not list(tmp_path.glob("*.json"))
    source = source_of([picture(i) for i in range(9)])
    assert (opened(source, tmp_path).images.numpy() == direct(source)).all()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_processes_that_build_at_once_do_no_harm(photos, tmp_path):
    source = open_source(str(photos), "train")

    def build():
        if not (opened(source, tmp_path / "c").images.numpy() == direct(source)).all():
            os._exit(1)

    assert run_processes(build, build, build) == [0, 0, 0]
    assert (opened(source, tmp_path / "c").images.numpy() == direct(source)).all()
    assert not leftovers(tmp_path / "c")
