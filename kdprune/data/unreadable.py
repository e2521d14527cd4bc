"""Which images of a split cannot be read, where they are too large to be decoded once; looked for once and kept."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from kdprune.artefact import Artefact, obtain
from kdprune.data.decoding import Decoding
from kdprune.data.fingerprint import Identity
from kdprune.data.images import ImageError
from kdprune.data.sources.base import Source
from kdprune.data.store import UNREADABLE, kept_in
from kdprune.files import write_json
from kdprune.outside import list_of, read_json, whole

log = logging.getLogger("kdprune")


def find_unreadable(source: Source, identity: Identity, decoding: Decoding) -> np.ndarray:
    """Sample ids of the images that cannot be decoded, int64, ascending."""
    folder, key = kept_in(source, identity, decoding, "unreadable", {})

    def look() -> Iterable[str]:
        write_json(folder / UNREADABLE, _look_at_all(source, decoding))
        return [UNREADABLE]

    obtain(Artefact(folder, "a list of unreadable images", key), look)
    ids = read_json(folder / UNREADABLE)
    if not list_of(whole(0, len(source) - 1)).fits(ids):
        raise ValueError(f"{folder / UNREADABLE} is damaged: it should be a list of sample ids; remove {folder}")
    return np.array(ids, dtype=np.int64)


def _look_at_all(source: Source, decoding: Decoding) -> list[int]:
    def is_bad(sample_id: int) -> bool:
        try:
            source[sample_id]
        except ImageError as error:
            log.warning("%s", error)
            return True
        return False

    with ThreadPoolExecutor(max(1, decoding.workers or 0)) as pool:
        flags = pool.map(is_bad, range(len(source)))
        bar = tqdm(flags, "checking images", len(source), unit="img", disable=not decoding.progress)
        return [sample_id for sample_id, bad in enumerate(bar) if bad]
