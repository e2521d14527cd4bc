"""What the documentation tells people to type: the first command runs as written, every other one is understood."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser
from helpers import REPO

from kdprune.checks import check
from kdprune.cli import COMMANDS, parse
from kdprune.cli.commands import named
from kdprune.config import from_dict
from kdprune.sweep.sections import SECTIONS, read_study

PAGES = sorted([*REPO.glob("*.md"), *REPO.glob("docs/**/*.md")])
RECIPES = sorted(REPO.glob("configs/*.yaml"))
OTHERS = {"pip", "pytest", "ruff", "mypy", "mkdocs"}  # commands that are not kdprune's


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in a language; "" for those that name none."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for name, text in fenced if name == language]


def commands(page: Path) -> list[list[str]]:
    """Every command of a page's shell blocks, as words; comments and variables set before it are left out."""
    found = []
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words.pop(0)
                if words:
                    found.append(words)
    return found


def of_kdprune(words: list[str]) -> list[str] | None:
    """Command and options for `kdprune`, from any of the ways to call it; None for other programs."""
    if words[0] == "kdprune":
        return words[1:]
    if words[:2] == ["accelerate", "launch"]:
        launched = launch_command_parser().parse_args(words[2:])
        assert launched.training_script == "train.py"
        return ["train", *launched.training_script_args]
    if "train.py" in words:
        assert words[0] in ("python", "torchrun"), words
        return ["train", *words[words.index("train.py") + 1 :]]
    return None


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda path: path.name)
def test_the_commands_of_a_page_are_understood(page, monkeypatch):
    monkeypatch.chdir(REPO)
    for words in commands(page):
        try:
            check_command(words)
        except Exception as error:
            pytest.fail(f"{' '.join(words)}: {error}")


def check_command(words: list[str]) -> None:
    line = of_kdprune(words)
    if line is None:
        scripts = [word for word in words if word.endswith(".py") or word.startswith("tests/")]
        assert words[0] in OTHERS or (words[0] == "python" and scripts), words
        assert all(Path(script).is_file() for script in scripts)
        return
    command, options = named(line)
    parser = COMMANDS[command][0]()
    content = parser.parse_args(options).as_dict()
    if command == "sweep":
        check_study(options)
    if command in ("train", "cache"):
        check(from_dict({name: value for name, value in content.items() if name not in ("config", "verify")}))


def check_study(options: list[str]) -> None:
    _, parsed = parse(["sweep", *options])
    read_study("", parsed.config_object, {section: parsed[section] for section in SECTIONS}).runs()


def test_every_recipe_can_be_used_and_is_spoken_of():
    for recipe in RECIPES:
        content = yaml.safe_load(recipe.read_text())
        if content.keys() & set(SECTIONS):
            check_study(["--config", str(recipe)])
        else:
            check(from_dict(content))
        assert f"configs/{recipe.name}" in (REPO / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_and_recipes_that_a_page_names_are_there(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert "://" in target or (page.parent / target).exists(), target
    for target in re.findall(r"configs/\w+\.yaml", text):
        assert (REPO / target).exists(), target
    headings = {
        re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in re.findall(r"^#+ (.*)", text, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings


@pytest.mark.parametrize("page", sorted(REPO.glob("docs/tasks/*.md")), ids=lambda path: path.name)
def test_the_programs_of_a_task_are_right(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "python"):
        program = compile(block, page.name, "exec")
        if "kdprune.train(" in block:
            exec(program, {"__name__": "docs"})


def test_every_page_is_in_the_navigation_of_the_site():
    text = (REPO / "mkdocs.yml").read_text()
    pages = re.findall(r": ([\w/]+\.md)$", text, re.MULTILINE)
    assert sorted(pages) == sorted(str(page.relative_to(REPO / "docs")) for page in REPO.glob("docs/**/*.md"))


def test_every_public_name_is_in_the_reference():
    import kdprune

    text = (REPO / "docs" / "reference.md").read_text()
    listed = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)}
    assert {*kdprune.__all__} - {"losses"} <= listed
    assert {*kdprune.testing.__all__} <= listed


def test_every_loss_has_its_section():
    from kdprune import registry

    sections = re.findall(r"^### `(\w+)`", (REPO / "docs" / "losses.md").read_text(), re.MULTILINE)
    assert sorted(sections) == registry.names("losses")


def test_ci_runs_the_test_command_of_the_readme():
    second = blocks(REPO / "README.md", "bash")[1].strip().split(" && ")
    script = (REPO / ".ci" / "run").read_text().splitlines()
    assert second == ['pip install -e ".[dev]"', "pytest"]
    assert script[-1] == second[1]
    assert second[0].removeprefix("pip install ") in next(line for line in script if line.startswith("pip install"))
    assert any(line.startswith("export CI=") for line in script), "pytest leaves the slow tests out"


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The first command, run as written (but for the installation) where train.py and the recipes are."""
    place = tmp_path_factory.mktemp("readme")
    shutil.copy(REPO / "train.py", place)
    shutil.copytree(REPO / "configs", place / "configs")
    install, line = blocks(REPO / "README.md", "bash")[0].strip().split(" && ")
    assert install == "pip install -e ."
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", line], cwd=place, capture_output=True, text=True, timeout=280, env={**os.environ, "PATH": path}
    )
    assert done.returncode == 0, done.stderr
    return place, done.stdout


def rows(text: str) -> list[list[str]]:
    """Of a table: name, parameters and steps of each row, which every machine agrees on."""
    cells = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in text.splitlines() if line[:1] == "│"]
    return [[row[0], row[2], row[5]] for row in cells]


@pytest.mark.slow
def test_the_first_command_prints_the_table_of_the_readme(first):
    _, printed = first
    shown = next(block for block in blocks(REPO / "README.md", "") if "│" in block)
    assert rows(printed) == rows(shown)
    assert "digits: 674 of 1,347 samples kept, seed 0" in printed


@pytest.mark.slow
def test_the_first_command_leaves_three_finished_runs(first):
    place, _ = first
    summaries = [json.loads(path.read_text()) for path in place.rglob("summary.json")]
    assert sorted((s["student"]["name"], s["kept"], bool(s["teacher"])) for s in summaries) == [
        ("cifar_resnet20", 1347, False),
        ("cifar_resnet8", 674, False),
        ("cifar_resnet8", 674, True),
    ]
    assert all(summary["test_top1"] > 0.9 for summary in summaries)


@pytest.mark.slow
def test_the_python_of_the_readme_runs(first, monkeypatch):
    monkeypatch.chdir(first[0])
    for block in blocks(REPO / "README.md", "python"):
        exec(block, {"__name__": "__main__"})
