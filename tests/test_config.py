"""Settings: ranges, round trip, and what belongs to the identity of a run."""

import dataclasses
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kdprune.analysis import barrier, detect
from kdprune.checks import RESERVED, check, check_name, checkpoint_interval
from kdprune.config import Config, config_hash, dotted, from_dict, relevant, to_dict
from kdprune.pipeline import obtain_mask, preflight, samples, score, teachers
from kdprune.planning import document
from kdprune.sweep import journal

NOT_IN_HASH = {
    "output", "name", "baseline", "log_with", "remake", "track_energy", "student.allow_collapse", "data.root",
    "data.workers", "teacher.cache",
    *(f"{group}.{name}" for group in ("train", "teacher.train", "record.train")
      for name in ("eval_every", "checkpoint_every", "checkpoint_keep", "save_epochs", "save_steps", "record")),
}  # fmt: skip


def changed(option: str, value) -> Config:
    content = place = to_dict(Config())
    *groups, name = option.split(".")
    for group in groups:
        place = place[group]
    place[name] = value
    return from_dict(content)


def test_the_defaults_are_allowed():
    check(Config())


SIDES = st.integers(1, 500)
NUMBERS = {  # allowed values of settings that may be parts of one
    "(0, 1]": "subset.keep_fraction teacher.train_fraction train.decay_rate",
    "(0, 1)": "record.train_fraction",
    "[0, 1)": "data.val_fraction student.drop_rate student.sparsity teacher.drop_rate train.momentum train.smoothing "
    "train.ema",
    "(0, ∞)": "distill.temperature train.epochs train.lr train.lr_base train.clip_grad",
    "[0, ∞)": "subset.class_floor data.memory_gb train.min_lr train.warmup_epochs train.weight_decay",
}
WHOLE = {
    "[0, ∞)": "data.workers record.epoch student.rewind_to",
    "[1, ∞)": "data.image_size teacher.snapshot teacher.generations teacher.views teacher.top_k train.steps "
    "train.batch_size train.lr_base_size train.grad_accum train.eval_every train.checkpoint_keep record.repeats",
}


def test_values_outside_a_range_are_refused_and_the_range_is_shown():
    """At, just inside of and just outside of both ends."""
    for table, step, never in ((NUMBERS, 1e-9, [math.nan, math.inf, -math.inf]), (WHOLE, 1, [-(10**9)])):
        for allowed, options in table.items():
            low, high = allowed[1:-1].split(", ")
            right, wrong = [int(low) + step], [*never, int(low) - step]
            (right if allowed[0] == "[" else wrong).append(int(low))
            if high != "∞":
                right, wrong = [*right, int(high) - step], [*wrong, int(high) + step]
                (right if allowed[-1] == "]" else wrong).append(int(high))
            of_training = [name for name in options.split() if name.startswith("train.")]
            names = options.split() + [f"{group}.{name}" for group in ("teacher", "record") for name in of_training]
            for option in names:
                for value in wrong:
                    with pytest.raises(ValueError, match=rf"^--{option}: ") as refused:
                        check(changed(option, value))
                    assert allowed in str(refused.value)
                for value in right:
                    check(changed(option, value))


@pytest.mark.parametrize("sides", [[], [64], [64, 0], [64, 48, 3], [-1, 5]])
def test_a_size_that_is_none_is_refused(sides):
    with pytest.raises(ValueError, match=r"^--data.image_size: .* given, allowed is one side or \[height, width\]"):
        check(changed("data.image_size", sides))
    check(changed("data.image_size", [64, 48]))


