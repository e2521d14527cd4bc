"""Whether progress bars are shown: on the command line they are, in a program that calls kdprune they are not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_SHOWN = ContextVar("bars are shown", default=False)


def shown() -> bool:
    """Whether whoever called wants to see bars."""
    return _SHOWN.get()


@contextlib.contextmanager
def show() -> Iterator[None]:
    """Show bars inside of this."""
    token = _SHOWN.set(True)
    try:
        yield
    finally:
        _SHOWN.reset(token)
