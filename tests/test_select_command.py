"""`kdprune select`: subset files from a score file, and the tables and figures that describe them."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from kdprune.cli import main
from kdprune.cli.select import fractions_of, named
from kdprune.data.dataset import cache_root
from kdprune.data.fingerprint import identify
from kdprune.data.scores import Scores
from kdprune.data.sources import from_indexable, open_source
from kdprune.data.subset import Subset, load_subset
from kdprune.pipeline.contact_sheet import COLUMNS, contact_sheet, examples
from kdprune.pipeline.describe import Described, correlations, counts, describe, overlaps, tenths
from kdprune.selectors.common.samples import samples_of
from kdprune.selectors.common.select import select

PRINT = "f" * 64


@pytest.fixture(scope="module")
def digits():
    return open_source("digits", "train", cache_root(None))


@pytest.fixture
def files(tmp_path, digits, monkeypatch):
    """Two score files of the digits, in the current folder."""
    monkeypatch.chdir(tmp_path)
    numbers = np.random.default_rng(0)
    values, print_ = numbers.random(len(digits)), identify(digits).fingerprint
    Scores(values, digits.labels, print_, "el2n(epoch=1)", "high", tuple(digits.classes)).save("el2n.parquet")
    Scores(-(values**2), digits.labels, print_, "aum", "low", tuple(digits.classes)).save("aum.parquet")
    return tmp_path


def run(*arguments):
    return main(["select", *arguments])


def test_one_command_writes_a_file_for_each_fraction(files, digits, capsys):
    assert run("--scores", "el2n.parquet", "--keep_fraction", "0.1,0.5", "--selector", "window(start=0.2)",
               "--balanced", "--class_floor", "0.5", "--seed", "3", "--output", "out/kept.json") == 0  # fmt: skip
    scores = Scores.load("el2n.parquet")
    for fraction in (0.1, 0.5):
        subset = load_subset(f"out/kept_{fraction}.json", identify(digits).fingerprint, len(digits))
        expected = select(samples_of(scores), fraction, "window(start=0.2)", balanced=True, class_floor=0.5, seed=3)
        assert subset.hash == expected.hash
        assert subset.chosen == expected.chosen
    assert "kept_0.1.json" in capsys.readouterr().out
    assert run("--scores", "el2n.parquet", "--keep_fraction", "0.1", "--without_classes", "3,4", "--hard", "low") == 0
    subset = Subset.load("subset.json")
    assert not np.isin(digits.labels[subset.ids], [3, 4]).any()
    assert scores.values[subset.ids].max() < 0.2
    assert (subset.chosen["hard"], subset.chosen["selector"]) == ("low", "hardest")


def test_a_run_takes_the_file(files, tmp_path):
    import helpers

    assert run("--scores", "el2n.parquet", "--keep_fraction", "0.3", "--selector", "ccs") == 0
    summary, _ = helpers.train(tmp_path / "runs", {"subset.file": "subset.json", "train.steps": 1})
    assert summary["kept"] == round(0.3 * 1347)


def test_tables_and_figures(files, capsys):
    assert run("--scores", "el2n.parquet", "--keep_fraction", "0.2,0.5", "--output", "a.json") == 0
    assert run("--scores", "aum.parquet", "el2n.parquet", "--keep_fraction", "0.2", "--selector", "easiest",
               "--output", "b.json", "--describe", "a_0.2.json", "a_0.5.json", "--data", "digits") == 0  # fmt: skip
    printed = capsys.readouterr().out
    figures = [f"{name}{end}.png" for name in ("b", "a_0.2", "a_0.5") for end in ("", "_images")]
    figures.append("overlap.png")
    assert sorted(file.name for file in (files / "b_figures").iterdir()) == sorted(figures)
    for name in figures:
        assert f"b_figures/{name}" in printed
        with Image.open(files / "b_figures" / name) as image:
            assert image.format == "PNG"
            assert len(set(image.convert("L").resize((99, 99)).tobytes())) > 5
    assert re.search(r"0\.(399|400) \(0\.16[67]\)", printed)  # nested
    for words in ("aum, low is hard", "1.000 (1.000)", "0.000 (0.111)"):  # equal, disjoint
        assert words in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--keep_fraction", "1.5"], r"--keep_fraction: '1.5' given, allowed are numbers in \(0, 1\]"),
        (["--keep_fraction", "0.1,,0.2"], "--keep_fraction: '' given"),
        (["--keep_fraction", "0.1,0.10"], "each number once"),
        ([], "--keep_fraction: none given, and no subset file to --describe"),
        (["--describe"], "--keep_fraction: none given"),
        (["--keep_fraction", "0.1", "--data", "digits"], "--data: only contact sheets need images"),
        (["--keep_fraction", "0.1", "--selector", "hardset"], "^error: --selector: .*did you mean 'hardest'"),
        (["--keep_fraction", "0.1", "--selector", "window(start=0.95)"], "^error: --selector: .*at most 0.899777$"),
        (["--keep_fraction", "0.1", "--selector", "kcenter"], "^error: --selector: "),
        (["--keep_fraction", "0.1", "--class_floor", "1.5"], "^error: --class_floor: 1.5 given"),
        (["--keep_fraction", "0.1", "--class_floor", "40"], "^error: --class_floor: 40 given for 10 classes"),
        (["--keep_fraction", "0.1", "--without_classes", "eleven"], "^error: --without_classes: unknown class"),
        (["--keep_fraction", "0.1", "--output", "subset.txt"], "--output: 'subset.txt' given"),
        (["--keep_fraction", "0.1", "--hard", "up"], "hard"),
        (["--keep_fraktion", "0.1"], "keep_fraction"),
    ],
)  # fmt: skip
def test_mistakes_are_said_before_anything_is_written(files, capsys, arguments, words):
    before = sorted(files.rglob("*"))
    try:
        status = run("--scores", "el2n.parquet", *arguments)
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    error = capsys.readouterr().err
    assert re.search(words, error, re.MULTILINE), error
    assert sorted(files.rglob("*")) == before


def test_files_that_do_not_belong_together(files, capsys):
    labels = np.zeros(20, dtype=int)
    Scores(np.arange(20.0), labels, PRINT, "mine", "high", ("a",)).save("other.parquet")
    assert run("--scores", "other.parquet", "--keep_fraction", "0.5", "--output", "other.json") == 0
    (files / "no.parquet").write_text("no")
    for arguments, words in (
        (
            ["--scores", "el2n.parquet", "other.parquet", "--keep_fraction", "0.5", "--describe"],
            "other is of other data",
        ),
        (["--scores", "el2n.parquet", "--describe", "other.json"], "other.json was made from another data set"),
        (
            ["--scores", "other.parquet", "--describe", "other.json", "--data", "digits"],
            "--data: digits is not the data",
        ),
        (["--scores", "none.parquet", "--keep_fraction", "0.5"], "none.parquet"),
        (["--scores", "no.parquet", "--keep_fraction", "0.5"], "no.parquet"),
        (["--scores", "el2n.parquet", "--describe", "none.json"], "none.json"),
    ):
        capsys.readouterr()
        assert run(*arguments) == 2
        assert words in capsys.readouterr().err


def test_names_of_files_are_as_short_as_tells_them_apart():
    assert named(["a/x.json", "b/y.json"]) == {"x": "a/x.json", "y": "b/y.json"}
    assert named(["a/x.json", "b/x.json"]) == {"a_x": "a/x.json", "b_x": "b/x.json"}
    assert named(["subset_0.1.json"]) == {"subset_0.1": "subset_0.1.json"}
    assert len(named(["/x.json", "x.json"])) <= 2
    assert fractions_of(None) == fractions_of("") == []
    assert fractions_of("0.3, 1") == [0.3, 1.0]


# --- what is described ------------------------------------------------------------------------------------------------


def subset_of(ids, total, print_=PRINT):
    return Subset(np.array(sorted(ids), dtype=np.int64), total, print_)


@given(st.sets(st.integers(0, 59), min_size=1), st.sets(st.integers(0, 59), min_size=1))
def test_overlap_is_the_share_of_common_samples(a, b):
    jaccard, chance = overlaps([subset_of(a, 60), subset_of(b, 60)])
    assert jaccard[0, 1] == jaccard[1, 0] == len(a & b) / len(a | b)
    assert jaccard[0, 0] == 1
    expected = len(a) * len(b) / 60
    assert chance[0, 1] == pytest.approx(expected / (len(a) + len(b) - expected))


def scores_of(values, hard="high", labels=None):
    labels = np.zeros(len(values), dtype=int) if labels is None else labels
    return Scores(np.asarray(values, dtype=float), labels, PRINT, "mine", hard, ("a", "b", "c"))


def test_rank_correlations_are_of_difficulty_and_know_infinity_and_gaps():
    numbers = np.random.default_rng(0)
    a, b = numbers.normal(size=(2, 200)).round(1)
    a[5], b[9] = np.nan, np.nan
    both = np.setdiff1d(np.arange(200), [5, 9])
    spearman, kendall = correlations([scores_of(a), scores_of(-b, "low"), scores_of(np.zeros(200))])
    assert spearman[0, 1] == pytest.approx(stats.spearmanr(a[both], b[both]).statistic)
    assert kendall[1, 0] == pytest.approx(stats.kendalltau(a[both], b[both]).statistic)
    assert np.isnan(spearman[0, 2])
    never = np.array([1, 2, np.inf, np.inf, 3])
    assert correlations([scores_of(never), scores_of([1, 2, 9, 9, 3])])[0][0, 1] == pytest.approx(1)


def test_shares_of_tenths_and_counts_of_classes():
    values = np.arange(100.0)
    values[[3, 50]] = np.nan
    parts = tenths(values)
    assert sum(map(len, parts)) == 98
    assert parts[0].tolist() == [0, 1, 2, *range(4, 11)]
    labels = np.repeat([0, 1, -1], [60, 30, 10])
    one = describe({"kept": subset_of(range(90, 100), 100)}, {"s": scores_of(values, labels=labels)})
    assert one.subsets[0].shares[-1] == 1
    assert one.subsets[0].shares[:-1].max() < 0.2
    assert one.sizes_C.tolist() == [60, 30, 0]
    assert one.subsets[0].counts_C.tolist() == [0, 0, 0]
    assert counts(np.array([-1, -1]), 0).tolist() == []
    easy = describe({"kept": subset_of(range(90, 100), 100)}, {"s": scores_of(values, "low")})
    assert easy.subsets[0].shares[0] == 1
    with pytest.raises(ValueError, match="other is of other data than s"):
        describe({"other": subset_of([1], 100, "g" * 64)}, {"s": scores_of(values)})


@pytest.mark.parametrize("classes", [0, 1, 30])
@pytest.mark.parametrize("side", [1, 8, 300])
def test_contact_sheets_of_images_of_any_size(tmp_path, classes, side):
    numbers = np.random.default_rng(side)
    arrays = [numbers.integers(0, 255, (side + i % 3, side, 3), dtype=np.uint8) for i in range(60)]
    images = [Image.fromarray(array).convert("L" if i % 2 else "RGB") for i, array in enumerate(arrays)]
    source = from_indexable(
        [(image, i % classes if classes else -1) for i, image in enumerate(images)], "mine", "train"
    )
    scores = np.arange(60, dtype=np.float32)
    scores[::7] = np.nan
    subset = subset_of(range(0, 60, 3), 60)
    is_kept = np.isin(np.arange(60), subset.ids)
    described = Described("s", subset, is_kept, counts(source.labels[subset.ids], classes), np.zeros(10))
    contact_sheet(source, described, scores, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 1000


def test_examples_are_the_ends_and_both_sides():
    scores = np.arange(100, dtype=np.float32)
    scores[99] = np.nan
    is_kept = np.arange(100) % 2 == 0
    described = Described("s", subset_of(range(0, 100, 2), 100), is_kept, np.zeros(0), np.zeros(10))
    found = examples(np.arange(50, 100), described, scores)
    assert found["hardest"].tolist() == [98, 97, 96, 95, 94, 93]
    assert found["easiest"].tolist() == list(range(50, 56))
    assert is_kept[found["kept"]].all()
    assert not is_kept[found["dropped"]].any()
    assert len(found["kept"]) == COLUMNS
    few = examples(np.array([2, 4]), described, scores)
    assert len(few["dropped"]) == 0


def test_an_unreadable_image_leaves_a_grey_tile(tmp_path, digits, monkeypatch):
    from kdprune.data.images import ImageError

    def fails(self, sample_id):
        raise ImageError("no image")

    monkeypatch.setattr(type(digits), "__getitem__", fails)
    is_kept = np.ones(len(digits), dtype=bool)
    subset = subset_of(range(len(digits)), len(digits))
    described = Described("s", subset, is_kept, counts(digits.labels, 10), np.zeros(10))
    contact_sheet(digits, described, np.zeros(len(digits), dtype=np.float32), tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").exists()


def test_infinite_and_constant_scores_are_drawn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, values in (("some", [1, 2, np.inf, np.nan, 3]), ("all", [np.inf] * 5), ("same", [2.0] * 5)):
        labels = np.full(5, -1)
        Scores(np.array(values), labels, PRINT, "forgetting", "high").save(f"{name}.parquet")
        assert (
            run("--scores", f"{name}.parquet", "--keep_fraction", "0.4", "--describe", "--output", f"{name}.json") == 0
        )
        assert (tmp_path / f"{name}_figures" / f"{name}.png").exists()


def test_a_value_must_follow(files, capsys):
    with pytest.raises(SystemExit):
        run("--scores", "el2n.parquet", "--keep_fraction")
    assert "--keep_fraction" in capsys.readouterr().err
