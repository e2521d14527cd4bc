"""Real images: CIFAR-10's parquet from the command line, and a folder of mixed images with timm's models."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.torch
import timm
from helpers import metrics, only_run, options, script, train
from PIL import Image

import kdprune.models  # noqa: F401  registers kdprune's own models in timm


@pytest.mark.slow
def test_a_hundredth_of_cifar10_from_the_command_line(shared_data, tmp_path):
    status, table, said = script(
        "train.py",
        options(
            output=tmp_path, data__dataset=f"hfds/{shared_data / 'cifar10'}", subset__keep_fraction=0.01,
            subset__balanced="true", student__model="mlp_64", teacher__models="cifar_resnet8",
            teacher__train_fraction=0.02, teacher__train__epochs=1, train__epochs=2, train__batch_size=50,
            data__augment="crop(4)+flip+cutout(8)",
        ),
    )  # fmt: skip
    assert status == 0, said
    run = only_run(tmp_path)
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["kept"], summary["total"], summary["steps"]) == (500, 50_000, 20)
    assert 0.05 < summary["test_top1"] < 1
    (teacher,) = summary["teacher"]
    assert teacher["training"]["keep_fraction"] == 0.02
    assert 0.05 < teacher["test_top1"] < 1
    assert [row["epoch"] for row in metrics(run)] == ["1", "2"]
    model = timm.create_model("mlp_64", num_classes=10, in_chans=3, img_size=32)
    model.load_state_dict(safetensors.torch.load_file(run / "student.safetensors"), strict=True)
    assert "student mlp_64 with KD" in table


@pytest.fixture
def folder(tmp_path):
    """Three classes of blobs, each brightest in its own channel, in files of many sizes, modes and formats."""
    random = np.random.default_rng(0)
    modes = ["RGB", "RGBA", "L", "P", "CMYK"]
    for i in range(75):
        label = i % 3
        height, width = random.integers(40, 120, 2)
        pixels = random.integers(0, 60, (height, width, 3))
        pixels[..., label] += 150
        mode = modes[i % len(modes)] if label else "RGB"
        place = tmp_path / "images" / ("train" if i < 60 else "val") / f"class{label}"
        place.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels.astype(np.uint8)).convert(mode)
        image.save(place / (f"{i}.jpg" if mode in ("RGB", "CMYK") else f"{i}.png"))
    return tmp_path / "images"


@pytest.mark.parametrize("model", [pytest.param("test_resnet", marks=pytest.mark.slow), "test_vit"])
def test_images_of_mixed_sizes_with_timms_models(folder, tmp_path, model):
    """The large-image path: workers decode, and teacher and student each get their own input."""
    taught, teacher = train(
        tmp_path,
        {
            "data.dataset": str(folder), "data.memory_gb": 0.0, "data.workers": 2, "data.image_size": 64,
            "data.augment": "rrc(0.3)+flip", "student.model": "test_resnet", "train.steps": 6, "train.batch_size": 20,
        },
    )  # fmt: skip
    size = {"test_resnet": 64, "test_vit": 160}[model]
    summary, run = train(
        tmp_path,
        {
            "data.dataset": str(folder), "data.memory_gb": 0.0, "data.workers": 2, "data.image_size": size,
            "data.augment": "rrc(0.3)+flip+jitter+mixup", "student.model": model, "teacher.models": str(teacher),
            "subset.keep_fraction": 0.5, "subset.balanced": True, "train.steps": 6, "train.batch_size": 20,
            "train.opt": "adamw", "train.lr": 1e-3, "train.precision": "auto",
        },
    )  # fmt: skip
    assert taught["total"] == 60
    assert summary["kept"] == 30
    assert summary["teacher"][0]["test_top1"] == taught["test_top1"]
    built = timm.create_model(model, num_classes=3, **({"img_size": size} if model == "test_vit" else {}))
    built.load_state_dict(safetensors.torch.load_file(run / "student.safetensors"), strict=True)


@pytest.mark.slow
def test_real_photographs_from_parquet(shared_data, tmp_path):
    """imagenette5: too large for a store within this budget, so the workers decode."""
    summary, _ = train(
        tmp_path,
        {
            "data.dataset": f"hfds/{shared_data / 'imagenette5'}", "data.memory_gb": 0.01, "data.workers": 0,
            "data.image_size": 64, "data.augment": "rrc+flip", "student.model": "test_resnet", "train.steps": 3,
            "train.batch_size": 16, "subset.keep_fraction": 0.01,
        },
    )  # fmt: skip
    assert summary["total"] == 4809
    assert summary["kept"] == 48
    assert 0 <= summary["test_top1"] <= 1


def test_an_unreadable_image_fails_the_run_or_is_left_out_and_recorded(folder, tmp_path):
    damaged = sorted((folder / "train" / "class1").iterdir())[3]
    damaged.write_bytes(damaged.read_bytes()[:60])
    settings = {
        "data.dataset": str(folder), "data.memory_gb": 0.0, "data.workers": 0, "data.image_size": 64,
        "student.model": "test_resnet", "train.steps": 3, "train.batch_size": 20,
    }  # fmt: skip
    with pytest.raises(ValueError, match=damaged.name):
        train(tmp_path, settings)
    summary, run = train(tmp_path, {**settings, "data.bad_images": "drop"})
    assert summary["dropped"] == 1
    assert summary["kept"] == 59
    subset = json.loads((run / "subset.json").read_text())
    assert len(subset["dropped"]) == 1
    assert subset["dropped"][0] not in subset["ids"]
