import json
import os
import pickle
import shutil
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from kdprune.data.fingerprint import identify
from kdprune.data.images import ImageError
from kdprune.data.sources import Source, check_same_classes, from_indexable, open_source
from kdprune.data.sources import huggingface as _huggingface


def picture(seed: int, size: int = 8) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def encoded(seed: int, size: int = 8) -> bytes:
    import io

    file = io.BytesIO()
    picture(seed, size).save(file, "PNG")
    return file.getvalue()


def class_folders(folder, classes, each=3):
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            picture(100 * label + index).save(folder / name / f"{index}.png")


@pytest.fixture
def photos(tmp_path):
    """train/ and val/ of two classes."""
    class_folders(tmp_path / "photos" / "train", ["cat", "dog"])
    class_folders(tmp_path / "photos" / "val", ["cat", "dog"], each=2)
    return tmp_path / "photos"


def write_parquet(path, labels, names=None, columns=("image", "label"), first=0, row_group_size=None):
    images = [{"bytes": encoded(first + i), "path": None} for i in range(len(labels))]
    table = pa.table({columns[0]: images, columns[1]: labels})
    if names is not None:
        features = {columns[0]: {"_type": "Image"}, columns[1]: {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)


# --- names ---


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("digit", "unknown data set 'digit'; did you mean 'digits'.*allowed: digits, torch/NAME, hfds/NAME"),
        ("cifar10", "did you mean 'torch/cifar10'"),
        ("torch/cifar11", "unknown torchvision data set 'cifar11'; did you mean 'cifar10'.*allowed: cifar10, cifar100"),
        ("", "unknown data set ''"),
        ("hfds/", "unknown data set"),
        ("hfds/./absent", "hfds/./absent: no such folder"),
        ("/absent/deep/folder", "does not exist either"),
    ],
)
def test_an_unknown_name_is_answered_with_what_is_allowed(dataset, message):
    with pytest.raises(ValueError, match=message):
        open_source(dataset, "train")


def test_the_nearest_folder_is_named(photos):
    for prefix in ("", "hfds/"):
        with pytest.raises(ValueError, match=r"did you mean '.*photos'"):
            open_source(f"{prefix}{photos.parent}/photo", "train")


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="unknown split 'tests'; did you mean 'test'"):
        open_source("digits", "tests")


# --- digits ---


def test_digits_are_split_once_and_for_all():
    train, test = open_source("digits", "train"), open_source("digits", "test")
    assert (len(train), len(test)) == (1347, 450)
    assert not set(map(train.describe, range(len(train)))) & set(map(test.describe, range(len(test))))
    assert np.bincount(test.labels).tolist() == [44, 46, 44, 46, 45, 46, 45, 45, 44, 45]
    assert train[0].size == (8, 8)
    assert train[0].mode == "L"
    assert max(np.asarray(train[i]).max() for i in range(20)) == 255
    assert train.classes == [str(digit) for digit in range(10)]


def test_an_id_beyond_the_end_is_refused():
    with pytest.raises(IndexError, match=r"sample id 450 is not in 0..449"):
        open_source("digits", "test")[450]


# --- folders ---


def test_folder_with_held_out_part(photos):
    train, test = open_source(str(photos), "train"), open_source("photos", "test", root=photos.parent)
    assert train.classes == test.classes == ["cat", "dog"]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert test.labels.tolist() == [0, 0, 1, 1]
    assert (np.asarray(train[4]) == np.asarray(picture(101))).all()
    assert train.describe(4) == str(photos / "train" / "dog" / "1.png")


def test_folders_are_in_natural_order(tmp_path):
    class_folders(tmp_path, ["class10", "class2", "Class1"], each=11)
    source = open_source(str(tmp_path), "train")
    assert source.classes == ["Class1", "class2", "class10"]
    assert [source.describe(i).split("/")[-1] for i in (1, 2, 10)] == ["1.png", "2.png", "10.png"]


def test_hidden_and_other_files_are_passed_over(photos):
    (photos / "train" / ".ipynb_checkpoints").mkdir()
    (photos / "train" / "cat" / "._0.png").write_bytes(b"")
    (photos / "train" / "cat" / "notes.txt").write_text("")
    assert len(open_source(str(photos), "train")) == 6