def test_every_number_among_the_settings_has_a_range():
    numbers = {name for name, value in dotted(to_dict(Config())).items() if type(value) in (int, float)}
    ranged = " ".join([*NUMBERS.values(), *WHOLE.values()]).split()
    assert numbers - set(ranged) == {"seed"}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        (
            "subset.selector",
            "randm",
            r"--subset.selector: unknown selector 'randm'; did you mean 'random'\? \(allowed: .*random",
        ),
        ("data.augment", "flop", "did you mean 'flip'"),
        ("teacher.augment", "flop", "--teacher.augment: unknown part 'flop'; did you mean 'flip'"),
        ("distill.loss", "kdd", r"--distill.loss: unknown loss 'kdd'; did you mean 'kd'\?"),
        ("distill.alpha", "linear(3, 2)", "--distill.alpha"),
        ("distill.alpha", "linear(1.0, 1.2)", "allowed is"),
        ("train.checkpoint_every", "often", "--train.checkpoint_every: 'often' given, allowed are epochs"),
        ("teacher.weights", [1.0], r"--teacher.weights: 1 given for 0 teachers \(none\); allowed are none, or one for"),
    ],
)
def test_mistakes(option, value, message):
    with pytest.raises(ValueError, match=message):
        check(changed(option, value))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": [0.5]}, r"--teacher.weights: 1 given for 2 teachers \(a, b\)"),
        ({"weights": [0.0, 0.0]}, "--teacher.weights: .* numbers ≥ 0 with a positive sum"),
        ({"weights": [2.0, -1.0]}, "numbers ≥ 0"),
        ({"temperatures": [4.0]}, "--teacher.temperatures: 1 given for 2"),
        ({"temperatures": [4.0, 0.0]}, "--teacher.temperatures: .* numbers > 0"),
        ({"checkpoints": "x.safetensors"}, "--teacher.checkpoints: 1 given for 2"),
    ],
)
def test_several_teachers_need_a_value_each(settings, message):
    with pytest.raises(ValueError, match=message):
        check(from_dict({"teacher": {"models": "a, b", **settings}}))


def test_one_name_or_several_become_a_list():
    for given_, expected in [("a", ["a"]), ("a,b", ["a", "b"]), (["a", "b"], ["a", "b"]), ("", []), (None, [])]:
        assert changed("teacher.models", given_).teacher.models == expected
        assert changed("log_with", given_).log_with == expected


def test_classes_to_leave_out():
    for given_, expected in [("3", ["3"]), (3, ["3"]), ("cat, 4", ["cat", "4"]), ([3, "cat"], ["3", "cat"]), ([], [])]:
        assert changed("subset.without_classes", given_).subset.without_classes == expected
    config = changed("subset.without_classes", [3])
    config.subset.file = "subset.json"
    with pytest.raises(ValueError, match=r"--subset\.without_classes: given beside --subset\.file"):
        check(config)


def test_checkpoint_intervals():
    assert checkpoint_interval("2") == (2.0, None)
    assert checkpoint_interval("0.5") == (0.5, None)
    assert checkpoint_interval("5min") == (None, 5.0)
    assert changed("train.checkpoint_every", 1).train.checkpoint_every == "1"
    for wrong in ("", "0", "-1", "nan", "inf", "min", "5 hours", "0min"):
        with pytest.raises(ValueError, match="checkpoint_every"):
            checkpoint_interval(wrong)


configs = st.builds(
    from_dict,
    st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**31),
            "name": st.none() | st.text("abc-_.0 :#'\"", min_size=1),
            "data": st.fixed_dictionaries(
                {"image_size": st.none() | st.integers(1, 500) | st.lists(st.integers(1, 500), min_size=2, max_size=2)}
            ),
            "subset": st.fixed_dictionaries({"keep_fraction": st.floats(1e-6, 1)}),
            "teacher": st.fixed_dictionaries(
                {
                    "models": st.lists(st.sampled_from(["resnet18", "runs/a@5", "hf-hub:timm/x"])),
                    "weights": st.none() | st.lists(st.floats(0, 1e300)),
                    "train": st.fixed_dictionaries({"save_epochs": st.lists(st.integers(1, 300))}),
                }
            ),
            "distill": st.fixed_dictionaries({"alpha": st.floats(0, 1) | st.just("linear(1.0, 0.5) * late(0.8)")}),
            "train": st.fixed_dictionaries({"lr": st.floats(1e-12, 1e12), "checkpoint_every": st.just("1")}),
        }
    ),
)


