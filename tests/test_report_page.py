"""The page of a report: what data says cannot become a part of it, and in a browser it is what it should be."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import browser, executable
from helpers import said_by, train
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_report import as_sweep

from kdprune.report.interactive import said
from kdprune.report.page import json_text
from kdprune.report.parts import text

ARM = '<script>alert("arm")</script>'
CLASS = '"><img src=x onerror=alert(1)>'
SERIES = [ARM, "</script><b>kd", "%{x} $a$ & <br>"]

needs_browser = pytest.mark.skipif(
    executable() is None, reason="NO BROWSER: the report's page is not checked (apt-get install chromium)"
)


def images(folder: Path) -> Path:
    """Two classes of random images, one of which has a name to be afraid of."""
    for split, count in (("train", 24), ("val", 8)):
        for shift, name in enumerate((CLASS, "plain")):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = np.random.default_rng(number).integers(0, 100, (12, 12, 3)) + 100 * shift
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Of a sweep with hostile names: no teacher and two α at two keep fractions, chosen by scores; two seeds."""
    folder = tmp_path_factory.mktemp("page")
    common = {
        "data.dataset": str(images(folder / "data")), "data.image_size": 12, "data.augment": "none", "train.steps": 4,
        "train.batch_size": 8, "train.eval_every": 1, "subset.selector": "hardest", "subset.scorer": "el2n",
        "record.source": "proxy", "record.train.epochs": 1, "seeds.subset": 0,
    }  # fmt: skip
    runs, planned = folder / "runs", {}
    for series, alpha in zip(SERIES, (None, 0.5, 1.0), strict=True):
        for keep in (0.25, 0.5):
            taught = {} if alpha is None else {"teacher.models": ["mlp_64"], "seeds.teacher": 0, "distill.alpha": alpha}
            paths = [train(runs, {**common, **taught, "subset.keep_fraction": keep, "seed": s})[1] for s in (0, 1)]
            planned[series, keep] = paths
    (planned[SERIES[1], 0.25][0] / "analysis").mkdir()
    quoted = CLASS.replace('"', '""')
    rows = f'class,samples,kept,kept_share,full,pruned,difference\n"{quoted}",24,6,0.25,0.9,0.5,-0.4\n'
    (planned[SERIES[1], 0.25][0] / "analysis" / "classes.csv").write_text(rows)
    summary = planned[ARM, 0.25][0] / "summary.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "energy": {"kwh": 0.001, "co2_kg": 0.0004,
                       "tracker": "codecarbon", "seconds": 3.0}}))  # fmt: skip
    named = {f"{series} {keep}": paths for (series, keep), paths in planned.items()}
    sweep = as_sweep(
        folder / "sweep", named, axes=[["arm"], ["subset.keep_fraction"], ["seed"]], warnings=["<i>care</i>"]
    )
    study = json.loads((sweep / "study.json").read_text())
    for run in study["runs"]:
        series, _, keep = run["coordinates"]["arm"].rpartition(" ")
        run["coordinates"] |= {"arm": series, "subset.keep_fraction": keep}
    (sweep / "study.json").write_text(json.dumps(study))
    status, out, complaint = said_by(["report", sweep, "--figures", "svg"])
    assert status == 0, complaint
    return sweep / "report.html", out