def test_class_folders_alone_have_no_held_out_part(photos):
    assert len(open_source(str(photos / "train"), "train")) == 6
    with pytest.raises(ValueError, match=r"no held-out split for 'test'; expected train/CLASS/.*validation/, test/"):
        open_source(str(photos / "train"), "test")


def test_images_alone_are_an_unlabelled_set(photos):
    source = open_source(str(photos / "train" / "cat"), "train")
    assert source.labels.tolist() == [-1, -1, -1]
    assert source.classes == []


def test_an_unlabelled_training_set_may_have_labelled_images_held_out(photos):
    for folder in ("cat", "dog"):
        shutil.rmtree(photos / "train" / folder)
    picture(0).save(photos / "train" / "0.png")
    assert open_source(str(photos), "train").labels.tolist() == [-1]
    assert open_source(str(photos), "test").classes == ["cat", "dog"]


def test_labelled_folder_is_preferred_among_those_held_out(photos):
    (photos / "test").mkdir()
    picture(0).save(photos / "test" / "0.png")
    assert len(open_source(str(photos), "test")) == 4


def test_a_missing_train_folder_is_told(photos):
    shutil.rmtree(photos / "train")
    with pytest.raises(ValueError, match="no train split, only val/; expected train/CLASS"):
        open_source(str(photos), "train")


def test_other_classes_held_out_are_refused(photos):
    shutil.move(photos / "val" / "dog", photos / "val" / "wolf")
    with pytest.raises(ValueError, match=r"has 2 classes .* has 2; only in train: dog; only in held out: wolf"):
        open_source(str(photos), "test")


def test_empty_folders_are_refused(tmp_path, photos):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no images \(.jpg, .*\) in .*empty"):
        open_source(str(tmp_path / "empty"), "train")
    (photos / "train" / "eel").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*eel holds no images"):
        open_source(str(photos), "train")


def test_a_folder_of_parquet_files_is_pointed_to_hfds(tmp_path):
    write_parquet(tmp_path / "train.parquet", [0])
    with pytest.raises(ValueError, match=f"did you mean 'hfds/{tmp_path}'"):
        open_source(str(tmp_path), "train")


def test_a_truncated_image_is_named(photos):
    file = photos / "train" / "cat" / "1.png"
    file.write_bytes(file.read_bytes()[:80])
    with pytest.raises(ImageError, match=str(file)):
        open_source(str(photos), "train")[1]
    file.write_bytes(b"")
    with pytest.raises(ImageError, match=str(file)):
        open_source(str(photos), "train")[1]


# --- parquet ---


def test_parquet_with_names_and_row_groups(tmp_path):
    write_parquet(tmp_path / "train.parquet", [1, 0, 1, 1, 0], ["cat", "dog"], row_group_size=2)
    write_parquet(tmp_path / "validation.parquet", [0, 1], ["cat", "dog"])
    source = open_source(f"hfds/{tmp_path}", "train")
    assert source.classes == ["cat", "dog"]
    assert source.labels.tolist() == [1, 0, 1, 1, 0]
    for index in (4, 0, 3):
        assert (np.asarray(source[index]) == np.asarray(picture(index))).all()
    assert source.describe(3) == f"row 3 of {tmp_path / 'train.parquet'}"
    assert len(open_source(f"hfds/{tmp_path}", "test")) == 2


