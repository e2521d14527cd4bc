"""Plug-ins by name."""

import subprocess
import sys

import pytest

from kdprune import registry


def test_what_is_built_in_is_found_by_its_file_name():
    assert "random" in registry.names("selectors")
    assert {"kd", "dkd"} <= set(registry.names("losses"))
    for kind in registry.KINDS:
        for name in registry.names(kind):
            assert registry.get(kind, name) is registry.get(kind, name)


def test_mistakes():
    with pytest.raises(ValueError, match=r"unknown selector 'randm'; did you mean 'random'\? \(allowed: .*random"):
        registry.get("selectors", "randm")
    with pytest.raises(ValueError, match=r"unknown loss 'dkdd'; did you mean 'dkd'\?"):
        registry.check_name("losses", "dkdd")
    with pytest.raises(ValueError, match="unknown kind of plug-in 'loss'; did you mean 'losses'"):
        registry.names("loss")


def test_a_new_kind_is_a_folder_with_a_marker(tmp_path):
    """Nothing is imported: the marker is read, and what else the file says is not run."""
    for folder, init in [
        ("pruners", 'PLUGIN = "pruner"  # a kind\nraise SystemExit'),
        ("passes", ""),
        ("data", "X = 1"),
    ]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text(init)
    assert registry.find_kinds(tmp_path) == {"pruners": "pruner"}
    assert {"losses", "selectors", "scorers"} <= set(registry.KINDS)


def test_names_are_listed_without_importing_a_plug_in():
    code = (
        "import sys; from kdprune import registry\n"
        "for kind in registry.KINDS: registry.names(kind)\n"
        "registry.read_call('selectors', 'random', '--subset.selector')\n"
        "assert not {'torch', 'numpy', 'kdprune.losses', 'kdprune.selectors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_plug_in_of_ones_own(monkeypatch):
    monkeypatch.setitem(registry._registered, "selectors", {})

    @registry.register("selectors", "first")
    def first(pool):
        return pool.candidates[: pool.count]

    assert registry.get("selectors", "first") is first
    assert "first" in registry.names("selectors")

    def other():
        """The same name from another module."""

    other.__module__ = "elsewhere"
    with pytest.raises(ValueError, match="'first' is already registered by test_registry"):
        registry.register("selectors", "first")(other)
