import errno
import logging
import multiprocessing
import os
import signal
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from kdprune import artefact, files, outside
from kdprune.data import decoding as decoding_module
from kdprune.data import store as module
from kdprune.data.decoding import Decoding
from kdprune.data.fingerprint import Identity, identify
from kdprune.data.images import ImageError, to_array
from kdprune.data.sources import from_indexable, open_source
from kdprune.data.sources.base import Source
from kdprune.data.store import open_store, store_size
from kdprune.data.unreadable import find_unreadable

MINE = Identity("0123456789abcdef" * 4, "")


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


def opened(source, cache, bad_images="fail", identity=MINE):
    """Images and ids of unreadable ones."""
    return open_store(source, identity, (6, 8), 3, Decoding(cache, bad_images, progress=False))


def direct(source, channels=3) -> np.ndarray:
    return np.stack([to_array(source[i], channels).transpose(2, 0, 1) for i in range(len(source))])


def store_in(cache):
    (folder,) = cache.iterdir()
    return folder


def contents(cache) -> list[str]:
    return sorted(file.name for file in store_in(cache).iterdir() if file.name != artefact.LOCK)


WHOLE = ["artefact.json", "images.u8", "unreadable.json"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("workers", [None, 0, 3])
def test_a_store_holds_what_direct_decoding_gives(photos, tmp_path, channels, workers, monkeypatch):
    monkeypatch.setattr(decoding_module, "SMALL_PIXELS", 0)
    monkeypatch.setattr(decoding_module, "CHUNK_BYTES", 400)
    source = open_source(str(photos), "train")
    decoding = Decoding(tmp_path / "c", "fail", workers, progress=False)
    images, _ = open_store(source, MINE, (6, 8), channels, decoding)
    assert images.dtype == torch.uint8
    assert images.shape == (9, channels, 6, 8)
    assert (images.numpy() == direct(source, channels)).all()
    assert contents(tmp_path / "c") == WHOLE


@pytest.mark.slow
def test_real_images(shared_data, tmp_path):
    source = open_source(f"hfds/{shared_data / 'cifar10'}", "test")
    assert store_size(source, 3, 2**30) == (32, 32)
    images, _ = open_store(source, identify(source), (32, 32), 3, Decoding(tmp_path, progress=False))
    for sample_id in source.spread(100):
        assert (images[sample_id].numpy() == to_array(source[sample_id], 3).transpose(2, 0, 1)).all()


def test_the_second_opening_decodes_nothing(photos, tmp_path, monkeypatch):
    source = open_source(str(photos), "train")
    first, _ = opened(source, tmp_path / "c")
    monkeypatch.setattr(Source, "__getitem__", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(opened(source, tmp_path / "c")[0], first)


@pytest.mark.parametrize("other", [Identity("f" * 64, ""), Identity(MINE.fingerprint, "written since")])
def test_other_contents_and_later_files_never_meet_an_old_store(photos, tmp_path, other):
    source = open_source(str(photos), "train")
    before, _ = opened(source, tmp_path / "c")
    picture(999).save(photos / "cat" / "4.jpg")
    images, _ = opened(source, tmp_path / "c", identity=other)
    assert (images.numpy() == direct(source)).all()
    assert not torch.equal(images, before)
    assert torch.equal(opened(source, tmp_path / "c")[0], before)


def test_another_version_of_decoding_decodes_again(photos, tmp_path, monkeypatch):
    source = open_source(str(photos), "train")
    opened(source, tmp_path / "c")
    monkeypatch.setattr(module, "DECODING_VERSION", module.DECODING_VERSION + 1)
    opened(source, tmp_path / "c")
    assert len(list((tmp_path / "c").iterdir())) == 2


def test_damage_of_a_store_is_found_on_demand(photos, tmp_path):
    opened(open_source(str(photos), "train"), tmp_path / "c")
    folder = store_in(tmp_path / "c")
    assert artefact.damage(folder) == []
    with open(folder / "images.u8", "r+b") as file:
        file.write(b"\0\1\2")
    assert len(artefact.damage(folder)) == 1


def test_writing_to_the_images_leaves_the_file_alone(photos, tmp_path):
    source = open_source(str(photos), "train")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(source, tmp_path / "c")[0].zero_()
    assert (opened(source, tmp_path / "c")[0].numpy() == direct(source)).all()


@pytest.mark.parametrize("change", ["truncated", "no record", "torn record", "unfinished", "no ids", "torn ids"])
def test_a_store_that_is_not_whole_is_rebuilt(photos, tmp_path, change):
    source = open_source(str(photos), "train")
    cache = tmp_path / "c"
    opened(source, cache)
    images, ids, record = (store_in(cache) / name for name in ("images.u8", "unreadable.json", "artefact.json"))
    images.write_bytes(bytes(images.stat().st_size))
    if change == "truncated":
        os.truncate(images, 100)
    elif change == "no record":
        record.unlink()
    elif change == "torn record":
        record.write_text("{")
    elif change == "unfinished":
        about = outside.read_json(record)
        del about["files"]
        files.write_json(record, about)
    elif change == "no ids":
        ids.unlink()
    else:
        ids.write_text('["whole"]')
    assert (opened(source, cache)[0].numpy() == direct(source)).all()
    assert contents(cache) == WHOLE


def test_an_unreadable_image_fails_by_its_path(photos, tmp_path):
    file = damage(photos)
    with pytest.raises(ImageError, match=str(file)):
        opened(open_source(str(photos), "train"), tmp_path / "c")
    assert contents(tmp_path / "c") == []


def test_an_image_without_conversion_fails_by_its_name(tmp_path):
    with pytest.raises(ImageError, match=r"image 1 of mine .train.: .*no agreed range"):
        opened(source_of([picture(0), Image.new("F", (8, 6))]), tmp_path)


def test_an_unreadable_image_is_dropped_on_request(photos, tmp_path):
    damage(photos)
    source = open_source(str(photos), "train")
    for _ in range(2):
        images, unreadable = opened(source, tmp_path / "c", "drop")
        assert unreadable.dtype == np.int64
        assert unreadable.tolist() == [3]
        assert not images[3].any()
        assert (images[4].numpy() == to_array(source[4], 3).transpose(2, 0, 1)).all()


def test_unreadable_images_without_a_store_are_looked_for_once(photos, tmp_path, monkeypatch):
    damage(photos)
    source = open_source(str(photos), "train")
    decoding = Decoding(tmp_path / "c", "drop", 2, progress=False)
    assert find_unreadable(source, MINE, decoding).tolist() == [3]
    monkeypatch.setattr(Source, "__getitem__", lambda *_: pytest.fail("decoded again"))
    found = find_unreadable(source, MINE, decoding)
    assert (found.tolist(), found.dtype) == ([3], np.int64)


def test_what_was_dropped_fails_later_until_it_is_mended(photos, tmp_path):
    file = damage(photos)
    source = open_source(str(photos), "train")
    opened(source, tmp_path / "c", "drop")
    with pytest.raises(ImageError, match=str(file)):
        opened(source, tmp_path / "c")
    assert opened(source, tmp_path / "c", "drop")[1].tolist() == [3]
    picture(3).save(file)
    assert opened(source, tmp_path / "c")[1].tolist() == []
    assert artefact.damage(store_in(tmp_path / "c")) == []


def test_an_image_of_another_size_is_fitted_and_told(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    images, _ = opened(source_of([picture(0), picture(1, 20, 10), picture(2)]), tmp_path)
    assert images.shape == (3, 3, 6, 8)
    assert images[1].any()
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


def test_a_full_disk_is_told_before_decoding(photos, tmp_path, monkeypatch):
    usage = files.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage._replace(free=0))
    source = open_source(str(photos), "train")
    monkeypatch.setattr(Source, "__getitem__", lambda *_: pytest.fail("decoded"))
    with pytest.raises(OSError, match=r"--data.root") as caught:
        opened(source, tmp_path / "c")
    assert caught.value.errno == errno.ENOSPC


def test_a_disk_that_fills_up_leaves_nothing_behind(photos, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("kdprune.files.os.fsync", full)
    with pytest.raises(OSError, match=r"--data.root") as caught:
        opened(open_source(str(photos), "train"), tmp_path / "c")
    assert caught.value.errno == errno.ENOSPC
    assert contents(tmp_path / "c") == []


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
    source = source_of([picture(i) for i in range(9)])
    assert (opened(source, tmp_path)[0].numpy() == direct(source)).all()
    assert contents(tmp_path) == WHOLE


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_of_several_processes_one_decodes(photos, tmp_path, monkeypatch):
    source = open_source(str(photos), "train")
    decode = module._decode

    def noted(*args):
        with open(tmp_path / "log", "a") as log:
            log.write("decoded\n")
        return decode(*args)

    monkeypatch.setattr(module, "_decode", noted)

    def build():
        if not (opened(source, tmp_path / "c")[0].numpy() == direct(source)).all():
            os._exit(1)

    assert run_processes(build, build, build) == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "decoded\n"
    assert contents(tmp_path / "c") == WHOLE


def test_a_store_with_a_flipped_bit_is_made_again(photos, tmp_path):
    source = open_source(str(photos), "train")
    images, _ = opened(source, tmp_path / "c")
    expected = images.clone()
    (path,) = (tmp_path / "c").rglob("images.u8")
    content = bytearray(path.read_bytes())
    content[7] ^= 4
    del images
    path.write_bytes(content)
    again, _ = opened(source, tmp_path / "c")
    assert (again == expected).all()
