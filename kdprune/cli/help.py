"""Help texts: one line of usage, what most runs need, then everything. Imports nothing heavy."""

from __future__ import annotations

from argparse import HelpFormatter

from jsonargparse import ArgumentParser

# The settings that most people need first, in the order in which they come to mind; see `mistakes`, too.
MOST_NEEDED = (
    "data.dataset", "student.model", "teacher.models", "subset.keep_fraction", "subset.selector", "distill.alpha",
    "train.epochs", "train.lr", "seed", "output",
)  # fmt: skip


class SettingsParser(ArgumentParser):
    """The parser of a command that takes all settings: a hundred, of which ten go first."""

    def format_help(self, *formatter: HelpFormatter | None) -> str:  # newer versions give one
        usage, description, rest = super().format_help(*formatter).split("\n\n", 2)
        return "\n\n".join([usage, description, self._most_needed(), rest])

    def _most_needed(self) -> str:
        by_option = {option: action for action in self._actions for option in action.option_strings}
        formatter = self._get_formatter()
        formatter.start_section("what most runs need, of all the settings below")
        formatter.add_arguments([by_option[f"--{name}"] for name in MOST_NEEDED])
        formatter.end_section()
        return formatter.format_help().strip("\n")
