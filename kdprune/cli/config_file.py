"""`--config FILE`: read within bounds and compared with the settings before jsonargparse sees it.

jsonargparse takes a text where a group of settings is expected for the path of another file, includes that, and quotes
it where it does not fit. So a recipe of somebody else could show any file. Here a recipe holds settings, and no paths
of recipes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile

from kdprune.config import Config, dotted, from_dict, to_dict
from kdprune.messages import about, did_you_mean, shown
from kdprune.yaml_text import check_bounds, parse_yaml, read_yaml


def check_words(words: list[str]) -> None:
    """Refuse words of the command line that jsonargparse would try to read as YAML and not survive.

    Raises:
        ValueError: naming the option.
    """
    option = ""
    for word in words:
        option = word.partition("=")[0] if word.startswith("--") else option
        with about(option):
            for part in (word, word.partition("=")[2]):
                check_bounds(part)


class ConfigFile(ActionConfigFile):
    """The action of `--config`."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        of_the_command = {action.dest for action in parser._actions if "." not in action.dest}
        check_settings(str(values), of_the_command - {self.dest, "help", "print_config", *Config.__dataclass_fields__})
        super().__call__(parser, cfg, values, option_string)


def check_settings(given: str, options: set[str]) -> None:
    """Refuse a recipe that is more or other than settings.

    Args:
        given: the path of a file, or the settings themselves, as YAML.
        options: what a recipe may hold beside the settings of a run.

    Raises:
        ValueError: the file cannot be read, or holds something else; the message names file and setting.
    """
    in_words = given.lstrip().startswith("{") or "\n" in given
    where = "--config" if in_words else f"--config {given}"
    with about("--config"):
        content = parse_yaml(given) if in_words else _read(Path(given).expanduser())
    if not isinstance(content, dict):
        raise ValueError(f"{where}: {shown(content)} given, allowed are settings by name")
    with about(where):
        for text in _texts(content):
            check_bounds(text)
        settings = {str(name): value for name, value in content.items() if name not in options}
        known = dotted(to_dict(Config()))
        for name in dotted(settings):
            # A setting may be a mapping itself, and a group may be null or of a wrong type.
            if not any(f"{name}.".startswith(f"{one}.") or one.startswith(f"{name}.") for one in known):
                raise ValueError(f"unknown setting {shown(name)}{did_you_mean(name, known, write=str)}")
        from_dict(_nested(settings))


def _texts(content: Any) -> Iterator[str]:
    """All texts in lists and mappings: jsonargparse reads them again, as YAML."""
    if isinstance(content, str):
        yield content
    for part in (
        [*content, *content.values()] if isinstance(content, dict) else content if isinstance(content, list) else ()
    ):
        yield from _texts(part)


def _read(path: Path) -> Any:
    try:
        return read_yaml(path)
    except OSError as error:
        hint = did_you_mean(path.name, [other.name for other in path.parent.glob("*.yaml")], write=str)
        raise ValueError(f"'{path}' cannot be read: {error.strerror}{hint}") from None


def _nested(content: dict[str, Any]) -> dict[str, Any]:
    """{"train.lr": 0.1} → {"train": {"lr": 0.1}}, as jsonargparse reads it."""
    nested: dict[str, Any] = {}
    for name, value in content.items():
        group, dot, rest = name.partition(".")
        if not dot:
            nested[name] = {**nested[name], **value} if _both_mappings(nested.get(name), value) else value
        else:
            inner = nested.get(group)
            nested[group] = {**(inner if isinstance(inner, dict) else {}), **_nested({rest: value})}
    return nested


def _both_mappings(one: Any, other: Any) -> bool:
    return isinstance(one, dict) and isinstance(other, dict)
