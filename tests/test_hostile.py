"""Files and names from strangers: each is refused at once, in one message, before any work."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from helpers import said_by, unfinish
from PIL import Image

from kdprune.artefact import Artefact, damage, read_record
from kdprune.cli.config_file import check_settings
from kdprune.data.images import ImageError
from kdprune.data.sources import open_source
from kdprune.data.subset import Subset, load_subset
from kdprune.models.arguments import own_arguments
from kdprune.models.build import build_student, build_teacher, load_model, save_model
from kdprune.models.weights import METADATA_KEY, read_header, read_weights
from kdprune.outside import DEEPEST, below, read_json
from kdprune.runs.reading import read_config, read_summary
from kdprune.training.checkpoint import Checkpoints, damaged_checkpoints
from kdprune.yaml_text import check_bounds, parse_yaml, read_yaml

GREY = {"channels": 1, "image_size": 8, "mean": (0.3,), "std": (0.2,)}
NAME = "mlp_64"
SOON = 5.0  # seconds of this process, where a fraction of one would do on an idle machine


@pytest.fixture(autouse=True)
def soon():
    """Nothing here takes long, whatever a file promises."""
    start = time.process_time()
    yield
    assert time.process_time() - start < SOON


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def png(size: tuple[int, int] = (8, 8)) -> bytes:
    file = io.BytesIO()
    Image.new("L", size).save(file, "PNG")
    return file.getvalue()


# --- texts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 30_000, "opens more than"),
        ("- " * 16_000, "nested deeper"),
        ("{" * 30_000, "opens more than"),
        ("? " * 16_000, "nested deeper"),
        ("a: &a [1, 2]\nb: [*a, *a]\n", "alias"),
        ("a: !!python/object/apply:os.system [id]", "tag"),
        ("a: !!binary aGk=", "tag"),
        ("a: 1\nb: 2\na: 3", "'a' is given twice"),
        ("9" * 5_000, "digits"),
        ("a: [", "line 1"),
        ("\0", "special characters"),
        ("x" * 2**16, "characters given"),
        ("a: b\n---\na: c\n", "another document"),
    ],
)
def test_yaml_beyond_bounds(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        parse_yaml(text)
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"a\.yaml "):
        read_yaml(tmp_path / "a.yaml")


def test_yaml_within_bounds_is_as_everybody_writes_it():
    text = "# a recipe\na: 1e-3\nb: [1, .5, -2.]\nc: {d: null, e: 'x'}\nf: |\n  lines\ng: 2020-01-01\nh: yes\n"
    assert parse_yaml(text) == {"a": 1e-3, "b": [1, 0.5, -2.0], "c": {"d": None, "e": "x"}, "f": "lines\n",
                                "g": "2020-01-01", "h": True}  # fmt: skip
    for harmless in ("*resnet*", "crop(4)+flip", "a: b: c", "%", "[a", "@x", "runs/x@5"):
        check_bounds(harmless)  # none of YAML, or not all of it, and nothing to be afraid of


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "JSON|nested"),
        ("[" * (DEEPEST + 2) + "]" * (DEEPEST + 2), "nested deeper"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"a": "\\ud800"}', "surrogates"),
        ("1" * 5000, "digits"),
        ("", "JSON"),
        ("\xff\xfe", "JSON"),
    ],
)
def test_json_beyond_bounds(text, message, tmp_path):
    (tmp_path / "a.json").write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=rf"a\.json.*({message})"):
        read_json(tmp_path / "a.json")


def test_what_is_no_file_is_not_read(tmp_path):
    folder, channel = tmp_path / "folder", tmp_path / "socket"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(channel))
        for path, kind in [(pipe(tmp_path / "pipe"), "pipe"), (Path("/dev/zero"), "device"), (folder, "folder"),
                           (channel, "socket")]:  # fmt: skip
            link = tmp_path / f"link to a {kind}"
            link.symlink_to(path)
            for one in (path, link):
                readers = [read_json, read_yaml, read_header]  # a folder may be a run, which has a subset
                for read in readers if kind == "folder" else [*readers, load_subset]:
                    with pytest.raises(ValueError, match=f"is a {kind}"):
                        read(one)


def test_a_file_may_name_files_beside_it_only(tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "circle").symlink_to(inside / "circle")
    assert below(inside, "a/b") == inside / "a/b"
    for name in ("../outside/x", "/etc/passwd", "link/x", "a/../../x", "a\0b", "x" * 5000):
        with pytest.raises(ValueError, match=r"leads out of|no name of a file"):
            below(inside, name)


# --- the command line


RECIPES = {
    "train: /etc/passwd": "train: '/etc/passwd' given",
    "config: /etc/passwd": "unknown setting 'config'",
    "data:\n  dataset: {file: /etc/passwd}": "data.dataset",
    "teacher:\n  models: !include /etc/passwd": "tag",
    "print_config: ''": "unknown setting",
    "train: {class_path: os.system}": "train.class_path",
    "subset:\n  file: '" + "[" * 9000 + "'": "opens more than",
    "subset:\n  file: '" + "- " * 9000 + "'": "nested deeper",
    "- a": "settings by name",
    "1: 2": "unknown setting '1'",
    "a: &x [1]\nb: *x": "alias",
}


@pytest.mark.parametrize("text", RECIPES)
def test_a_recipe_shows_no_other_file_and_crashes_no_parser(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    status, out, said = said_by(["train", "--config", tmp_path / "c.yaml"])
    assert (status, out) == (2, "")
    assert said.startswith("error: --config")
    assert said.count("\n") == 1
    assert "root:" not in said
    assert RECIPES[text] in said


@pytest.mark.parametrize("value", ["[" * 30_000, "{" * 30_000, "- " * 9000, "&a [*a]"])
@pytest.mark.parametrize("option", ["--teacher.temperatures", "--distill.alpha", "--subset.file", "--train"])
def test_a_word_that_would_crash_the_parser(option, value):
    for words in ([option, value], [f"{option}={value}"]):
        status, _, said = said_by(["train", *words])
        assert status == 2
        assert said.startswith(f"error: {option}: ")
        assert "Traceback" not in said


@pytest.mark.parametrize("option", ["--data.augment", "--distill.loss", "--distill.alpha", "--subset.selector"])
def test_many_blanks_in_brackets_take_no_time(option):
    for value in (f"crop({' ' * 3000}", f"crop({' ' * 3000}x", f"{'a*' * 3000}", f"'{' ' * 3000}"):
        status, _, said = said_by(["train", option, value])
        assert status == 2
        assert option in said


@pytest.mark.parametrize(
    "name", ["../x", "/abs", "a/b", "..", ".", "", " ", "a\nb", "a\x1b[2J", "teachers", "x" * 300, "\udc80"]
)
def test_names_of_runs(name):
    status, _, said = said_by(["train", f"--name={name}"])
    assert status == 2
    assert "--name" in said


def test_settings_in_files_may_be_dotted_and_given_in_place():
    check_settings("{train.lr: 0.1, train: {epochs: 1}, kind: dynamics}", {"kind"})
    with pytest.raises(ValueError, match=r"--config: --train\.lr: 'a' given"):
        check_settings("{train.lr: a}", set())


# --- weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "student.safetensors"
    save_model(path, build_student(NAME, 10, **GREY))
    return path


def with_header(weights: Path, path: Path, **changes: Any) -> Path:
    state, header = read_weights(weights)
    assert header is not None
    del header["weights_hash"]
    safetensors.torch.save_file(state, path, metadata={METADATA_KEY: json.dumps({**header, **changes})})
    return path


def uses(path: Path) -> list:
    return [
        lambda: load_model(path),
        lambda: build_teacher(str(path), 10, **GREY),
        lambda: build_teacher(NAME, 10, checkpoint=path, **GREY),
        lambda: build_student(NAME, 10, checkpoint=path, **GREY),
    ]


SPEC = {"channels": 1, "size": 8, "mean": [0.1], "std": [1.0], "interpolation": "x", "crop_pct": 1}
HEADERS = {
    "code": ({"model_args": {"checkpoint_path": "/tmp/evil.pth"}}, "unknown argument of mlp_64 'checkpoint_path'"),
    "network": ({"model_args": {"pretrained": True}}, "unknown argument"),
    "source": ({"model_args": {"pretrained_cfg": {"file": "/tmp/evil.pth"}}}, "unknown argument"),
    "overlay": ({"model_args": {"pretrained_cfg_overlay": {"url": "http://x"}}}, "unknown argument"),
    "cache": ({"model_args": {"cache_dir": "/"}}, "unknown argument"),
    "kind": ({"model_args": {"features_only": True}}, "unknown argument"),
    "scriptable": ({"model_args": {"scriptable": True}}, "unknown argument"),
    "path": ({"model_args": {"global_pool": "../x"}}, "allowed are numbers"),
    "nested": ({"model_args": {"width": [[[[1]]]]}}, "allowed are numbers"),
    "wide": ({"model_args": {"drop_rate": 2**40}}, "allowed are numbers"),
    "hub": ({"name": "hf-hub:evil/model"}, "leads elsewhere"),
    "old hub": ({"name": "hf_hub:evil/model"}, "leads elsewhere"),
    "folder": ({"name": "local-dir:/tmp/evil"}, "leads elsewhere"),
    "path name": ({"name": "/tmp/evil"}, "leads elsewhere"),
    "unknown": ({"name": "mlp_65"}, "unknown model"),
    "other": ({"name": "cifar_resnet110", "model_args": {}}, "says more of its model|do not fit"),
    "classes": ({"num_classes": 2**23, "classes": None}, "do not fit"),
    "petabytes": ({"num_classes": 2**60}, "num_classes"),
    "names": ({"classes": ["a"]}, "names 1 classes"),
    "number": ({"num_classes": True}, "num_classes"),
    "no name": ({"name": None}, "'name'"),
    "arguments": ({"model_args": []}, "'model_args'"),
    "spec": ({"spec": {"channels": 1}}, "has no 'size'"),
    "huge spec": ({"spec": {**SPEC, "size": 10**9}}, "'size'"),
    "nan": ({"spec": {**SPEC, "mean": [float("nan")]}}, "'mean'"),
    "later": ({"spec": {**SPEC, "new": 1}}, "another version"),
}  # fmt: skip


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_leads_nowhere_and_runs_nothing(weights, tmp_path, monkeypatch, what):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a file was loaded"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("the network was asked"))
    changes, message = HEADERS[what]
    path = with_header(weights, tmp_path / "w.safetensors", **changes)
    for use in uses(path):
        with pytest.raises(ValueError, match=message) as refusal:
            use()
        assert str(path) in str(refusal.value) or "model" in str(refusal.value)


def test_a_header_may_say_what_shapes_its_model(tmp_path):
    path = tmp_path / "w.safetensors"
    save_model(path, build_student("test_vit", 10, image_size=32, depth=1))
    assert load_model(path).model_args == {"depth": 1}
    for depth, message in ((2, "do not fit"), (60_000, "says more of its model than the")):
        with pytest.raises(ValueError, match=message):
            load_model(with_header(path, tmp_path / "deep.safetensors", model_args={"depth": depth}))
    assert {"drop_path_rate", "img_size", "init_values", "norm_layer"} <= own_arguments("vit_tiny_patch16_224")


def test_what_is_read_of_a_file_draws_nothing(weights):
    torch.manual_seed(0)
    load_model(weights)
    after = torch.rand(3)
    torch.manual_seed(0)
    from kdprune.models.saved import check_saved

    state, header = read_weights(weights)
    assert header is not None
    check_saved(weights, state, header)
    build_student(NAME, 10, **GREY)
    assert torch.equal(torch.rand(3), after)


def test_a_safetensors_file_that_announces_more_than_it_holds(tmp_path):
    for header in (
        {"a": {"dtype": "F32", "shape": [2**48], "data_offsets": [0, 2**50]}},
        {"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}},
    ):
        text = json.dumps(header).encode()
        (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
        with pytest.raises(ValueError, match="is damaged"):
            read_weights(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(ValueError, match="is damaged"):
        read_weights(tmp_path / "b.safetensors")


def test_a_checkpoint_that_grows_holds_itself_or_is_no_tensor(tmp_path):
    path = tmp_path / "a.pth"
    itself: dict[str, Any] = {}
    itself["model"] = itself
    for content, message in [
        (itself, "holds no weights"),
        ({"w": torch.zeros(1).expand(2**40)}, "no dense tensor"),
        ({"w": torch.zeros(2, 2).to_sparse()}, "no dense tensor"),
        ({"w": torch.empty(2**40, device="meta")}, "no dense tensor|damaged"),
        ({1: torch.zeros(1)}, "holds no weights"),
        ([torch.zeros(1)], "holds no weights"),
    ]:
        torch.save(content, path)
        with pytest.raises(ValueError, match=message):
            read_weights(path)
    torch.save({"w": torch.zeros(2**20)}, path)
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for record in plain.namelist():
            packed.writestr(record, plain.read(record))
    with pytest.raises(ValueError, match="is compressed"):
        read_weights(tmp_path / "b.pth")


# --- data


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    for split in ("train", "val"):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            for number in range(3):
                (folder / split / name / f"{number}.png").write_bytes(png())
    return folder


def test_pipes_devices_and_sockets_among_images(photos):
    place = photos / "train" / "a"
    device = place / "device.png"
    device.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"device\.png is a device"):
        open_source(str(photos), "train")
    device.unlink()
    pipe(place / "deeper.jpg")
    with pytest.raises(ValueError, match=r"deeper\.jpg is a pipe"):
        open_source(str(photos), "train")
    status, _, said = said_by(["train", "--data.dataset", photos])
    assert status == 2
    assert said.count("\n") == 1


def test_links_in_a_circle_end_and_a_link_to_nothing_is_a_bad_image(photos):
    (photos / "train" / "a" / "again").symlink_to(photos / "train" / "a")
    (photos / "train" / "b" / "up").symlink_to(photos / "train")
    (photos / "train" / "b" / "lost.png").symlink_to(photos / "nothing")
    source = open_source(str(photos), "train")
    with pytest.raises(ImageError, match="lost"):
        source[next(i for i in range(len(source)) if source.describe(i).endswith("lost.png"))]


def test_an_image_that_is_a_program_or_a_bomb(photos):
    place = photos / "train" / "a"
    Image.new("RGB", (8, 8)).save(place / "program.eps")
    (place / "program.eps").rename(place / "0.png")
    for name, side in (("1.png", 60_000), ("2.png", 12_000)):
        said = b"IHDR" + struct.pack(">II", side, side) + png()[24:29]
        (place / name).write_bytes(png()[:12] + said + struct.pack(">I", zlib.crc32(said)) + png()[33:])
    source = open_source(str(photos), "train")
    for number, message in enumerate(["0.png cannot be decoded: it is no image of the formats JPEG", "1.png.*too large",
                                      "2.png.*12,000×12,000 pixels"]):  # fmt: skip
        with pytest.raises(ImageError, match=message):
            source[number]


def write_table(folder: Path, images: list[Any], labels: pa.Array | list) -> None:
    folder.mkdir(exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), "label": labels})
    for split in ("train", "test"):
        pq.write_table(table, folder / f"{split}.parquet")


def test_cells_of_a_table_point_to_files_beside_it_only(tmp_path):
    folder = tmp_path / "table"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(png())
    (folder / "mine.png").write_bytes(png())
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    pipe(folder / "pipe.png")
    paths = ["mine.png", "../secret.png", str(tmp_path / "secret.png"), "link.png", "/dev/zero", "pipe.png", "a\0b"]
    write_table(folder, [{"bytes": None, "path": path} for path in paths], [0, 1, 0, 1, 0, 1, 0])
    source = open_source(f"hfds/{folder}", "train")
    assert source[0].size == (8, 8)
    for number in range(1, len(paths)):
        with pytest.raises(ImageError, match=f"row {number} .*(leads out of|is a pipe|no name of a file)"):
            source[number]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (pa.array([2**62, 0]), "label 4611686018427387904 in column 'label'"),
        (pa.array([2**63 + 5, 0], pa.uint64()), "label 9223372036854775813"),
        (pa.array([10**7, 0]), "label 10000000"),
        (pa.array([-5, 0]), "label -5"),
        (pa.array([True, False]), "no labels in 'label' of type bool"),
        (pa.array([0.0, 1.0]), "no labels in 'label' of type double"),
        (pa.array([[0], [1]]), "no labels in 'label' of type list"),
    ],
)
def test_labels_that_are_no_classes(tmp_path, labels, message):
    write_table(tmp_path / "t", [{"bytes": png(), "path": None}] * 2, labels)
    with pytest.raises(ValueError, match=message):
        open_source(f"hfds/{tmp_path / 't'}", "train")


def test_a_table_with_more_rows_than_bytes(tmp_path):
    write_table(tmp_path / "t", [{"bytes": None, "path": None}] * 10**6, pa.array(np.zeros(10**6, np.int64)))
    with pytest.raises(ValueError, match="1,000,000 rows in"):
        open_source(f"hfds/{tmp_path / 't'}", "train")


# --- runs, subsets, records


def test_ids_beside_a_subset_file(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    path = folder / "subset.json"
    subset = Subset(np.arange(5), 10, "f", {})
    subset.save(path)
    content = json.loads(path.read_text())
    del content["ids"]
    np.save(tmp_path / "secret.npy", subset.ids)
    (folder / "link.npy").symlink_to(tmp_path / "secret.npy")
    pipe(folder / "pipe.npy")
    with open(folder / "huge.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (2**50,)})
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in (
        "../secret.npy",
        str(tmp_path / "secret.npy"),
        "link.npy",
        "pipe.npy",
        "huge.npy",
        "objects.npy",
        "",
        ".",
    ):
        path.write_text(json.dumps({**content, "ids_file": name}))
        with pytest.raises(ValueError, match=r"subset\.json: its ids cannot be read"):
            load_subset(path)
    path.write_text(json.dumps({**content, "format": "kdprune subset 2"}))
    with pytest.raises(ValueError, match="another version"):
        load_subset(path)


def test_a_record_names_no_file_elsewhere(tmp_path):
    (tmp_path / "r").mkdir()
    pipe(tmp_path / "r" / "pipe")
    record = {"what": "a run", "key": {}, "files": {"/dev/zero": "x", "../r/../x": "x", "pipe": "x", "a\0": "x"}}
    (tmp_path / "r" / "artefact.json").write_text(json.dumps(record))
    found = damage(tmp_path / "r")
    assert len(found) == 4
    assert sum("leads out of" in line for line in found) == 2
    for wrong in ({"files": []}, {"key": 1}, {"what": None}, {"files": {"a": 1}}):
        (tmp_path / "r" / "artefact.json").write_text(json.dumps({**record, **wrong}))
        with pytest.raises(ValueError, match="is damaged"):
            read_record(tmp_path / "r")


@pytest.mark.parametrize(
    "change",
    [{"student": None}, {"student": {"name": 1, "parameters": 2}}, {"teacher": [1]}, {"test_top1": "x"},
     {"steps": None}, {"inputs": []}, {"inputs": {"scores": 1}}, {"kept": -1}, {"cost": {}}],
)  # fmt: skip
def test_a_summary_of_others(digits_teacher, tmp_path, change):
    summary = json.loads((digits_teacher / "summary.json").read_text())
    run = tmp_path / "run"
    run.mkdir()
    (run / "artefact.json").write_bytes((digits_teacher / "artefact.json").read_bytes())
    for content in ({**summary, **change}, {k: v for k, v in summary.items() if k not in change}):
        (run / "summary.json").write_text(json.dumps(content))
        if list(change) == ["inputs"] and "inputs" not in content:
            continue
        with pytest.raises(ValueError, match=r"summary\.json.* is damaged"):
            read_summary(run)
        assert said_by(["show", run])[0] == 2


@pytest.mark.parametrize(
    "text", ["", "[]", "a: 1", "train: 1", "seed: x", "train: {lr: [1]}", "seed: !!python/name:os.x", "["]
)
def test_settings_of_others(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml is "):
        read_config(tmp_path)


def test_checkpoints_elsewhere_are_not_touched(tmp_path):
    from helpers import train

    _, run = train(tmp_path / "runs", {"train.steps": 2, "name": "mine"})
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "step_000000001.pth").write_bytes(b"precious")
    unfinish(run)
    (run / "checkpoints").symlink_to(theirs)
    with pytest.raises(ValueError, match="checkpoints is a link"):
        train(tmp_path / "runs", {"train.steps": 2, "name": "mine"})
    assert (theirs / "step_000000001.pth").read_bytes() == b"precious"


def test_a_lock_that_leads_elsewhere(tmp_path):
    (tmp_path / "precious").write_text("mine")
    for folder in ("link", "pipe"):
        (tmp_path / folder).mkdir()
        artefact = Artefact(tmp_path / folder, "a run", {})
        if folder == "link":
            (tmp_path / folder / ".lock").symlink_to(tmp_path / "precious")
        else:
            pipe(tmp_path / folder / ".lock")
        with pytest.raises(ValueError, match=r"\.lock is no file of this folder"), artefact.owned():
            pass
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_checkpoint_without_its_parts(tmp_path):
    checkpoints = Checkpoints(tmp_path, {"a": 1}, 5)
    whole = {"step": 3, "history": [], "seconds": [0.0, 0.0], "parts": {}}
    checkpoints.save(3, whole)
    assert checkpoints.latest() is not None
    for number, change in enumerate(
        [{"step": "x"}, {"step": -1}, {"history": [1]}, {"seconds": None}, {"parts": []}], 4
    ):
        checkpoints.save(number, {**whole, **change})
    checkpoints.keep = 50
    pipe(tmp_path / "step_000000099.pth")
    latest = checkpoints.latest()
    assert latest is None or latest["step"] == 3
    assert len(damaged_checkpoints(checkpoints.paths())) >= 4
