"""Weights in files: the header says what was written, and whoever reads them compares."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdprune.models.build import build_student, build_teacher, load_model, save_model
from kdprune.models.hashing import weights_hash
from kdprune.models.weights import METADATA_KEY, WEIGHTS_HASH, read_header, read_weights

GREY = {"channels": 1, "image_size": 8, "mean": (0.3,), "std": (0.2,)}
NAME = "cifar_resnet8"


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "student.safetensors"
    save_model(path, build_student(NAME, 10, **GREY))
    return path


def test_one_hash_for_a_model_and_for_its_file(file):
    built = load_model(file)
    state, header = read_weights(file)
    assert header[WEIGHTS_HASH] == weights_hash(state) == weights_hash(built.model.state_dict())
    assert weights_hash(dict(reversed(state.items()))) == header[WEIGHTS_HASH]


def test_every_part_of_a_state_counts():
    state = {"a": torch.zeros(4), "b": torch.tensor(3), "c": torch.zeros(2, dtype=torch.bfloat16), "d": torch.empty(0)}
    others = [
        {**state, "a": torch.zeros(2, 2)},
        {**state, "a": torch.zeros(4, dtype=torch.int32)},
        {**state, "a": -torch.zeros(4)},
        {**state, "b": torch.tensor(4)},
        {**state, "c": torch.ones(2, dtype=torch.bfloat16)},
        {"A": state["a"], **{name: state[name] for name in "bcd"}},
        {name: state[name] for name in "abc"},
    ]
    assert len({weights_hash(one) for one in [state, *others]}) == len(others) + 1
    assert weights_hash({**state, "a": torch.zeros(4, 2)[:, 0]}) == weights_hash(state)  # however it lies in memory


@settings(max_examples=300)
@given(st.data())
def test_a_changed_byte_anywhere_in_the_tensors_is_found(file, tmp_path_factory, data):
    content = bytearray(file.read_bytes())
    begin = 8 + struct.unpack("<Q", content[:8])[0]
    position = data.draw(st.integers(begin, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    damaged = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match=f"{damaged} is damaged: its weights are not those that were written"):
        read_weights(damaged)


def test_a_damaged_file_is_no_teacher_no_student_and_no_run(file, tmp_path):
    damaged = tmp_path / "student.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 64
    damaged.write_bytes(content)
    for use in (
        lambda: load_model(damaged),
        lambda: build_teacher(str(damaged), 10, **GREY),
        lambda: build_teacher(NAME, 10, checkpoint=damaged, **GREY),
        lambda: build_student(NAME, 10, checkpoint=damaged, **GREY),
    ):
        with pytest.raises(ValueError, match=f"{damaged} is damaged"):
            use()


def test_a_file_without_a_hash_loads_as_before(file, tmp_path):
    """Of an older version, or of somebody else."""
    state, header = read_weights(file)
    del header[WEIGHTS_HASH]
    older, foreign = tmp_path / "older.safetensors", tmp_path / "foreign.safetensors"
    safetensors.torch.save_file(state, older, metadata={METADATA_KEY: json.dumps(header)})
    safetensors.torch.save_file(state, foreign)
    assert weights_hash(load_model(older).model.state_dict()) == weights_hash(state)
    assert weights_hash(read_weights(foreign)[0]) == weights_hash(state)
    assert read_header(foreign) is None