def test_shards_are_read_in_order(tmp_path):
    for shard in (1, 0):
        write_parquet(tmp_path / "data" / f"train-0000{shard}-of-00002.parquet", [shard, shard], first=10 * shard)
    source = open_source(f"hfds/{tmp_path}", "train")
    assert source.labels.tolist() == [0, 0, 1, 1]
    assert source.classes == ["0", "1"]
    assert (np.asarray(source[3]) == np.asarray(picture(11))).all()
    assert source.describe(3).startswith("row 1 of")
    (tmp_path / "data" / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(ValueError, match="1 of the 2 train shards"):
        open_source(f"hfds/{tmp_path}", "train")


def test_a_large_split_is_memory_mapped_and_the_same(tmp_path, monkeypatch):
    write_parquet(tmp_path / "train.parquet", [1, 0, 1], ["cat", "dog"])
    small = open_source(f"hfds/{tmp_path}", "train")
    monkeypatch.setattr(_huggingface, "IN_MEMORY_BYTES", 0)
    large = open_source(f"hfds/{tmp_path}", "train", root=tmp_path / "cache")
    assert type(large._rows) is not type(small._rows)
    assert identify(large) == identify(small)
    assert large.describe(2) == small.describe(2)
    assert (np.asarray(pickle.loads(pickle.dumps(large))[2]) == np.asarray(picture(2))).all()


def test_columns_are_found_by_name_and_the_choice_is_told(tmp_path, caplog):
    table = pa.table({"coarse_label": [0, 0], "img": [encoded(0), encoded(1)], "fine_label": [1, 0]})
    pq.write_table(table, tmp_path / "train.parquet")
    source = open_source(f"hfds/{tmp_path}", "train")
    assert source.labels.tolist() == [1, 0]
    assert "2 label columns (fine_label, coarse_label); 'fine_label' is taken" in caplog.text
    assert source[1].size == (8, 8)


def test_words_as_labels_are_sorted(tmp_path):
    write_parquet(tmp_path / "train.parquet", ["dog", "cat", None])
    source = open_source(f"hfds/{tmp_path}", "train")
    assert source.classes == ["cat", "dog"]
    assert source.labels.tolist() == [1, 0, -1]


def test_images_may_lie_beside_the_table(tmp_path):
    picture(5).save(tmp_path / "five.png")
    pq.write_table(pa.table({"image": ["five.png"], "label": [0]}), tmp_path / "train.parquet")
    assert (np.asarray(open_source(f"hfds/{tmp_path}", "train")[0]) == np.asarray(picture(5))).all()


def test_a_table_without_labels_is_unlabelled(tmp_path):
    pq.write_table(pa.table({"image": [encoded(0)]}), tmp_path / "train.parquet")
    source = open_source(f"hfds/{tmp_path}", "train")
    assert source.labels.tolist() == [-1]
    assert source.classes == []


def test_the_labelled_table_is_taken_of_those_held_out(tmp_path):
    write_parquet(tmp_path / "train.parquet", [0, 1], ["a", "b"])
    write_parquet(tmp_path / "test.parquet", [-1, -1], ["a", "b"])
    with pytest.raises(ValueError, match=r"held-out split .test. has no labels, the train split has"):
        open_source(f"hfds/{tmp_path}", "test")
    write_parquet(tmp_path / "validation.parquet", [1], ["a", "b"])
    assert open_source(f"hfds/{tmp_path}", "test").labels.tolist() == [1]


@pytest.mark.parametrize(
    ("train", "test", "split", "message"),
    [
        (None, [0], "train", "no train split; .*expected train.parquet"),
        ([0], None, "test", "no held-out split for 'test' .test, val, valid, validation."),
        ([0, 2], None, "train", "label 2 of row 1 of .* is not in 0..1"),
        ([0, -2], None, "train", "label -2 of row 1"),
        ([], None, "train", "the train split holds no images"),
    ],
)
def test_wrong_parquet_folders_are_refused(tmp_path, train, test, split, message):
    for word, labels in (("train", train), ("test", test)):
        if labels is not None:
            write_parquet(tmp_path / f"{word}.parquet", pa.array(labels, pa.int64()), ["cat", "dog"]) if labels else (
                pq.write_table(
                    pa.table({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}),
                    tmp_path / f"{word}.parquet",
                )
            )
    with pytest.raises(ValueError, match=message):
        open_source(f"hfds/{tmp_path}", split)


def test_labels_held_out_must_be_those_of_training(tmp_path):
    write_parquet(tmp_path / "train.parquet", [0, 1])
    write_parquet(tmp_path / "test.parquet", [2])
    with pytest.raises(ValueError, match=r"label 2 of row 0 of .*test.parquet is not in 0..1"):
        open_source(f"hfds/{tmp_path}", "test")
    write_parquet(tmp_path / "train.parquet", [0, 1], ["a", "b"])
    write_parquet(tmp_path / "test.parquet", [2], ["a", "b", "c"])
    with pytest.raises(ValueError, match="train split has 2 classes and the held-out split has 3; only in held out: c"):
        open_source(f"hfds/{tmp_path}", "test")


def test_tables_without_use_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no parquet files in"):
        open_source(f"hfds/{tmp_path}", "train")
    pq.write_table(pa.table({"picture_id": [1], "label": [0]}), tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"no image column .*the columns are picture_id .int64., label"):
        open_source(f"hfds/{tmp_path}", "train")
    shutil.move(tmp_path / "train.parquet", tmp_path / "training_set.parquet")
    with pytest.raises(ValueError, match=r"no split in the names training_set.parquet; expected train.parquet"):
        open_source(f"hfds/{tmp_path}", "train")
    (tmp_path / "train.parquet").write_bytes(b"not parquet")
    with pytest.raises(ValueError, match=r"train.parquet is not a readable parquet file"):
        open_source(f"hfds/{tmp_path}", "train")


def test_a_bad_row_is_named(tmp_path):
    images = [{"bytes": encoded(0)[:50], "path": None}, {"bytes": None, "path": None}]
    pq.write_table(pa.table({"image": images, "label": [0, 0]}), tmp_path / "train.parquet")
    source = open_source(f"hfds/{tmp_path}", "train")
    with pytest.raises(ImageError, match=r"row 0 of .*train.parquet cannot be decoded"):
        source[0]
    with pytest.raises(ImageError, match=r"row 1 of .*train.parquet holds no image"):
        source[1]


def test_the_hub_is_asked_for_other_names(monkeypatch):
    import datasets

    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    table = datasets.Dataset.from_dict({"img": [picture(0), picture(1)], "label": [1, 0]}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **_: datasets.DatasetDict(train=table, validation=table))
    source = open_source("hfds/somebody/pictures", "test")
    assert source.classes == ["a", "b"]
    assert source.labels.tolist() == [1, 0]
    assert (np.asarray(source[1]) == np.asarray(picture(1))).all()
    assert (np.asarray(from_indexable(table, "mine", "train")[1]) == np.asarray(picture(1))).all()

    def fail(name, **_):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(ValueError, match=r"hfds/somebody/pictures: neither a folder.* nor a data set .*no network"):
        open_source("hfds/somebody/pictures", "train")


@pytest.mark.slow
def test_real_parquet(shared_data):
    source = open_source(f"hfds/{shared_data / 'cifar10'}", "test")
    assert len(source) == 10_000
    assert source.classes[:2] == ["airplane", "automobile"]
    assert np.bincount(source.labels).tolist() == [1000] * 10
    assert source[9_999].size == (32, 32)


# --- torch ---


def test_torchvision_by_name_in_any_case(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for word, count in (("train", 4), ("t10k", 2)):
        pixels = np.arange(count * 784).reshape(count, 28, 28).astype(np.uint8)
        (raw / f"{word}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + pixels.tobytes())
        (raw / f"{word}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + bytes(range(count)))
    train, test = (open_source("torch/MNIST", split, tmp_path) for split in ("train", "test"))
    assert (len(train), len(test)) == (4, 2)
    assert train.labels.tolist() == [0, 1, 2, 3]
    assert len(train.classes) == 10
    assert np.asarray(test[1]).ravel().tolist() == np.arange(784, 2 * 784).astype(np.uint8).tolist()


def test_a_failed_download_is_told(tmp_path, monkeypatch):
    import torchvision.datasets

    def fail(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fail)
    with pytest.raises(ValueError, match=r"torch/cifar10: cannot be opened in .* or downloaded to it: no network"):
        open_source("torch/CIFAR10", "train", tmp_path)


class Pairs(torch.utils.data.Dataset):
    def __init__(self, image, label=0, **attributes):
        self.item = image, label
        self.__dict__.update(attributes)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.item


@pytest.mark.parametrize(
    "image",
    [
        Image.new("L", (6, 4), 7),
        np.full((4, 6), 7, np.uint8),
        np.full((4, 6, 1), 7, np.uint8),
        torch.full((1, 4, 6), 7, dtype=torch.uint8),
        torch.full((3, 4, 6), 7, dtype=torch.uint8),
        np.full((4, 6, 3), 7, np.uint8),
    ],
)
def test_images_of_a_torch_data_set_come_in_many_forms(image):
    opened = from_indexable(Pairs(image), "mine", "train")[0]
    assert opened.size == (6, 4)
    assert (np.asarray(opened) == 7).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 4, 6), "has values of type float32, not uint8: give the data set without transforms"),
        (np.zeros((2, 4, 6), np.uint8), "has shape .2, 4, 6. .allowed"),
        ("a.png", "is a str .allowed: PIL image"),
    ],
)
def test_other_images_are_refused(image, message):
    with pytest.raises(ImageError, match=message):
        from_indexable(Pairs(image), "mine", "train")[0]


