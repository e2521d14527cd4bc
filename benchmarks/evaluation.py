"""Whether images reach a model as timm's own evaluation brings them: pixels and logits, for ten models.

    python benchmarks/evaluation.py /data/imagenette5/validation.parquet --images 64

Photos of a parquet file (column `image` as the Hugging Face hub has it) go through `timm.data.create_transform` one by
one, and through kdprune twice: decoded by workers, and, cut to squares of 256 px, from a store. The models have random
weights, so that no download decides. Prints a table in Markdown: the share of values that differ by a level or more,
the largest difference in levels of 255, and the norm of the logits' difference over that of timm's logits.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

from kdprune.data.place import Place
from kdprune.data.reader import plain_batches
from kdprune.data.sources import from_indexable
from kdprune.data.split import Split
from kdprune.models.inputs import Inputs
from kdprune.models.spec import InputSpec, own_spec

MODELS = ["resnet50.a1_in1k", "resnet18.tv_in1k", "vit_small_patch16_224.augreg_in21k_ft_in1k",
          "convnext_tiny.fb_in1k", "convnext_tiny.fb_in22k_ft_in1k_384", "efficientnet_b0.ra_in1k",
          "mobilenetv3_large_100.ra_in1k", "swin_tiny_patch4_window7_224.ms_in1k", "inception_v3.tv_in1k",
          "mixer_b16_224.goog_in21k_ft_in1k"]  # fmt: skip
STORED = 256  # px


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parquet", type=Path)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--models", nargs="+", default=MODELS)
    options = parser.parse_args()
    photos = read(options.parquet, options.images)
    squares = [square(photo) for photo in photos]
    print("| model | size | filter | crop | streamed: differ / most / logits | stored: differ / most / logits |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in options.models:
        torch.manual_seed(0)
        model: Any = timm.create_model(name, pretrained=False).eval()
        model.get_classifier().reset_parameters()  # some begin with zeros, and all their logits with them
        spec = own_spec(model, 3, None)
        cells = [compare(model, spec, photos, None), compare(model, spec, squares, stored(squares))]
        height, width = spec.size_HW
        crop = f"{spec.crop_pct} {spec.crop_mode}"
        print(f"| {name} | {height}×{width} | {spec.interpolation} | {crop} | {' | '.join(cells)} |", flush=True)


def read(path: Path, count: int) -> list[Image.Image]:
    """Photos from all over the file, so that all classes are among them."""
    table = pq.read_table(path)
    rows = np.linspace(0, len(table) - 1, count).astype(int)
    encoded = [table.column("image")[int(row)].as_py()["bytes"] for row in rows]
    return [Image.open(io.BytesIO(data)).convert("RGB") for data in encoded]


def square(photo: Image.Image) -> Image.Image:
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    return photo.crop((left, top, left + side, top + side)).resize((STORED, STORED), Image.Resampling.BICUBIC)


def stored(squares: list[Image.Image]) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(image) for image in squares])).permute(0, 3, 1, 2).contiguous()


@torch.inference_mode()
def compare(model: nn.Module, spec: InputSpec, photos: list[Image.Image], store: Tensor | None) -> str:
    """What differs between our inputs and timm's."""
    transform = create_transform(**resolve_data_config({}, model=model), is_training=False)
    source = from_indexable([(photo, 0) for photo in photos], "photos", "test")
    split = Split(source, 3, store, np.array([], dtype=np.int64))
    inputs, levels = Inputs(spec), 255 * torch.tensor(spec.std)[:, None, None]
    off, ours, theirs = [], [], []
    batches = plain_batches(split, np.arange(len(photos)), spec, Place(torch.device("cpu")))
    mine = torch.cat([inputs(batch.images) for batch in batches])
    for mine_N, photos_N in zip(mine.split(16), [photos[i : i + 16] for i in range(0, len(photos), 16)], strict=True):
        expected = torch.stack([transform(photo) for photo in photos_N])
        off.append(((mine_N - expected).abs() * levels).flatten())
        ours.append(model(mine_N))
        theirs.append(model(expected))
    off_V = torch.cat(off)
    logits = (torch.cat(ours) - torch.cat(theirs)).norm() / torch.cat(theirs).norm()
    return f"{100 * (off_V > 0.5).float().mean():.3f}% / {off_V.max():.0f} / {logits:.1e}"


if __name__ == "__main__":
    main()
