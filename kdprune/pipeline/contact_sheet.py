"""A contact sheet: for some classes, the hardest, the easiest, kept and dropped images.

Shapes: N samples of the unpruned training set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kdprune.data.counter import key
from kdprune.data.images import ImageError, to_array
from kdprune.data.sources.base import Source
from kdprune.files import write_whole
from kdprune.pipeline.describe import Described
from kdprune.selectors.common.order import first_by_hash

TILE, GAP, FRAME = 64, 4, 3  # pixels: of an image, between two, of the line under it
MARGIN, HEADER, LABEL, BETWEEN = 16, 68, 132, 20
COLUMNS, ROWS = 6, 12  # images of a kind, classes
KEPT, DROPPED, INK, FAINT, PAPER = "#2a78d6", "#b9b7ae", "#0b0b0b", "#6b6a63", "#fcfcfb"
KINDS = {
    "hardest": "of the class, from the hardest",
    "easiest": "of the class, from the easiest",
    "kept": "drawn at random",
    "dropped": "drawn at random",
}


def contact_sheet(source: Source, described: Described, difficulty_N: np.ndarray, path: Path) -> None:
    """Write a PNG with a row for each class, or for the classes from the least to the most kept if there are many.

    Args:
        source: the training split, with images of any size and mode.
        described: the subset.
        difficulty_N: higher is harder, NaN where it is not known.
        path: of the PNG.
    """
    rows = _rows(source, described)
    width = 2 * MARGIN + LABEL + len(KINDS) * (COLUMNS * (TILE + GAP) - GAP) + (len(KINDS) - 1) * BETWEEN
    row_height = TILE + FRAME + 3 * GAP
    sheet = Image.new("RGB", (width, 2 * MARGIN + HEADER + len(rows) * row_height), PAPER)
    draw = ImageDraw.Draw(sheet)
    _head(draw, described, len(rows), source)
    for row, (name, members) in enumerate(rows):
        top = MARGIN + HEADER + row * row_height
        kept = int(described.is_kept[members].sum())
        draw.text((MARGIN, top + 14), _cut(name, _font(14), LABEL - 8), INK, font=_font(14))
        draw.text((MARGIN, top + 34), f"{kept:,} of {len(members):,} kept", FAINT, font=_font(11))
        for kind, ids in enumerate(examples(members, described, difficulty_N).values()):
            for column, sample_id in enumerate(ids):
                left = _left(kind) + column * (TILE + GAP)
                sheet.paste(_tile(source, int(sample_id)), (left, top))
                colour = KEPT if described.is_kept[sample_id] else DROPPED
                draw.rectangle((left, top + TILE + 1, left + TILE - 1, top + TILE + FRAME), fill=colour)
    write_whole(path, lambda file: sheet.save(file, format="PNG", optimize=True))


def examples(members: np.ndarray, described: Described, difficulty_N: np.ndarray) -> dict[str, np.ndarray]:
    """Sample ids of each kind, at most COLUMNS of each."""
    known = members[~np.isnan(difficulty_N[members])]
    order = known[np.argsort(difficulty_N[known], kind="stable")]
    is_kept = described.is_kept[members]
    return {
        "hardest": order[::-1][:COLUMNS],
        "easiest": order[:COLUMNS],
        "kept": _drawn(members[is_kept]),
        "dropped": _drawn(members[~is_kept]),
    }


def _drawn(ids: np.ndarray) -> np.ndarray:
    return ids[first_by_hash(key(0, "contact sheet"), ids, min(COLUMNS, len(ids)))]


def _rows(source: Source, described: Described) -> list[tuple[str, np.ndarray]]:
    """Names of classes and the sample ids of each; one row of all samples where there are no labels."""
    present = np.unique(source.labels[source.labels >= 0])
    if not len(present):
        return [("all", np.arange(len(source)))]
    if len(present) > ROWS:
        sizes = np.bincount(source.labels[source.labels >= 0])[present]
        order = present[np.argsort(described.counts_C[present] / sizes, kind="stable")]
        present = order[np.linspace(0, len(order) - 1, ROWS).round().astype(int)]
    return [(source.classes[label], np.flatnonzero(source.labels == label)) for label in present]


def _head(draw: ImageDraw.ImageDraw, described: Described, rows: int, source: Source) -> None:
    subset, labelled = described.subset, len(np.unique(source.labels[source.labels >= 0]))
    text = f"{described.name}: {len(subset.ids):,} of {subset.total:,} samples kept"
    if labelled > rows:
        text += f"; {rows} of {labelled:,} classes, from the least to the most kept"
    draw.text((MARGIN, MARGIN - 4), text, INK, font=_font(16))
    place = _left(len(KINDS) - 1) + COLUMNS * (TILE + GAP) - GAP - 150
    for colour, word in ((KEPT, "kept"), (DROPPED, "dropped")):
        draw.rectangle((place, MARGIN + 5, place + 18, MARGIN + 5 + FRAME), fill=colour)
        draw.text((place + 24, MARGIN - 2), word, FAINT, font=_font(12))
        place += 76
    for kind, (word, how) in enumerate(KINDS.items()):
        draw.text((_left(kind), MARGIN + 26), word, INK, font=_font(14))
        draw.text((_left(kind), MARGIN + 44), how, FAINT, font=_font(11))


def _left(kind: int) -> int:
    return MARGIN + LABEL + kind * (COLUMNS * (TILE + GAP) - GAP + BETWEEN)


def _tile(source: Source, sample_id: int) -> Image.Image:
    """The whole image in a square; small ones are enlarged by whole pixels."""
    tile = Image.new("RGB", (TILE, TILE), "#eceae3")
    try:
        image = Image.fromarray(to_array(source[sample_id], 3))
    except ImageError:
        ImageDraw.Draw(tile).text((4, TILE // 2 - 8), "unreadable", FAINT, font=_font(10))
        return tile
    scale = TILE / max(image.size)
    if scale >= 1:
        size, how = (int(scale) * image.width, int(scale) * image.height), Image.Resampling.NEAREST
    else:
        size, how = (max(1, round(scale * image.width)), max(1, round(scale * image.height))), Image.Resampling.LANCZOS
    image = image.resize(size, how)
    tile.paste(image, ((TILE - image.width) // 2, (TILE - image.height) // 2))
    return tile


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib  # it brings a font along that has most alphabets

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), size)