def test_labels_come_from_attributes_only_where_these_agree():
    image = Image.new("L", (2, 2))
    assert from_indexable(Pairs(image, 1, targets=[1, 1, 1]), "mine", "train").labels.tolist() == [1, 1, 1]
    assert from_indexable(Pairs(image, 1, targets=[0, 5, 1]), "mine", "train").labels.tolist() == [1, 1, 1]
    transformed = Pairs(image, 2, targets=[2, 2, 0], target_transform=lambda label: label, classes=["a", "b", "c"])
    source = from_indexable(transformed, "mine", "train")
    assert source.labels.tolist() == [2, 2, 2]
    assert source.classes == ["a", "b", "c"]


def test_streams_are_refused_with_the_reason():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from ()

    for stream in (Stream(), iter([])):
        with pytest.raises(ValueError, match="can only be iterated over, and a sample is known here by its index"):
            from_indexable(stream, "mine", "train")


def test_items_that_are_no_pairs_are_refused():
    with pytest.raises(ValueError, match=r"item 0 is a dict, not a pair \(image, class\)"):
        from_indexable([{"image": 1}], "mine", "train")
    with pytest.raises(ValueError, match="class of item 0 is 'cat', not a whole number"):
        from_indexable([(Image.new("L", (2, 2)), "cat")], "mine", "train")
    with pytest.raises(ValueError, match="mine: the train split holds no images"):
        from_indexable([], "mine", "train")


