"""`kdprune shrink`: a student without some of its channels, and the table of what is left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table

from kdprune.cli.console import console
from kdprune.files import in_bytes

if TYPE_CHECKING:
    from kdprune.pipeline.shrink import Shrunk


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="Run directory, RUN@EPOCH, or a weights file.")
    parser.add_argument("--output", type=str, required=True, help="Folder for student.safetensors.")
    parser.add_argument("--channels", type=float, default=0.5, help="Channels that stay / all, in (0, 1).")
    parser.add_argument(
        "--importance", type=str, default="magnitude",
        help="Which stay: those of the largest weights (magnitude) or factors of BatchNorm (bn_scale), or random ones.",
    )  # fmt: skip
    parser.add_argument(
        "--scope", type=str, default="global",
        help="Whether the highest scores of the whole network stay (global), or the same part of each layer (layer).",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="Of random channels, and of the order of equal scores.")


def print_shrunk(options: Namespace) -> None:
    """Shrink, and print what is left.

    Raises:
        ValueError, OSError: as `kdprune.pipeline.shrink.shrink`.
    """
    from kdprune.pipeline.shrink import shrink

    output = Path(options.output)
    done = shrink(options.run, output, options.channels, options.importance, options.scope, options.seed)
    _print(done)


def _print(done: Shrunk) -> None:
    table = Table("channels of", "before", "after", "")
    for coupled, left in zip(done.coupled, done.left, strict=True):
        others = f" and {len(coupled.others)} more" if coupled.others else ""
        why = f"left whole: they pass {coupled.held}" if coupled.held else ""
        table.add_row(f"{coupled.layer}{others}", f"{coupled.channels:,}", f"{left:,}", why)
    table.add_section()
    for what, (before, after) in (("parameters", done.parameters), ("multiply-adds an image", done.multiply_adds)):
        table.add_row(what, f"{before:,}", f"{after:,}", f"{after / before:.1%}")
    before, after = done.bytes
    table.add_row("bytes", in_bytes(before), in_bytes(after), f"{after / before:.1%}")
    for column in table.columns[1:3]:
        column.justify = "right"
    console(110).print(table)
    console(110).print(f"{done.path}: to be fine-tuned, by --student.checkpoint")