class Reader(HTMLParser):
    """Elements and attributes of a page, and the texts of its cells."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


@given(st.text(max_size=40) | st.sampled_from([ARM, CLASS, *SERIES]))
def test_no_text_becomes_markup(name):
    found = Reader(f'<td title="{text(name)}">{text(name)}</td>')
    assert [tag for tag, _ in found.tags] == ["td"]
    if "\r" not in name and "\0" not in name:
        assert found.tags[0][1]["title"] == name
    written = json_text({name: [name]})
    assert json.loads(written) == {name: [name]}
    assert not re.search(r"[<>&\u2028\u2029]", written), "nothing can end the script that it stands in"
    assert "<" not in said(name).replace("<br>", "")


def test_names_of_data_are_shown_and_do_nothing(page):
    content = page[0].read_text()
    found = Reader(content)
    tags = [tag for tag, _ in found.tags]
    assert tags.count("script") == 3, "the data, plotly and the page's own"
    assert all(not any(name.startswith("on") for name in attributes) for _, attributes in found.tags)
    sources = [attributes.get("src") or "" for tag, attributes in found.tags if tag == "img"]
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert any(ARM in one for one in found.texts)
    assert any(CLASS in one for one in found.texts), "the class in the gallery"
    assert "<i>care</i>" not in content
    assert "Content-Security-Policy" in content


def test_all_figures_are_there_and_as_files(page):
    path, out = page
    ids = {"keep", "alpha", "cost", "scores", "classes", "curves", "energy", "gallery", "arms", "runs"}
    content = path.read_text()
    assert {id for id in ids if f'id="{id}-0"' in content} == ids
    figures = [Path(line) for line in out.splitlines() if line.endswith(".svg")]
    assert {figure.stem for figure in figures} == ids - {"gallery", "arms", "runs"}
    assert all(figure.read_text().startswith("<?xml") for figure in figures)
    assert "Accuracy against teacher size: it needs arms that differ in the size" in content
    assert "hardest" in content
    assert path.stat().st_size < 10e6


def test_figures_are_what_plotly_takes(page):
    """plotly.py knows all names and values that plotly.js does."""
    import plotly.graph_objects as go

    found = re.search(r'id="data">(.*?)</script>', page[0].read_text(), re.DOTALL)
    for figure in json.loads(found[1])["figures"]:
        for trace in figure["data"]:
            trace.get("meta", {})
        go.Figure(data=figure["data"], layout=figure["layout"])


@needs_browser
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_in_a_browser(page):
    """No error, everything drawn, toggles, sorting and details work, by mouse and keyboard; nothing is fetched."""
    path, _ = page
    with browser() as tab:
        tab.open(path)
        assert tab.complaints == []
        assert [url for url in tab.fetched if not url.startswith("data:")] == [path.resolve().as_uri()]
        count = tab.ask("document.querySelectorAll('.plot').length")
        assert count > 8
        assert tab.ask("document.querySelectorAll('.plot .main-svg').length") >= count
        assert tab.ask("document.querySelectorAll('.plot').length") == tab.ask("+document.body.dataset.drawn")
        # Everything inside its card, and nothing wider than the window.
        assert tab.ask("document.documentElement.scrollWidth <= innerWidth")
        assert tab.ask("[...document.querySelectorAll('.plot')].every(p => p.offsetHeight >= "
                       "p.querySelector('.svg-container').offsetHeight - 1)")  # fmt: skip
        # A name is shown letter by letter, where plotly writes it, too.
        assert tab.ask("document.querySelectorAll('main b, main script, main img[src=x]').length") == tab.ask(
            "document.querySelectorAll('.tiles b, .warning > b').length"
        )
        assert tab.ask("[...document.querySelectorAll('.ytick text')].some(t => t.textContent.startsWith('\"><img'))")
        # One box hides its arm in every figure and table.
        lines = "document.querySelectorAll('.plot .scatterlayer .trace').length"
        before, dim = tab.ask(lines), "document.querySelectorAll('tr.off').length"
        assert tab.ask(dim) == 0
        tab.ask("document.querySelector('.toggles input').click()")
        tab.wait(f"{lines} < {before}")
        assert tab.ask(dim) > 0
        changed = tab.ask(
            "[...document.querySelectorAll('.plot')].filter(p => p.data.some(t => t.visible === false)).length"
        )
        assert changed >= 5
        assert tab.ask(
            "[...document.querySelectorAll('.plot')].some(p => p.data.some(t => t.z && t.z.flat().includes(null)))"
        )
        tab.ask("document.querySelector('button[data-all=none]').click()")
        assert tab.ask("[...document.querySelectorAll('.toggles input')].every(box => !box.checked)")
        tab.ask("document.querySelector('button[data-all=all]').click()")
        tab.wait(f"{lines} === {before}")
        # By keyboard: a box is reached and pressed, a head is pressed and sorts.
        tab.ask("document.querySelector('.toggles input').focus()")
        for kind in ("keyDown", "keyUp"):
            tab.call("Input.dispatchKeyEvent", type=kind, key=" ", code="Space", text=" ", windowsVirtualKeyCode=32)
        tab.wait(f"{lines} < {before}")
        tab.ask("document.querySelector('#arms-0 th.number button').click()")
        means = tab.ask("[...document.querySelectorAll('#arms-0 td.number[data-value]:nth-last-child(4)')]"
                        ".map(cell => +cell.dataset.value)")  # fmt: skip
        assert means == sorted(means, reverse=True)
        # A run's settings, in a dialog that Escape closes.
        tab.ask("document.querySelector('button.run').click()")
        assert tab.ask("document.querySelector('dialog').open")
        assert "distill.alpha" in tab.ask("document.querySelector('dialog').textContent")
        for kind in ("keyDown", "keyUp"):
            tab.call("Input.dispatchKeyEvent", type=kind, key="Escape", code="Escape", windowsVirtualKeyCode=27)
        tab.wait("!document.querySelector('dialog').open")
        tab.screenshot(path.with_suffix(".png"))
        with Image.open(path.with_suffix(".png")) as picture:
            assert len(picture.convert("RGB").getcolors(2**24)) > 50
        # Dark, and printed.
        light = tab.ask("getComputedStyle(document.body).backgroundColor")
        tab.dark(True)
        tab.wait(f"getComputedStyle(document.body).backgroundColor !== '{light}'")
        tab.wait("document.querySelector('.plot .xtick text').style.fill !== 'rgb(22, 24, 29)'")
        tab.print(path.with_suffix(".pdf"))
        assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
        assert tab.complaints == []
