"""Students with fewer channels: what is left computes what the whole network does without them, and is a student."""

import copy
import importlib.util
import itertools
import json
from dataclasses import replace

import pytest
import safetensors.torch
import timm
import torch
from helpers import StopIn, said_by, train
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import kdprune
from kdprune.export.export import export
from kdprune.models.build import build_student, build_teacher, load_model
from kdprune.models.channels import require_torch_pruning
from kdprune.models.narrow import check_widths, create_narrow, narrow
from kdprune.models.removed import IN, OUT, silence, without
from kdprune.models.saved import save_model
from kdprune.models.weights import METADATA_KEY, read_header, read_weights
from kdprune.pipeline.channel_scores import keep
from kdprune.pipeline.evaluate import evaluate_run
from kdprune.pipeline.shrink import shrink
from kdprune.training.interrupt import Interrupted

needs_torch_pruning = pytest.mark.skipif(
    importlib.util.find_spec("torch_pruning") is None, reason="torch-pruning is an extra: pip install 'kdprune[shrink]'"
)
GREY = {"channels": 1, "image_size": 8}
NARROW = {  # of cifar_resnet8: 5 of the 16 channels inside the first block
    "layer1.0.conv1.weight": (5, 16, 3, 3), "layer1.0.bn1.weight": (5,), "layer1.0.bn1.bias": (5,),
    "layer1.0.bn1.running_mean": (5,), "layer1.0.bn1.running_var": (5,), "layer1.0.conv2.weight": (16, 5, 3, 3),
}  # fmt: skip


@torch.no_grad()
def lived_in(model):
    """Weights and statistics that all differ, as after a training."""
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            lowest = ((layer.weight, 0.5), (layer.bias, -0.2), (layer.running_mean, -0.2), (layer.running_var, 0.5))
            for tensor, low in lowest:
                tensor.copy_(low + torch.rand(tensor.shape, generator=generator))
    return model.eval()


def whole(name, path, classes=5, **how):
    torch.manual_seed(0)
    built = build_student(name, classes, **{"channels": 3, "image_size": 32, **how})
    lived_in(built.model)
    save_model(path, built)
    return built


def by_hand(path):
    """A narrow student that no command has made; with the whole network that it is a part of."""
    built = whole("cifar_resnet8", path.with_name("whole.safetensors"), 10, **GREY)
    removed = {("layer1.0.conv1", OUT): list(range(5, 16)), ("layer1.0.bn1", OUT): list(range(5, 16))}
    removed["layer1.0.conv2", IN] = list(range(5, 16))
    small, widths = create_narrow("cifar_resnet8", 10, 1, 8, {}, NARROW)
    small.load_state_dict(without(built.model.state_dict(), built.model, removed))
    save_model(path, replace(built, model=small, widths=widths))
    return built, removed


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "student.safetensors"
    by_hand(path)
    return path


def logits(model, images):
    with torch.inference_mode():
        return copy.deepcopy(model).eval()(images)


def images(size, channels, dtype=torch.float32):
    return torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)


def kept_inputs(whole_OIKK, small_OIKK):
    """Which inputs of a weight are left, told by its values alone."""
    row = next(row for row in whole_OIKK if (row == small_OIKK[0, 0]).flatten(1).all(1).any())
    same = (row[None] == small_OIKK[0][:, None]).flatten(2).all(2)
    assert (same.sum(1) == 1).all()
    return same.nonzero()[:, 1]


@torch.no_grad()
def deaf(model, small):
    """The whole network, in which nothing reads a channel that `small` has not: found by values, without any graph."""
    model, left = copy.deepcopy(model).double(), dict(small.double().named_modules())
    for path, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.shape[1] > 1:
            weight, of_small = (x.weight.reshape(*x.weight.shape[:2], -1, 1) for x in (layer, left[path]))
            gone = torch.ones(weight.shape[1], dtype=torch.bool)
            gone[kept_inputs(weight, of_small)] = False
            layer.weight[:, gone] = 0
    return model


# --- files


