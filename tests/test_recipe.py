"""The grammar of view recipes."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdprune.data.recipe import Recipe, parse

VALUES = {
    "crop": st.integers(-1, 50),
    "flip": st.floats(0, 1),
    "cutout": st.integers(1, 50),
    "erase": st.floats(0, 1),
    "jitter": st.floats(0, 1),
    "grey": st.floats(0, 1),
    "randaugment": st.integers(1, 10),
    "mixup": st.floats(0, 10),
    "cutmix": st.floats(0, 10),
}


@given(st.lists(st.sampled_from(sorted(VALUES)), unique=True, min_size=1), st.data())
def test_every_part_sets_its_field_and_no_other(names, data):
    values = {name: data.draw(VALUES[name]) for name in names}
    text = "+".join(f"{name}({value!r})" for name, value in values.items())
    assert parse(text) == Recipe(**values)
    assert parse(text.replace("+", " + ").replace("(", " ( ")) == Recipe(**values)


@pytest.mark.parametrize("text", ["", " ", "none"])
def test_no_change_at_all(text):
    assert parse(text) == Recipe()


def test_defaults_without_a_value():
    recipe = parse("crop+flip+cutout+erase+jitter+mixup+cutmix()")
    assert dataclasses.asdict(recipe) == {
        "crop": -1, "rrc": 0, "flip": 0.5, "cutout": 16, "erase": 0.25, "jitter": 0.4, "mixup": 0.2, "cutmix": 1.0,
        "hue": 0, "grey": 0, "randaugment": 0, "magnitude": 9, "trivialaugment": False,
    }  # fmt: skip
    assert parse("rrc").rrc == 0.08
    assert parse("crop(pad=4)") == parse("crop(4.0)") == Recipe(crop=4)
    assert parse("jitter(0.3, hue=0.1)") == parse("jitter(0.3, 0.1)") == Recipe(jitter=0.3, hue=0.1)
    assert parse("randaugment(3, 5)") == parse("randaugment(m=5, n=3)") == Recipe(randaugment=3, magnitude=5)
    assert parse("randaugment").randaugment == 2
    assert parse("trivialaugment") == parse("trivialaugment()") == Recipe(trivialaugment=True)
    assert parse("grey") == Recipe(grey=0.1)
    assert recipe.mixes
    assert not parse("crop+flip").mixes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crap(4)", r"--data.augment: unknown part 'crap'; did you mean 'crop'\? \(allowed: crop, rrc, .*none\)"),
        ("crop(4)+flip+crop(2)", "'crop' stands twice"),
        ("crop(4)+rrc(0.3)", "crop and rrc given, allowed is one of the two"),
        ("randaugment+trivialaugment", "randaugment and trivialaugment given, allowed is one of the two"),
        ("randaugment(0)", r"number of operations, allowed is a whole number in \[1, 10\]"),
        ("randaugment(2, 31)", r"magnitude, allowed is a whole number in \[0, 30\]"),
        ("jitter(0.4, 0.6)", r"largest turn of the hues, allowed is a number in \[0, 0.5\]"),
        ("trivialaugment(1)", "takes no parameters"),
        ("gray", "did you mean 'grey'"),
        ("crop(4)++flip", "cannot read"),
        ("crop*flip", "NAME or NAME"),
        ("4", "NAME or NAME"),
        ("crop(2, 3)", "takes pad; 2 values given"),
        ("crop(pda=2)", "did you mean 'pad'"),
        ("crop(2.5)", r"crop\(2.5\)' given; padding in pixels, allowed is a whole number in \[-1, 10000\]"),
        ("crop(-2)", "allowed is a whole number"),
        ("cutout(0)", r"side in pixels, allowed is a whole number in \[1, 10000\]"),
        ("flip(1.01)", r"flip\(1.01\)' given; probability, allowed is a number in \[0, 1\]"),
        ("flip(True)", "probability"),
        ("flip('often')", "probability"),
        ("rrc(2)", "smallest area"),
        ("jitter(1.5)", "strength"),
        ("mixup(-1)", "parameter of the Beta distribution"),
        ("cutmix(101)", "parameter of the Beta distribution"),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(ValueError, match=rf"^--data\.augment: .*{message.removeprefix('--data.augment: ')}"):
        parse(text)
