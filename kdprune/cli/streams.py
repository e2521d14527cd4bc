"""What the command does with its output: progress bars for people only, and an end where nobody reads on."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterator

# Read by tqdm (torchvision's downloads), datasets and huggingface_hub when they are imported.
_OF_LIBRARIES = ("TQDM_DISABLE", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS")


def is_for_people() -> bool:
    """Whether stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextlib.contextmanager
def bars_for_people() -> Iterator[None]:
    """Keep the progress bars of libraries out of pipes and files, for which each state would be one more line."""
    missing = [name for name in _OF_LIBRARIES if name not in os.environ]
    if not is_for_people():
        os.environ.update(dict.fromkeys(missing, "1"))
    try:
        yield
    finally:
        if not is_for_people():
            for name in missing:
                os.environ.pop(name, None)


def nobody_reads() -> bool:
    """Whether the reader of stdout, such as `head`, has left."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError, AttributeError):  # none, closed, replaced by an object, or no such call
        return False
    return any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


def end_quietly() -> int:
    """The exit status of a command whose reader left, as `head` does: that of SIGPIPE, which Python ignores."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # or Python would complain when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