def test_a_narrow_network_is_the_whole_one_that_does_not_read_the_rest(tmp_path):
    built, _ = by_hand(tmp_path / "s.safetensors")
    small = load_model(tmp_path / "s.safetensors").model
    x = images(8, 1, torch.float64)
    expected = logits(deaf(built.model, small), x)
    assert torch.allclose(logits(small.double(), x), expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(logits(built.model.double(), x), expected, atol=1e-3), "the channels matter"


def test_a_file_of_it_is_read_as_it_was_written(small, tmp_path):
    first = load_model(small)
    assert first.widths == NARROW == {name: tuple(shape) for name, shape in read_header(small)["widths"].items()}
    save_model(tmp_path / "again.safetensors", first)
    assert (tmp_path / "again.safetensors").read_bytes() == small.read_bytes()
    again, x = load_model(tmp_path / "again.safetensors").model, images(8, 1)
    assert torch.equal(logits(again, x), logits(first.model, x))
    block = first.model.layer1[0]
    assert (block.conv1.out_channels, block.bn1.num_features, block.conv2.in_channels) == (5, 5, 5)


def test_a_dense_student_has_no_widths(tmp_path):
    save_model(tmp_path / "w.safetensors", build_student("mlp_64", 10, **GREY))
    assert "widths" not in read_header(tmp_path / "w.safetensors")


def test_timm_users_get_timms_network(small):
    student = kdprune.load_student(small)
    assert type(student).__name__ == "CifarResNet"
    assert student(images(8, 1)).shape == (3, 10)
    student.load_state_dict(safetensors.torch.load_file(small), strict=True)


def test_a_new_head_suits_the_features_that_are_left():
    widths = {"layer4.1.conv2.weight": (7, 512, 3, 3), "fc.weight": (10, 7)}
    model, found = create_narrow("resnet18", 4, 3, None, {}, widths)
    assert found == {"layer4.1.conv2.weight": (7, 512, 3, 3), "fc.weight": (4, 7)}
    assert model.fc.weight.abs().max() <= 7**-0.5, "it has the values of a new layer"
    assert model.fc.weight.std() > 0
    model.reset_classifier(3)
    assert model.fc.weight.shape == (3, 7)


def test_a_student_of_other_classes_starts_from_the_rest(small):
    torch.manual_seed(1)
    built = build_student("cifar_resnet8", 4, checkpoint=small, **GREY)
    assert built.widths == NARROW
    state = read_weights(small)[0]
    assert all(torch.equal(x, state[name]) for name, x in built.model.state_dict().items() if "fc" not in name)
    assert logits(built.model, images(8, 1)).shape == (3, 4)


def test_depthwise_convolutions_stay_so_and_others_keep_their_groups():
    layers = nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 12, 1, groups=4), nn.Linear(6, 4), nn.BatchNorm1d(4)
    model = nn.Sequential(*layers)
    new = {"0.weight": (6, 1, 3, 3), "0.bias": (6,), "1.weight": (8, 1, 1, 1), "1.bias": (8,), "2.weight": (4, 5)}
    check_widths(model, new)
    narrow(model, new)
    depthwise, grouped, linear, norm = model
    assert (depthwise.groups, depthwise.in_channels, depthwise.out_channels) == (6, 6, 6)
    assert (grouped.groups, grouped.in_channels, grouped.out_channels) == (4, 4, 8)
    assert (linear.in_features, linear.out_features, norm.num_features) == (5, 4, 4)
    assert depthwise(torch.zeros(1, 6, 3, 3)).shape == (1, 6, 1, 1)


def test_the_groups_of_a_convolution_lose_the_same():
    """Literally: of each group the second input, and its weight has one group's inputs."""
    conv = nn.Conv2d(6, 4, 1, groups=2, bias=False)
    state = without({"0.weight": conv.weight.detach()}, nn.Sequential(conv), {("0", IN): [1, 4]})
    assert torch.equal(state["0.weight"], conv.weight[:, [0, 2]])
    silence(nn.Sequential(conv), {("0", IN): [1, 4]})
    assert (conv.weight[:, 1] == 0).all()
    assert (conv.weight[:, [0, 2]] != 0).all()