def test_classes_are_compared_by_name_and_order():
    check_same_classes("mine", ["a", "b"], ["a", "b"])
    with pytest.raises(ValueError, match="the same names stand in another order"):
        check_same_classes("mine", ["a", "b"], ["b", "a"])


# --- fingerprints ---


def pairs(count=100):
    return [(picture(i), i % 3) for i in range(count)]


def print_of(items, split="train") -> str:
    return identify(from_indexable(items, "mine", split)).fingerprint


def test_a_fingerprint_changes_with_the_data():
    items = pairs()
    sampled = from_indexable(items, "mine", "train").spread(64)[5]
    relabelled = [*items[:50], (items[50][0], 0), *items[51:]]
    repainted = list(items)
    repainted[sampled] = (picture(999), items[sampled][1])
    variants = [items, relabelled, repainted, items[::-1], items[:-1]]
    prints = [print_of(variant) for variant in variants] + [print_of(items, "test")]
    assert len(set(prints)) == len(prints)
    assert print_of(pairs()) == prints[0]
    assert len(prints[0]) == 64


def test_one_pixel_changes_the_fingerprint():
    items = pairs(5)
    changed = items[0][0].copy()
    changed.putpixel((3, 3), tuple(255 - value for value in changed.getpixel((3, 3))))
    assert print_of([(changed, 0), *items[1:]]) != print_of(items)


def test_every_image_of_data_in_memory_is_part_of_the_fingerprint(monkeypatch):
    monkeypatch.setattr("kdprune.data.fingerprint.SAMPLED", 2)  # the first and the last
    items = pairs()
    repainted = [*items[:7], (picture(999), items[7][1]), *items[8:]]
    assert print_of(repainted) != print_of(items)
    monkeypatch.setattr("kdprune.data.fingerprint.WHOLE_BYTES", 1)  # too much to be read each time
    assert print_of(repainted) == print_of(items)


def identity_of(folder):
    return identify(open_source(str(folder), "train"))


def test_a_copy_elsewhere_has_the_same_fingerprint(photos, tmp_path):
    before = identity_of(photos)
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(photos, copy)
    assert identity_of(copy) == before  # copytree keeps the times
    os.utime(copy / "train" / "cat" / "1.png", ns=(1, 1))
    assert identity_of(copy).fingerprint == before.fingerprint
    assert identity_of(copy).modified != before.modified


def test_an_unreadable_image_has_a_fingerprint_too(photos):
    before = identity_of(photos).fingerprint
    (photos / "train" / "cat" / "0.png").write_bytes(b"damaged")
    damaged = identity_of(photos).fingerprint
    (photos / "train" / "cat" / "0.png").unlink()
    (photos / "train" / "cat" / "0.png").symlink_to("nowhere.png")
    assert len({before, damaged, identity_of(photos).fingerprint}) == 3


