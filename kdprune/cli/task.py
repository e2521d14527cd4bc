"""`python -m kdprune.cli.task PLACE`: a task of a sweep as a command, which launchers start (see `sweep.apart`)."""

from __future__ import annotations

import sys
from pathlib import Path

from kdprune.cli.launch import stop_with_launchers


def main(place: str) -> int:
    """Do a task; it ends, with a checkpoint, when those that launched its processes are gone."""
    stop_with_launchers()
    from kdprune.sweep.apart import perform_at

    return perform_at(Path(place))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
