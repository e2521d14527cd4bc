"""`kdprune export` and `kdprune predict`: a student for elsewhere, and what it says of images."""

from __future__ import annotations

import json
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table
from rich.text import Text

from kdprune.cli.console import console
from kdprune.cli.unused import warn_of_unused
from kdprune.config.conditions import only

KINDS = ("onnx", "torch-export", "hub-folder")


def add_export_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="Run directory; for a graph also RUN@EPOCH, or a weights file.")
    parser.add_argument(
        "--to", type=str, required=True,
        help="onnx or torch-export: one file, uint8 images N×C×H×W in, logits out. hub-folder: weights, timm's "
        f"configuration and a model card, for timm.create_model('local-dir:FOLDER'). One of {', '.join(KINDS)}.",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=str, help="File or folder (default: student.onnx, student.pt2 or hub in the run directory)."
    )
    parser.add_argument(
        "--tolerance", type=float, default=1e-4,
        help="Largest difference to the student's logits, over the largest of these, that is accepted.",
    )  # fmt: skip
    parser.add_argument("--license", type=str, help="For the model card, by the hub's names, such as apache-2.0.")


def add_predict_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="Run directory, RUN@EPOCH, or a weights file.")
    parser.add_argument("images", type=str, nargs="+", help="Image files, and folders of them.")
    parser.add_argument("--top", type=int, default=5, help="Classes of each image.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object an image.")


def print_export(options: Namespace) -> None:
    """Export, and print where to and how exactly.

    Raises:
        ValueError, OSError: as `kdprune.export.export.export`.
    """
    from kdprune.export.export import export

    warn_of_unused(options, {"license": (only(lambda o: o.to == "hub-folder", "only a hub-folder has a model card"),)})
    output = None if options.output is None else Path(options.output)
    done = export(options.run, options.to, output, options.tolerance, options.license)
    found = done.difference
    print(f"{done.path}: its logits differ by at most {found.largest:.2g}, {found.relative:.2g} of the largest")


def print_predictions(options: Namespace) -> int:
    """Print classes and probabilities; of an image that cannot be read, why.

    Returns:
        exit status: 1 if an image could not be read.
    """
    from kdprune.export.predict import predict

    if "" in options.images:
        raise ValueError("an empty name given, allowed are image files and folders")
    found = list(predict(options.run, [Path(image) for image in options.images], options.top))
    if options.json:
        for one in found:
            answer = {"error": one.error} if one.error else {"classes": one.classes, "probabilities": one.probabilities}
            print(json.dumps({"path": str(one.path), **answer}, ensure_ascii=False))
    else:
        table = Table("image", "classes, by their probability")
        for one in found:
            said = "   ".join(f"{name} {p:.1%}" for name, p in zip(one.classes, one.probabilities, strict=True))
            table.add_row(Text(str(one.path)), Text(one.error, style="red") if one.error else Text(said))
        console(120).print(table)
    return int(any(one.error for one in found))