def test_files_that_no_sample_looks_at_are_part_of_the_fingerprint(tmp_path, monkeypatch):
    monkeypatch.setattr("kdprune.data.fingerprint.SAMPLED", 2)  # the first and the last
    class_folders(tmp_path / "photos", ["cat"], each=5)
    found = [identity_of(tmp_path / "photos")]
    edited = tmp_path / "photos" / "cat" / "2.png"
    picture(999, size=9).save(edited)
    found.append(identity_of(tmp_path / "photos"))
    edited.rename(edited.with_name("2b.png"))
    found.append(identity_of(tmp_path / "photos"))
    assert len({identity.fingerprint for identity in found}) == 3


def test_a_file_of_the_same_size_changes_only_what_is_kept_of_its_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr("kdprune.data.fingerprint.SAMPLED", 2)
    for index in range(5):
        (tmp_path / "cat").mkdir(exist_ok=True)
        picture(index).save(tmp_path / "cat" / f"{index}.bmp")
    before = identity_of(tmp_path)
    os.utime(tmp_path / "cat" / "2.bmp", ns=(1, 1))
    picture(999).save(tmp_path / "cat" / "2.bmp")
    assert identity_of(tmp_path).fingerprint == before.fingerprint
    assert identity_of(tmp_path).modified != before.modified


def test_a_folder_costs_one_look_at_each_file(tmp_path, monkeypatch):
    """Of a million files, a second one would be seconds, and minutes on a network's disk."""
    class_folders(tmp_path / "photos", ["cat", "dog"], each=50)
    looked_at: list[str] = []
    look = os.stat

    def counted(path, *args, **kwargs):
        looked_at.append(os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else "")
        return look(path, *args, **kwargs)

    source = open_source(str(tmp_path / "photos"), "train")
    monkeypatch.setattr(os, "stat", counted)
    open_source(str(tmp_path / "photos"), "train")
    assert not [path for path in looked_at if path.endswith(".png")]
    source.stamp()
    assert sorted(path for path in looked_at if path.endswith(".png")) == sorted(
        str(path) for path in (tmp_path / "photos").rglob("*.png")
    )


def test_a_parquet_file_that_was_written_anew_has_another_fingerprint(tmp_path, monkeypatch):
    monkeypatch.setattr("kdprune.data.fingerprint.SAMPLED", 2)
    pixels = [encoded(i) for i in range(5)]

    def identity(images, folder="table"):
        (tmp_path / folder).mkdir(exist_ok=True)
        pq.write_table(pa.table({"image": images, "label": [0] * 5}), tmp_path / folder / "train.parquet")
        return identity_of(f"hfds/{tmp_path / folder}")

    before = identity(pixels)
    assert identity(pixels, "copy").fingerprint == before.fingerprint
    assert identity([*pixels[:2], encoded(999), *pixels[3:]]).fingerprint != before.fingerprint


def test_a_table_in_memory_is_known_by_the_lengths_of_its_images(monkeypatch):
    import datasets

    monkeypatch.setattr("kdprune.data.fingerprint.SAMPLED", 2)

    def table(sizes):
        cells = [{"bytes": encoded(size, size), "path": None} for size in sizes]
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
        return datasets.Dataset.from_dict({"image": cells, "label": [0] * len(cells)}, features=features)

    def fingerprint(dataset):
        return identify(from_indexable(dataset, "mine", "train")).fingerprint

    sizes = [5, 6, 7, 8]
    assert fingerprint(table(sizes)) == fingerprint(table(sizes))
    assert fingerprint(table([5, 9, 7, 8])) != fingerprint(table(sizes))
    assert fingerprint(table([5, 7, 6, 8])) == fingerprint(table(sizes).select([0, 2, 1, 3]))


# --- workers ---


class Ends(torch.utils.data.Dataset):
    """First and last image of each source, summed."""

    def __init__(self, sources: list[Source]):
        self.sources = sources

    def __len__(self):
        return len(self.sources)

    def __getitem__(self, index):
        source = self.sources[index]
        return [int(np.asarray(source[i]).sum()) for i in (0, len(source) - 1)]


def test_sources_reach_spawned_workers(photos, tmp_path):
    write_parquet(tmp_path / "table" / "train.parquet", [0, 1, 1], row_group_size=2)
    names = ["digits", str(photos), f"hfds/{tmp_path / 'table'}"]
    sources = [open_source(name, "train") for name in names]
    here = Ends([*sources, from_indexable(pairs(3), "mine", "train")])
    for source in here.sources:
        source[0]  # what was read before must not stand in the way
    loader = torch.utils.data.DataLoader(here, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert list(loader) == [here[index] for index in range(len(here))]
