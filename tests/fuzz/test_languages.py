"""The little languages of the settings: every text is read, or refused in words, at once."""

from __future__ import annotations

import math

import pytest
from fuzz.inputs import VALUES, accepts, fuzzed, written
from hypothesis import given
from hypothesis import strategies as st

from kdprune import alpha, calls, registry
from kdprune.checks import check, checkpoint_interval
from kdprune.config import Config, from_dict, to_dict
from kdprune.data import recipe
from kdprune.losses.common import expression
from kdprune.models.locate import resolve_teacher
from kdprune.models.names import check_model_name
from kdprune.yaml_text import parse_yaml

AUGMENT = [
    "crop",
    "crop(4)+flip",
    "rrc(0.3)",
    "cutout(8)",
    "jitter(0.4)",
    "mixup(0.2)",
    "cutmix",
    "none",
    "erase(p=0.25)",
]
LOSSES = ["kd", "dkd(alpha=1.0, beta=8.0)", "kd + 100*attention_transfer(layers=[['a', 'b']])", "2*(kd+nkd)", "crd(16)"]
ALPHA = ["linear(1.0, 0.5)", "constant(0.3) * warmup(0.1)", "power(0.1, 1, p=2)", "table([[0.1, 1], [1, 0.5]])", "auto",
         "search([0.1, 1.0], [2, 4])", "0.5", "linear(1, 0)*cosine(0.1)", "late(0.5)", "search"]  # fmt: skip
PLUG_INS = {
    "selectors": ["random", "window(start=0.5)", "ccs(beta=0.1)"],
    "scorers": ["el2n(epoch=10)", "aum", "forgetting"],
    "orders": ["infobatch(0.5, anneal=0.1)", "rs2", "curriculum(pacing='linear')"],
}
MODELS = [
    "resnet18",
    "resnet18.a1_in1k",
    "cifar_resnet20",
    "runs/x@5",
    "x@step3",
    "hf-hub:a/b",
    "ema",
    "a,b",
    "mlp_800",
    ".",
    "/",
]


@fuzzed
@given(written([*AUGMENT, *LOSSES, *ALPHA]))
def test_the_grammar(text):
    accepts(lambda: calls.parse(text))


@fuzzed
@given(written(AUGMENT))
def test_augment(text):
    accepts(lambda: recipe.parse(text))


@fuzzed
@given(written(LOSSES) | VALUES)
def test_losses(value):
    accepts(lambda: expression.parse(value))


@fuzzed
@given(written(ALPHA) | VALUES, st.floats(0.001, 1), st.floats(0, 1))
def test_alpha_is_a_share_or_refused(value, fraction, progress):
    def read() -> None:
        if alpha.search(value) is None:
            assert 0 <= alpha.parse(value).at(fraction, progress) <= 1

    accepts(read)


@pytest.mark.parametrize("kind", PLUG_INS)
def test_plug_ins(kind):
    @fuzzed
    @given(written(PLUG_INS[kind]))
    def run(text):
        accepts(lambda: registry.read_call(kind, text, "--option"))

    run()


@fuzzed
@given(written(MODELS))
def test_names_of_teachers(text):
    accepts(lambda: resolve_teacher(text))
    accepts(lambda: check_model_name(text))


@fuzzed
@given(written(["5min", "1", "1e3min"]))
def test_intervals(text):
    def read() -> None:
        epochs, minutes = checkpoint_interval(text)
        assert math.isfinite(epochs or minutes or 0)

    accepts(read)


@fuzzed
@given(
    written(
        [
            "train:\n  lr: 0.1\n",
            "a: &a [1, 2]",
            "b: *a",
            "- x\n- y\n",
            "? a\n: b",
            "{a: 1}",
            "a: |\n x\n",
            "!!str a",
            "%YAML 1.1\n",
        ]
    )
)
def test_yaml(text):
    accepts(lambda: parse_yaml(text))


@fuzzed
@given(st.data())
def test_settings(data):
    """Any setting with any value, and then all checks."""
    content = to_dict(Config())
    for _ in range(data.draw(st.integers(1, 3))):
        place = content
        while True:
            name = data.draw(st.sampled_from(sorted(place)))
            if not isinstance(place[name], dict) or not place[name] or data.draw(st.integers(0, 9)) == 0:
                break
            place = place[name]
        texts = written([*AUGMENT, *LOSSES, *ALPHA, *MODELS, *PLUG_INS["selectors"]])
        place[name] = data.draw(VALUES | texts | st.lists(texts, max_size=3))
    accepts(lambda: check(from_dict(content)))
