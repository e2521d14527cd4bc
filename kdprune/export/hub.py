"""A folder that timm reads: `timm.create_model("local-dir:FOLDER")`, or `hf-hub:…` once it is uploaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import save_for_hf
from torch import Tensor

from kdprune.export.student import COMPARED, images_for
from kdprune.files import write_text
from kdprune.models.inputs import Inputs
from kdprune.models.spec import BuiltModel


def write_hub_folder(folder: Path, built: BuiltModel, card: str, license: str | None = None) -> list[Tensor]:
    """Write weights, timm's configuration and a model card.

    Args:
        license: of the weights; timm's own configuration would state that of the weights that it has for the model.

    Returns:
        The logits of the images that are compared, by a model that timm has built from the folder.
    """
    spec = built.spec
    data_config = {
        "input_size": (spec.channels, *spec.size_HW), "mean": spec.mean, "std": spec.std,
        "interpolation": spec.interpolation, "crop_pct": spec.crop_pct, "crop_mode": spec.crop_mode,
    }  # fmt: skip
    model_config: dict[str, Any] = {"pretrained_cfg": {"license": license}}
    if built.classes:
        model_config["label_names"] = built.classes
    save_for_hf(built.model, str(folder), model_config=model_config, safe_serialization=True, data_config=data_config)
    write_text(folder / "README.md", card)
    model, inputs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval(), Inputs(spec)
    with torch.inference_mode():
        return [model(inputs(images_for(built, count))) for count in COMPARED]
