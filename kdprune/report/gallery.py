"""Images of a selection, for the page: for each class the hardest, the easiest, kept and dropped ones."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from kdprune.data.dataset import cache_root
from kdprune.data.fingerprint import identify
from kdprune.data.images import ImageError, to_array
from kdprune.data.sources import open_source
from kdprune.data.sources.base import Source
from kdprune.pipeline.contact_sheet import KINDS, ROWS, examples
from kdprune.pipeline.describe import Described, counts
from kdprune.report.selections import Selection

log = logging.getLogger("kdprune")

MOST = 3  # galleries
LARGEST, SMALL = 64, 20  # pixels of an image's longer side: at most; below which it is stored exactly


@dataclass(frozen=True)
class Strip:
    """Images of a class and a kind, beside each other in one picture.

    Attributes:
        kind: hardest, easiest, kept or dropped.
        picture: a data: URL; "" where there is no such image.
        is_kept: of each image.
        names: of each image, for a person.
    """

    kind: str
    picture: str
    is_kept: Sequence[bool]
    names: Sequence[str]


@dataclass(frozen=True)
class Gallery:
    """Images of one selection: of each class its name, how many are kept, and the strips."""

    label: str
    series: Sequence[int]
    rows: Sequence[tuple[str, str, Sequence[Strip]]]
    left_out: str


@dataclass
class Galleries:
    """Makes galleries, and remembers them, since a report that follows a sweep shows the same ones again."""

    _made: dict[str, Gallery] = field(default_factory=dict)
    _sources: dict[str, Source] = field(default_factory=dict)

    def of(self, selections: Sequence[Selection]) -> tuple[list[Gallery], str]:
        """Galleries of a few selections, and why there are none or no more."""
        chosen = _chosen(selections)
        if not chosen:
            return [], "all runs keep all samples"
        found: list[Gallery] = []
        for selection in chosen[:MOST]:
            id = f"{selection.subset.hash} {'' if selection.scores is None else selection.scores.hash}"
            try:
                if id not in self._made:
                    self._made[id] = _gallery(selection, self._source(selection))
            except (ValueError, OSError, ImportError) as error:
                log.info("no gallery of %s: %s", selection.label, error)
                return found, f"the images cannot be read: {error}"
            found.append(self._made[id])
        left = len(selections) - len(found)
        return found, f"{left} further selections, such as {selections[-1].label}" if left else ""

    def _source(self, selection: Selection) -> Source:
        """The training images that the subset belongs to."""
        values, fingerprint = selection.entry.values, selection.subset.fingerprint
        if fingerprint not in self._sources:
            source = open_source(str(values["data.dataset"]), "train", cache_root(values.get("data.root")))
            if identify(source).fingerprint != fingerprint:
                raise ValueError(f"{values['data.dataset']} is not the data set of the runs any more")
            self._sources[fingerprint] = source
        return self._sources[fingerprint]


def _chosen(selections: Sequence[Selection]) -> list[Selection]:
    """One of each scorer and selector, at its smallest keep fraction; those without scores last."""
    found: dict[str, Selection] = {}
    for selection in sorted(selections, key=lambda one: one.keep):
        found.setdefault(selection.label.rpartition(" · ")[0], selection)
    return sorted(found.values(), key=lambda one: one.scores is None)


def _gallery(selection: Selection, source: Source) -> Gallery:
    """Shapes: N samples, C classes."""
    subset, scores, labels_N = selection.subset, selection.scores, source.labels
    is_kept_N = np.zeros(subset.total, dtype=bool)
    is_kept_N[subset.ids] = True
    difficulty_N = np.full(subset.total, np.nan) if scores is None else scores.difficulty
    size_C, kept_C = (counts(y, len(source.classes)) for y in (labels_N, labels_N[subset.ids]))
    described = Described(selection.label, subset, is_kept_N, kept_C, np.zeros(0))
    present = np.flatnonzero(size_C)
    if len(present) > ROWS:
        order = present[np.argsort(kept_C[present] / size_C[present], kind="stable")]
        present = order[np.linspace(0, len(order) - 1, ROWS).round().astype(int)]
    members = [(source.classes[c], np.flatnonzero(labels_N == c)) for c in present] or [
        ("all", np.arange(subset.total))
    ]
    rows = []
    for name, ids in members:
        found = examples(ids, described, difficulty_N)
        strips = [_strip(source, kind, found[kind], is_kept_N) for kind in KINDS if len(found[kind])]
        rows.append((name, f"{int(is_kept_N[ids].sum()):,} of {len(ids):,} kept", strips))
    classes = np.count_nonzero(size_C)
    left_out = f"{len(rows)} of {classes:,} classes, from the least to the most kept" if classes > len(rows) else ""
    return Gallery(selection.label, selection.series, rows, left_out)


def _strip(source: Source, kind: str, ids: np.ndarray, is_kept_N: np.ndarray) -> Strip:
    tiles = [_tile(source, int(id)) for id in ids]
    side = max(max(tile.size) for tile in tiles)
    picture = Image.new("RGB", (side * len(tiles), side), "#808080")
    for place, tile in enumerate(tiles):
        picture.paste(tile, (place * side + (side - tile.width) // 2, (side - tile.height) // 2))
    names = [source.describe(int(id)) for id in ids]
    return Strip(kind, _url(picture, exact=side <= SMALL), is_kept_N[ids].tolist(), names)


def _tile(source: Source, sample_id: int) -> Image.Image:
    """An image, made smaller where it is larger than it is shown; grey where it cannot be read."""
    try:
        image = Image.fromarray(to_array(source[sample_id], 3))
    except ImageError:
        return Image.new("RGB", (LARGEST, LARGEST), "#808080")
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return image


def _url(picture: Image.Image, exact: bool) -> str:
    file = io.BytesIO()
    if exact:
        picture.save(file, format="PNG", optimize=True)
    else:
        picture.save(file, format="WEBP", quality=82)
    return f"data:image/{'png' if exact else 'webp'};base64,{base64.b64encode(file.getvalue()).decode()}"
