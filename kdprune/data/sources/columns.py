"""Which column of a table holds the images, which the labels, and what the classes are called."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import pyarrow as pa

from kdprune.outside import TEXT, list_of, parse_json

log = logging.getLogger("kdprune")

IMAGE_NAMES = ("image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "webp")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "target", "category", "cls", "y", "coarse_label")


@dataclass
class Columns:
    """`label` is None for an unlabelled table; `classes` is None where the table does not name them."""

    image: str
    label: str | None
    classes: list[str] | None = field(default=None)


def find_columns(schema: pa.Schema, name: str) -> Columns:
    """Find the image and label columns: by the type in the Hugging Face features, then by name and storage type.

    Raises:
        ValueError: no image column; the message lists the columns. A label column of a type that no class has.
    """
    features = _features(schema)
    images = [column for column, kind in features.items() if kind.get("_type") == "Image" and column in schema.names]
    images = images or [column for column in IMAGE_NAMES if column in schema.names and _may_hold_images(schema, column)]
    if not images:
        raise ValueError(f"{name}: no image column (of type Image, or called {', '.join(IMAGE_NAMES)}); {_say(schema)}")
    image = _first(images, IMAGE_NAMES)
    labels = [column for column, kind in features.items() if kind.get("_type") == "ClassLabel"]
    labels = [column for column in labels if column in schema.names and _may_hold_labels(schema, column)] or [
        column for column in LABEL_NAMES if column in schema.names and _may_hold_labels(schema, column)
    ]
    _tell(name, "image", images, image)
    if not labels and (odd := [column for column in LABEL_NAMES if column in schema.names]):
        kinds = ", ".join(f"{column!r} of type {schema.field(column).type}" for column in odd)
        raise ValueError(
            f"{name}: no labels in {kinds}: allowed are whole numbers and text, one an image; give the column another "
            "name if it is none of labels"
        )
    if not labels:
        log.info("%s: no label column, so the images are unlabelled; %s", name, _say(schema))
        return Columns(image, None)
    label = _first(labels, LABEL_NAMES)
    _tell(name, "label", labels, label)
    names = features.get(label, {}).get("names")
    return Columns(image, label, names if list_of(TEXT).fits(names) else None)


def _features(schema: pa.Schema) -> dict[str, dict]:
    """The Hugging Face features in the metadata of a schema; empty when there are none."""
    try:
        features = parse_json((schema.metadata or {})[b"huggingface"], "features")["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    features = features if isinstance(features, dict) else {}
    return {column: kind if isinstance(kind, dict) else {} for column, kind in features.items()}


def _may_hold_images(schema: pa.Schema, column: str) -> bool:
    kind = schema.field(column).type
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_string(kind)


def _may_hold_labels(schema: pa.Schema, column: str) -> bool:
    kind = schema.field(column).type
    return pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _first(found: list[str], preferred: tuple[str, ...]) -> str:
    return min(found, key=lambda column: preferred.index(column) if column in preferred else len(preferred))


def _tell(name: str, what: str, found: list[str], taken: str) -> None:
    if len(found) > 1:
        log.warning("%s: %d %s columns (%s); %r is taken", name, len(found), what, ", ".join(found), taken)


def _say(schema: pa.Schema) -> str:
    return "the columns are " + ", ".join(f"{column.name} ({column.type})" for column in schema)
