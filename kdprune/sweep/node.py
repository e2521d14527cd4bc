"""A look at a node of a cluster, by that node. Imports nothing heavy, so that it answers soon."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path


def look(folder: str, file: str, token: str, here: str) -> str:
    """What is wrong with a node, as that node sees it; empty if nothing is."""
    try:
        os.chdir(folder)
        if Path(file).read_text() != token:
            return "another folder is there"
    except OSError as error:
        return f"{error.strerror}: {error.filename}"
    there = version("kdprune")
    return "" if there == here else f"it has kdprune {there}, and here is {here}"
