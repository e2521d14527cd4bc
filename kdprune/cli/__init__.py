"""The command line: the only place that prints."""

from kdprune.cli.commands import COMMANDS, main, parse

__all__ = ["COMMANDS", "main", "parse"]
