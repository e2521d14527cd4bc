"""A student as one graph, uint8 images in and logits out: ONNX, and PyTorch's own exported programs."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from kdprune.export.student import COMPARED, TRACED, Deployed, images_for
from kdprune.models.spec import BuiltModel

INPUT, OUTPUT = "images", "logits"


def to_torch_export(built: BuiltModel, deployed: Deployed) -> tuple[bytes, list[Tensor]]:
    """A `.pt2` file for `torch.export.load`, and its logits of the images that are compared."""
    with _quiet():
        batch = torch.export.Dim("batch")
        program = torch.export.export(deployed, (images_for(built, TRACED),), dynamic_shapes=({0: batch},))
        content = io.BytesIO()
        torch.export.save(program, content)
        content.seek(0)
        module = torch.export.load(content).module()
        return content.getvalue(), [module(images_for(built, count)) for count in COMPARED]


def to_onnx(built: BuiltModel, deployed: Deployed) -> tuple[bytes, list[Tensor]]:
    """An ONNX file, and its logits by onnxruntime.

    Raises:
        ValueError: the packages for it are not installed.
    """
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]:
        raise ValueError(f"--to onnx needs {', '.join(missing)}: pip install 'kdprune[onnx]'")
    import onnxruntime

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.onnx"
        batch = torch.export.Dim("batch")
        torch.onnx.export(
            deployed, (images_for(built, TRACED),), path, dynamo=True, external_data=False, verbose=False,
            input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes=({0: batch},),
        )  # fmt: skip
        content = path.read_bytes()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    batches = [images_for(built, count).numpy() for count in COMPARED]
    return content, [torch.from_numpy(session.run([OUTPUT], {INPUT: batch})[0]) for batch in batches]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters tell of their passes, which is for those who write exporters."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
