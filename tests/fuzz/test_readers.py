"""Readers of files: whatever a file holds, it is read, or refused by the errors that the reader documents."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from fuzz.inputs import VALUES, accepts, changed, damaged, fuzzed
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kdprune.artefact import damage, read_record
from kdprune.data.images import ImageError, decode, to_array
from kdprune.data.jpeg import pixels_of
from kdprune.data.scores import Scores, load_scores
from kdprune.data.sources import open_source
from kdprune.data.subset import Subset, load_subset
from kdprune.models.build import build_student, load_model, save_model
from kdprune.models.mask import Mask
from kdprune.models.mask_file import load_mask, save_mask
from kdprune.models.weights import METADATA_KEY, read_header, read_weights
from kdprune.outside import parse_json
from kdprune.pipeline.lineage import lineage
from kdprune.pipeline.verify import verify_one
from kdprune.records.dynamics import About as DynamicsAbout
from kdprune.records.dynamics import Dynamics, DynamicsFiles
from kdprune.records.rows import About as RowsAbout
from kdprune.records.rows import Column, RowFiles, RowRecord
from kdprune.runs.reading import read_config, read_summary
from kdprune.scorers.common.observation import observe
from kdprune.teachers.cache import TARGETS
from kdprune.training.checkpoint import Checkpoints, damaged_checkpoints


@pytest.fixture(scope="module")
def run(digits_teacher, tmp_path_factory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("fuzzed") / "run"
    shutil.copytree(digits_teacher, folder)
    return folder


def fuzz(path: Path, inputs: st.SearchStrategy, read: Callable[[], Any], *errors: type[Exception]) -> None:
    """Write inputs in the place of a file, and read them."""

    @fuzzed
    @given(inputs)
    def one(content: bytes) -> None:
        path.write_bytes(content)
        accepts(read, *errors)

    before = path.read_bytes() if path.exists() else None
    try:
        one()
    finally:
        if before is not None:
            path.write_bytes(before)


def json_inputs(path: Path) -> st.SearchStrategy[bytes]:
    content = json.loads(path.read_bytes())
    texts = (changed(content) | VALUES).map(lambda value: json.dumps(value).encode())
    return texts | damaged(path.read_bytes())


READERS: dict[str, list[tuple[str, Callable[[Path], Any]]]] = {
    "summary.json": [("read_summary", read_summary), ("show", lineage)],
    "artefact.json": [("record", read_record), ("damage", damage), ("verify", verify_one), ("show", lineage),
                      ("observe", lambda run: observe([run]))],
    "subset.json": [("subset", lambda run: load_subset(run / "subset.json"))],
    "dynamics/dynamics.json": [("dynamics", lambda run: Dynamics([run]).read("entropy", 0, 10))],
}  # fmt: skip


@pytest.mark.parametrize(("file", "reader"), [(file, name) for file, all_of in READERS.items() for name, _ in all_of])
def test_json_files_of_a_run(run, tmp_path, file, reader):
    folder = tmp_path / "run"  # without weights, so that reading its digests is quick
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.f16"))
    if reader == "dynamics" or not (folder / file).exists():
        about = DynamicsAbout("training", 1, 20, "f", ("a",), 20, "m")
        (folder / "dynamics").mkdir(exist_ok=True)
        DynamicsFiles(folder / "dynamics", about).create(np.zeros(20))
    read = dict(READERS[file])[reader]
    fuzz(folder / file, json_inputs(folder / file), lambda: read(folder), FileNotFoundError)


def test_json(tmp_path):
    @fuzzed
    @given(VALUES.map(lambda value: json.dumps(value).encode()).flatmap(damaged) | st.binary(max_size=50))
    def one(content: bytes) -> None:
        accepts(lambda: parse_json(content, "it"))

    one()


def test_config_of_a_run(run):
    content = yaml.safe_load((run / "config.yaml").read_text())
    texts = changed(content).map(lambda value: yaml.safe_dump(value).encode())
    fuzz(run / "config.yaml", texts | damaged((run / "config.yaml").read_bytes()), lambda: read_config(run))


def test_rows_of_a_record(tmp_path):
    about = RowsAbout("embeddings", 30, {"features": Column(4)}, "f", ("a", "b"), {"model": "m"})
    files = RowFiles(tmp_path, about)
    files.create(np.zeros(30))
    files.write(0, {"features": np.zeros((30, 4), np.float32)})
    (tmp_path / "artefact.json").write_text(json.dumps({"what": "a record", "key": {}, "files": {}}))

    def read() -> None:
        RowRecord(tmp_path).rows("features")[0:10]
        observe([tmp_path])

    for name in ("labels.npy", "features_00000.npy"):
        fuzz(tmp_path / name, damaged((tmp_path / name).read_bytes()), read, FileNotFoundError)
    fuzz(tmp_path / "rows.json", json_inputs(tmp_path / "rows.json"), read, FileNotFoundError)


def test_cached_targets(tmp_path):
    (tmp_path / "view_00000.bin").write_bytes(bytes(4096 + 20 * 8))
    record = {"what": TARGETS, "key": {"samples": 20, "teacher": {"weights": "x"}}}
    (tmp_path / "artefact.json").write_text(json.dumps(record))
    fuzz(tmp_path / "artefact.json", json_inputs(tmp_path / "artefact.json"), lambda: verify_one(tmp_path))
    fuzz(tmp_path / "view_00000.bin", damaged(bytes(4096 + 20 * 8)), lambda: verify_one(tmp_path))


def test_a_mask(tmp_path):
    kept = {"conv.weight": torch.rand(4, 3, 3, 3) < 0.5, "fc.weight": torch.rand(3, 5) < 0.5}
    save_mask(tmp_path, Mask(kept, {"head.weight": (2, 2)}, {"pruner": "snip"}))
    fuzz(tmp_path / "mask.json", json_inputs(tmp_path / "mask.json"), lambda: load_mask(tmp_path))
    fuzz(tmp_path / "mask.safetensors", damaged((tmp_path / "mask.safetensors").read_bytes()),
         lambda: load_mask(tmp_path))  # fmt: skip


def test_ids_of_a_subset(tmp_path):
    Subset(np.arange(100_001), 200_000, "f", {}).save(tmp_path / "s.json")
    whole = (tmp_path / "s.ids.npy").read_bytes()
    inputs = damaged(whole[:128]).map(lambda head: head + whole[128:]) | damaged(whole[:400])
    fuzz(tmp_path / "s.ids.npy", inputs, lambda: load_subset(tmp_path / "s.json"))


def test_scores(tmp_path):
    path = tmp_path / "s.parquet"
    scores = Scores(np.arange(20.0), np.arange(20) % 3, "f", "el2n", "high", ("a", "b", "c"), {"observed": ["x"]})
    scores.save(path)
    fuzz(path, damaged(path.read_bytes()), lambda: load_scores(path), FileNotFoundError)
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"kdprune"])

    def with_metadata(value: Any) -> bytes:
        file = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({"kdprune": json.dumps(value)}), file)
        return file.getvalue()

    fuzz(path, changed(about).map(with_metadata), lambda: load_scores(path), FileNotFoundError)


def test_weights_with_a_header(tmp_path):
    path = tmp_path / "w.safetensors"
    save_model(path, build_student("mlp_64", 10, channels=1, image_size=8, mean=(0.3,), std=(0.2,)))
    whole = path.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + size])
    ours = json.loads(header["__metadata__"][METADATA_KEY])

    def assembled(value: Any) -> bytes:
        text = json.dumps(value).encode()
        return struct.pack("<Q", len(text)) + text + whole[8 + size :]

    def with_ours(value: Any) -> bytes:
        return assembled({**header, "__metadata__": {METADATA_KEY: json.dumps(value)}})

    def read() -> None:
        with contextlib.suppress(ValueError):
            read_header(path)
        load_model(path)

    fuzz(path, changed(ours).map(with_ours), read)
    fuzz(path, changed(ours["spec"]).map(lambda spec: with_ours({**ours, "spec": spec})), read)
    arguments = {"drop_rate": 0.1, "global_pool": "avg", "width": 64}
    fuzz(path, changed(arguments).map(lambda given: with_ours({**ours, "model_args": given})), read)
    widths = {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}
    fuzz(path, changed(widths).map(lambda given: with_ours({**ours, "widths": given})), read)
    fuzz(
        path,
        changed(header).map(assembled) | damaged(whole[: 8 + size]).map(lambda head: head + whole[8 + size :]),
        read,
    )


def test_pickled_weights_and_checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path, {"a": 1}, 2)
    checkpoints.save(1, {"step": 1, "history": [], "seconds": [0.0, 0.0], "parts": {"m": {"w": torch.zeros(3)}}})
    path = tmp_path / "step_000000001.pth"
    fuzz(path, damaged(path.read_bytes()), lambda: (checkpoints.latest(), damaged_checkpoints([path])))
    weights = tmp_path / "w.pth"
    torch.save({"state_dict": {"w": torch.zeros(3), "b": torch.ones(2, 2)}, "epoch": 3}, weights)
    fuzz(weights, damaged(weights.read_bytes()), lambda: read_weights(weights))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_images(kind):
    file = io.BytesIO()
    Image.effect_noise((16, 12), 40).convert("RGB").save(file, kind)

    @fuzzed
    @given(damaged(file.getvalue()) | st.binary(max_size=60))
    def one(content: bytes) -> None:
        with contextlib.suppress(ImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            pixels_of(decode(content), 3)

    one()


def test_a_table_of_images(tmp_path):
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "PNG")
    kinds = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": file.getvalue(), "path": None}, {"bytes": None, "path": "x.png"}] * 4, kinds)
    features = {
        "info": {"features": {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b"]}}}
    }
    table = pa.table({"image": images, "label": [0, 1] * 4})

    def with_features(value: Any) -> bytes:
        written = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(value)}), written)
        return written.getvalue()

    def read() -> None:
        source = open_source(f"hfds/{tmp_path}", "train")
        for sample_id in range(min(3, len(source))):
            with contextlib.suppress(ImageError):
                to_array(source[sample_id], 1)

    path = tmp_path / "train.parquet"
    path.write_bytes(with_features(features))
    fuzz(path, damaged(path.read_bytes()) | changed(features).map(with_features), read)