@given(configs)
def test_settings_survive_yaml_with_their_hash(config):
    again = from_dict(yaml.safe_load(yaml.safe_dump(to_dict(config), sort_keys=False)))
    assert again == config
    assert config_hash(again) == config_hash(config)


def test_unknown_settings_are_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="unknown setting 'tarin'; did you mean 'train'"):
        from_dict({"tarin": {}})
    with pytest.raises(ValueError, match="unknown setting 'ephocs'; did you mean 'epochs'"):
        from_dict({"train": {"ephocs": 3}})
    for wrong in ({"data": "digits"}, {"data": None}, ["data"], None):
        with pytest.raises(ValueError, match="given, allowed are settings by name"):
            from_dict(wrong)


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("train.lr", "fast", "a number"),
        ("train.lr", True, "a number"),
        ("train.lr", 10**400, "a number"),
        ("train.epochs", None, "a number"),
        ("seed", 1.5, "a whole number"),
        ("data.workers", True, "a whole number or null"),
        ("baseline", 1, "true or false"),
        ("output", None, "text"),
        ("train.sched", "cosin", "cosine or multistep or poly or onecycle or none; did you mean cosine?"),
        ("train.save_epochs", ["a"], "a list of whole numbers"),
        ("teacher.weights", "lerned", "learned or null; did you mean learned?"),
        ("distill.layers", ["a"], "a list of lists of texts"),
    ],
)
def test_a_value_of_another_type_is_refused_as_on_the_command_line(option, value, allowed):
    with pytest.raises(ValueError, match=rf"^--{option}: .* given, allowed is ") as caught:
        changed(option, value)
    assert allowed in str(caught.value)


def test_text_and_numbers_are_read_as_on_the_command_line():
    assert changed("train.lr", "1e-3").train.lr == 1e-3  # PyYAML reads this number as text
    assert changed("train.steps", "7").train.steps == 7
    assert changed("distill.alpha", "0.5").distill.alpha == "0.5"  # which may be text
    assert changed("distill.layers", [("a", "b")]).distill.layers == [["a", "b"]]
    assert changed("train.save_epochs", None).train.save_epochs == []
    for loss in (["kd", {"name": "dkd", "params": {"beta": 2}}], {"name": "kd", "weight": 0.5}):
        assert changed("distill.loss", loss).distill.loss == loss


def test_the_hash_sees_what_the_result_depends_on_and_nothing_else():
    for option in dotted(to_dict(Config())):
        config = Config()
        *groups, name = option.split(".")
        place = config
        for group in groups:
            place = getattr(place, group)
        setattr(place, name, "another value")
        irrelevant = option in NOT_IN_HASH
        assert (config_hash(config) == config_hash(Config())) == irrelevant, option
        assert (option in relevant(config)) != irrelevant, option


def test_every_setting_has_a_help_text():
    for kind in (Config, *(f.default_factory for f in dataclasses.fields(Config) if f.name in to_dict(Config()))):
        if dataclasses.is_dataclass(kind):
            for field in dataclasses.fields(kind):
                nested = dataclasses.is_dataclass(field.default_factory)
                assert nested or f"\n        {field.name}: " in kind.__doc__, f"{kind.__name__}.{field.name}"


def test_no_run_is_called_like_a_folder_of_the_output():
    """Where a stage keeps its results, a run of that name would be in their way."""
    stages = (barrier, detect, document, journal, obtain_mask, preflight, samples, score)
    folders = {stage.FOLDER for stage in stages} | {teachers.TEACHERS}
    assert folders <= set(RESERVED)
    for name in RESERVED:
        with pytest.raises(ValueError, match="--name"):
            check_name(name)
