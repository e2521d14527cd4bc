"""Classes and probabilities of image files, by a run's student.

Shapes: N images, C channels, H×W pixels of the student's input, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from kdprune import bars
from kdprune.data.framing import frame_image, framed_channels
from kdprune.data.images import ImageError, open_image, to_array
from kdprune.data.sources.folder import EXTENSIONS
from kdprune.export.student import load_deployed
from kdprune.models.inputs import Inputs, with_channels
from kdprune.models.spec import BuiltModel, InputSpec
from kdprune.outside import open_regular

BATCH = 64
GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")  # modes of Pillow's without colour


@dataclass(frozen=True)
class Prediction:
    """What a student says of an image.

    Attributes:
        path: the image.
        classes: names of the likeliest classes, the likeliest first; their numbers where they have no names.
        probabilities: of these classes.
        error: why there is none.
    """

    path: Path
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str | None = None


def predict(run: str, images: Sequence[Path], top: int = 5) -> Iterator[Prediction]:
    """Predict images as `kdprune evaluate` does: cut and scaled by the student's own rules, in float32, on the CPU.

    Args:
        run: a run directory, RUN@EPOCH, or a weights file.
        images: files, and folders, of which all images are taken, those in folders below, too.
        top: how many classes.

    Returns:
        Of each image, in the order given; those of a folder by name.

    Raises:
        FileNotFoundError, ValueError: no such run, file or folder; a folder without images; top below 1.
    """
    if top < 1:
        raise ValueError(f"--top: {top} given, allowed is 1 or more")
    files = list(_files(images))
    built, _ = load_deployed(run)
    return _predict(built, files, min(top, built.num_classes))


def _files(given: Sequence[Path]) -> Iterator[Path]:
    for path in given:
        if path == Path():
            raise ValueError("no image is named by an empty text; the current folder is .")
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS and file.is_file())
            if not found:
                raise ValueError(f"{path} holds no images (allowed: {', '.join(sorted(EXTENSIONS))})")
            yield from found
        elif path.is_file():
            yield path
        else:
            raise FileNotFoundError(f"no such image or folder: {path}")


def _predict(built: BuiltModel, files: list[Path], top: int) -> Iterator[Prediction]:
    inputs = Inputs(built.spec)
    names = built.classes or [str(number) for number in range(built.num_classes)]
    bar = tqdm(total=len(files), unit="image", desc="predicting", disable=not bars.shown(), leave=False)
    with bar:
        for start in range(0, len(files), BATCH):
            chunk = files[start : start + BATCH]
            pixels = [_pixels(file, built.spec) for file in chunk]
            readable = [array for array in pixels if not isinstance(array, str)]
            answers = iter(_probabilities(built.model, inputs, readable, top))
            for file, array in zip(chunk, pixels, strict=True):
                bar.update()
                if isinstance(array, str):
                    yield Prediction(file, error=array)
                    continue
                values, ids = next(answers)
                yield Prediction(file, tuple(names[n] for n in ids), tuple(values))


def _probabilities(
    model: nn.Module, inputs: Inputs, arrays_HWC: list[np.ndarray], top: int
) -> Iterator[tuple[list[float], list[int]]]:
    if not arrays_HWC:
        return
    images_NCHW: Tensor = torch.from_numpy(np.stack(arrays_HWC)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        values, ids = model(inputs(images_NCHW)).float().softmax(1).topk(top)
    yield from zip(values.tolist(), ids.tolist(), strict=True)


def _pixels(file: Path, spec: InputSpec) -> np.ndarray | str:
    """An image at the student's size, uint8 H×W×C; or why it cannot be read."""
    try:
        with open_regular(file) as opened:
            image = open_image(opened)
            image.load()
            # Scaled first and made grey then, as for evaluation.
            array = to_array(image, 1 if image.mode in GREY else 3)
    except (ImageError, OSError, ValueError, SyntaxError) as error:  # Pillow raises many kinds on a damaged file
        return str(error)
    array = np.repeat(array, framed_channels(array.shape[2], spec) // array.shape[2], axis=2)
    framed_HWC = frame_image(Image.fromarray(array[..., 0] if array.shape[2] == 1 else array), spec)
    images_NCHW = torch.from_numpy(framed_HWC).permute(2, 0, 1)[None]
    return with_channels(images_NCHW, spec.channels)[0].permute(1, 2, 0).numpy()