HOSTILE = {
    "unknown": ({"layer9.0.conv1.weight": [5, 16, 3, 3]}, "which is no tensor of it; did you mean"),
    "no width": ({"num_batches": [3]}, "which is no tensor of it"),
    "larger": ({"layer1.0.conv1.weight": [17, 16, 3, 3]}, "allowed are shapes up to"),
    "huge": ({"layer1.0.conv1.weight": [2**24, 16, 3, 3]}, "allowed are shapes up to"),
    "petabytes": ({"layer1.0.conv1.weight": [2**60, 16, 3, 3]}, "'widths'"),
    "zero": ({"layer1.0.conv1.weight": [0, 16, 3, 3]}, "'widths'"),
    "negative": ({"layer1.0.conv1.weight": [-1, 16, 3, 3]}, "'widths'"),
    "fraction": ({"layer1.0.conv1.weight": [1.5, 16, 3, 3]}, "'widths'"),
    "rank": ({"layer1.0.conv1.weight": [5, 16, 3]}, "allowed are shapes up to"),
    "kernel": ({"layer1.0.conv1.weight": [5, 16, 1, 1]}, "kernels of"),
    "norm": ({"layer1.0.bn1.weight": [5]}, "do not fit each other: layer1.0.bn1.bias has 16 values for 5"),
    "chain": ({"layer1.0.conv1.weight": [5, 16, 3, 3]}, "do not fit each other"),
    "classes": ({"fc.weight": [4, 64], "fc.bias": [4]}, "is of 4 classes"),
    "less": ({**NARROW, "layer1.0.conv1.weight": [5, 9, 3, 3]}, "do not fit"),
    "others": ({name: [4 if n == 5 else n for n in shape] for name, shape in NARROW.items()}, "of another shape"),
    "list": ([1], "'widths'"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_widths_of_strangers_are_refused_in_a_line(small, tmp_path, what):
    widths, message = HOSTILE[what]
    state, header = read_weights(small)
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(state, path, metadata={METADATA_KEY: json.dumps({**header, "widths": widths})})
    for use in (load_model, lambda p: build_student("cifar_resnet8", 10, checkpoint=p, **GREY)):
        with pytest.raises(ValueError, match=message) as refusal:
            use(path)
        assert str(path) in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_a_wide_name_takes_no_more_memory_than_its_narrow_widths():
    """The whole network would take 20 TB."""
    with torch.device("meta"):
        wide = timm.create_model("cifar_wrn16_8", num_classes=3, in_chans=1)
    thin = {n: [*(min(size, 4) for size in x.shape[:2]), *x.shape[2:]] for n, x in wide.state_dict().items() if x.ndim}
    model, _ = create_narrow("cifar_wrn16_8", 3, 1, 8, {"width": 2**12}, {**thin, "fc.weight": [3, 4], "fc.bias": [3]})
    assert sum(x.numel() for x in model.parameters()) < 10_000


# --- as a student, and as a teacher


def test_it_is_fine_tuned_evaluated_exported_and_teaches(small, tmp_path):
    settings = {
        "student.model": "cifar_resnet8", "student.checkpoint": str(small), "teacher.models": [str(small)],
        "subset.keep_fraction": 0.5, "train.steps": 2, "name": "tuned",
    }  # fmt: skip
    summary, run = train(tmp_path, settings)
    assert summary["student"]["parameters"] == sum(x.numel() for x in kdprune.load_student(small).parameters())
    assert load_model(run / "student.safetensors").widths == NARROW
    assert evaluate_run(run).result["top1"] == summary["test_top1"]
    done = export(run, "torch-export")
    assert done.difference.relative < 1e-5
    with pytest.raises(ValueError, match="allowed are onnx, torch-export"):
        export(run, "hub-folder")
    assert build_teacher(str(run), 10, **GREY).widths == NARROW
    again, _ = train(tmp_path, {**settings, "teacher.models": [str(run)], "name": "again"})
    assert again["teacher"][0]["parameters"] == summary["student"]["parameters"]


def test_its_training_goes_on_after_a_stop(small, tmp_path):
    settings = {"student.model": "cifar_resnet8", "student.checkpoint": str(small), "train.steps": 4}
    _, straight = train(tmp_path / "straight", settings)
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", settings, StopIn(2))
    _, stopped = train(tmp_path / "stopped", settings)
    assert (stopped / "student.safetensors").read_bytes() == (straight / "student.safetensors").read_bytes()


# --- which channels stay


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5), st.floats(0.01, 0.99), st.sampled_from(["global", "layer"]),
    st.integers(0, 3),
)  # fmt: skip
def test_as_many_channels_stay_as_asked_for_and_each_layer_has_one(sizes, fraction, scope, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = {str(i): torch.randint(3, (size,), generator=generator).double() for i, size in enumerate(sizes)}
    kept = keep(scores, fraction, scope, seed)
    counts = {name: int(one.sum()) for name, one in kept.items()}
    assert all(count >= 1 for count in counts.values())
    if scope == "layer":
        assert counts == {name: max(1, round(fraction * len(score))) for name, score in scores.items()}
    else:
        assert sum(counts.values()) == max(len(sizes), round(fraction * sum(sizes)))
    for name, score in scores.items():
        if 0 < counts[name] < len(score):
            assert score[kept[name]].min() >= score[~kept[name]].max(), "the highest of each layer"


def test_equal_scores_are_ordered_by_the_seed():
    same = {"a": torch.ones(40)}
    first, again, other = (keep(same, 0.5, "global", seed)["a"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not first[:20].all()


# --- the command


def shrunk(tmp_path, name, **how):
    built = whole(name, tmp_path / "whole.safetensors")
    done = shrink(str(tmp_path / "whole.safetensors"), tmp_path / "small", how.pop("channels", 0.5), **how)
    return built, load_model(done.path), done


@needs_torch_pruning
@pytest.mark.parametrize(
    ("name", "scope"),
    [
        *itertools.product(["cifar_resnet8", "cifar_vgg11", "resnet18", "mobilenetv3_small_050"], ["global", "layer"]),
        ("regnetx_002", "layer"),  # grouped convolutions
        ("ghostnet_050", "layer"),  # parts of layers that are put together
        ("test_vit", "layer"),  # hidden units of its MLPs
        pytest.param("densenet121", "global", marks=pytest.mark.slow),
    ],
)
def test_what_is_left_computes_what_the_whole_one_does_without_the_rest(tmp_path, name, scope):
    built, small, done = shrunk(tmp_path, name, scope=scope)
    x = images(32, 3, torch.float64)
    expected = logits(deaf(built.model, small.model), x)
    found = logits(small.model.double(), x)
    assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()
    free = [(c.units, left // c.sets) for c, left in zip(done.coupled, done.left, strict=True) if c.held is None]
    assert free
    if scope == "global":
        assert sum(left for _, left in free) == round(0.5 * sum(units for units, _ in free))
    else:
        assert all(left == round(0.5 * units) for units, left in free)
    assert small.model.state_dict().keys() == built.model.state_dict().keys()
    assert done.parameters[1] == sum(parameter.numel() for parameter in small.model.parameters())


@needs_torch_pruning
def test_widths_are_exact(tmp_path):
    resnet8 = shrunk(tmp_path / "a", "cifar_resnet8", scope="layer", channels=0.25)[1].model
    assert [resnet8.conv1.out_channels, resnet8.fc.in_features] == [16, 64], "a padded shortcut goes by these"
    assert [stage[0].conv1.out_channels for stage in (resnet8.layer1, resnet8.layer2, resnet8.layer3)] == [4, 8, 16]
    vgg = shrunk(tmp_path / "b", "cifar_vgg11", scope="layer")[1].model
    widths = [layer.out_channels for layer in vgg.modules() if isinstance(layer, nn.Conv2d)]
    assert widths == [32, 64, 128, 128, 256, 256, 256, 256]
    assert (vgg.fc.in_features, vgg.fc.out_features, vgg.stage1[0].in_channels) == (256, 5, 3)
    resnet = shrunk(tmp_path / "c", "resnet18", scope="layer")[1].model
    assert resnet.layer3[1].conv1.weight.shape == (128, 128, 3, 3)
    assert resnet.layer4[0].downsample[0].weight.shape == (256, 128, 1, 1)
    mobile = shrunk(tmp_path / "d", "mobilenetv3_small_050", scope="layer")[1].model
    depthwise = [layer for layer in mobile.modules() if isinstance(layer, nn.Conv2d) and layer.groups > 1]
    assert depthwise
    assert all(layer.groups == layer.in_channels == layer.out_channels for layer in depthwise)


@needs_torch_pruning
@pytest.mark.parametrize("importance", ["magnitude", "bn_scale", "random"])
def test_the_same_command_writes_the_same_bytes(tmp_path, importance):
    whole("cifar_resnet8", tmp_path / "whole.safetensors")
    words = ["shrink", tmp_path / "whole.safetensors", "--channels", "0.5", "--importance", importance]
    for name in ("a", "b"):
        status, out, said = said_by([*words, "--output", tmp_path / name])
        assert status == 0, said
    assert (tmp_path / "a/student.safetensors").read_bytes() == (tmp_path / "b/student.safetensors").read_bytes()
    header = read_header(tmp_path / "a/student.safetensors")
    record = header["info"]["shrunk"]
    assert (record["importance"], record["channels"], record["scope"]) == (importance, 0.5, "global")
    assert record["source"] == read_header(tmp_path / "whole.safetensors")["weights_hash"]
    model = load_model(tmp_path / "a/student.safetensors").model
    assert record["parameters"][1] == sum(parameter.numel() for parameter in model.parameters())
    assert record["multiply_adds"][1] < record["multiply_adds"][0]
    assert "layer2.0.conv1" in out
    assert "a padding of channels" in out


@needs_torch_pruning
def test_the_largest_factors_of_batchnorm_stay(tmp_path):
    built, small, _ = shrunk(tmp_path, "cifar_resnet8", importance="bn_scale", scope="layer")
    for stage in ("layer1", "layer2", "layer3"):
        before, after = (getattr(one.model, stage)[0].bn1.weight for one in (built, small))
        assert torch.equal(after.sort().values, before.sort().values[-len(after) :])


@needs_torch_pruning
def test_it_can_be_shrunk_again(tmp_path):
    shrunk(tmp_path, "resnet18", scope="layer")
    done = shrink(str(tmp_path / "small"), tmp_path / "smaller", 0.5, "magnitude", "layer")
    model = load_model(done.path).model
    assert (model.conv1.out_channels, model.layer4[1].conv1.out_channels, model.fc.in_features) == (16, 128, 128)


@needs_torch_pruning
def test_the_students_of_sparse_runs_are_spoken_of(tmp_path):
    settings = {"student.model": "cifar_resnet8", "train.steps": 2, "student.sparsity": 0.5}
    run = train(tmp_path, settings)[1]
    status, _, said = said_by(["shrink", run, "--output", tmp_path / "small"])
    assert status == 0, said
    assert "its student is sparse" in " ".join(said.split())


@needs_torch_pruning
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--channels", "1"], "--channels: 1.0 given"),
        (["--channels", "0"], "--channels: 0.0 given"),
        (["--importance", "magnitud"], "did you mean 'magnitude'"),
        (["--scope", "all"], "unknown scope 'all'"),
        (["--output", "x.safetensors"], "allowed is a folder"),
        (["--output", "."], "holds what is to be shrunk"),
        (["--channels", "0.999"], "none goes"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    whole("cifar_resnet8", tmp_path / "student.safetensors")
    status, _, said = said_by(["shrink", "student.safetensors", "--output", "small", *words])
    assert status == 2
    assert message in " ".join(said.split())
    assert not (tmp_path / "small").exists()


def test_without_torch_pruning_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'kdprune\[shrink\]'"):
        require_torch_pruning()


@needs_torch_pruning
def test_a_graph_that_is_not_the_networks_is_found_out(tmp_path, monkeypatch):
    """The comparison that every command makes, on a graph that names a wrong channel."""
    from kdprune.models.channels import Channels

    right = Channels.removed

    def wrong(self, coupled, units):
        found = right(self, coupled, units)
        one = {of: x for of, x in found.items() if of[1] == IN and len(x) == 1}
        return {**found, **{of: [channel - 1 if channel else 1] for of, (channel,) in one.items()}}

    monkeypatch.setattr(Channels, "removed", wrong)
    whole("cifar_resnet8", tmp_path / "whole.safetensors")
    with pytest.raises(ValueError, match="cannot be removed"):
        shrink(str(tmp_path / "whole.safetensors"), tmp_path / "small", 0.93, "magnitude", "layer")
    assert not (tmp_path / "small").exists()
