"""Models: ours, and the ways in which a student or a teacher comes to be."""

from __future__ import annotations

import argparse
import logging

import pytest
import safetensors.torch
import timm
import torch

from kdprune.models.build import (
    InputSpec,
    build_student,
    build_teacher,
    check_model_name,
    count_parameters,
    load_model,
    resolve_teacher,
    save_model,
)
from kdprune.models.cifar_resnet import CifarResNet

GREY = {"channels": 1, "image_size": 8, "mean": (0.3,), "std": (0.2,)}


@pytest.fixture(autouse=True)
def _one_thread():
    """Networks this small only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(num_classes: int = 10, name: str = "cifar_resnet8", **more):
    return build_student(name, num_classes, **{**GREY, **more})


# --- the papers' networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "millions"), [("cifar_resnet20", 0.27), ("cifar_resnet32", 0.46), ("cifar_resnet44", 0.66),
                           ("cifar_resnet56", 0.85), ("cifar_resnet110", 1.7)]
)  # fmt: skip
def test_parameters_are_as_many_as_in_the_paper(name, millions):
    digits = 1 if name == "cifar_resnet110" else 2
    assert round(count_parameters(timm.create_model(name)) / 1e6, digits) == millions


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # Of VGG: the counts of the widespread implementation with a bias in each convolution, less these biases.
        ("cifar_vgg11", 9_231_114 - 2752), ("cifar_vgg13", 9_416_010 - 2944), ("cifar_vgg16", 14_728_266 - 4224),
        ("cifar_vgg19", 20_040_522 - 5504),
        ("lenet_300_100", 266_610),  # LeCun et al. 1998; "266K" in Frankle & Carbin 2019, figure 2
    ],
)  # fmt: skip
def test_parameters_of_the_lottery_papers_networks(name, parameters):
    assert count_parameters(timm.create_model(name)) == parameters


def test_parameters_of_wide_networks_are_as_many_as_in_the_paper():
    """Zagoruyko & Komodakis 2016, table 4: WRN-16-8 11.0M, WRN-40-4 8.9M."""
    assert round(count_parameters(timm.create_model("cifar_wrn16_8")) / 1e6, 1) == 11.0
    assert round(count_parameters(timm.create_model("cifar_wrn16_8", depth=40, width=4)) / 1e6, 1) == 8.9


OURS = [name for pattern in ("cifar_*", "mlp_*", "lenet_*") for name in timm.list_models(pattern)]


@pytest.mark.parametrize("name", OURS)
def test_every_network_of_ours_gives_logits_and_takes_a_new_head(name):
    size = 8 if name.startswith("cifar") else 28
    model = timm.create_model(name, in_chans=1, num_classes=7, drop_rate=0.1).eval()
    x = torch.randn(2, 1, size, size)
    features = model.forward_features(x)
    assert torch.equal(model.forward_head(features), model(x))
    assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)
    assert model(x).shape == (2, 7)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    assert model.get_classifier().out_features == 3
    model.reset_classifier(0)
    assert model(x).shape == (2, model.num_features)


def test_shortcuts_have_no_parameters_unless_projected():
    def shortcut(**how) -> int:
        return count_parameters(timm.create_model("cifar_resnet8", **how).layer2[0].downsample)

    assert shortcut() == 0
    assert shortcut(projection=True) == 16 * 32 + 2 * 32


def test_padded_shortcut_keeps_the_input_and_adds_zeros():
    model = timm.create_model("cifar_resnet8")
    x = torch.randn(1, 16, 8, 8)
    out = model.layer2[0].downsample(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert out.abs().sum() == out[:, 8:24].abs().sum()


def test_stages_are_found_by_path():
    model = timm.create_model("cifar_resnet8").eval()
    seen = []
    for stage in range(3):
        path = f"layer{stage + 1}"
        model.get_submodule(path).register_forward_hook(lambda module, args, output: seen.append(output.shape))
    model(torch.randn(1, 3, 32, 32))
    assert seen == [(1, 16 * 2**stage, 32 // 2**stage, 32 // 2**stage) for stage in range(3)]


def test_features_only_of_timm_works():
    maps = timm.create_model("cifar_resnet8", features_only=True, out_indices=(0, 1, 2))(torch.randn(1, 3, 32, 32))
    assert [tuple(x.shape[1:]) for x in maps] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_mlp_has_hintons_layers():
    model = timm.create_model("mlp_800")
    assert [tuple(p.shape) for p in model.parameters()] == [(800, 784), (800,), (800, 800), (800,), (10, 800), (10,)]
    assert timm.create_model("mlp_64", img_size=8, in_chans=3).fc1.in_features == 3 * 64


def test_mlp_drops_hidden_units_in_training_only():
    model = timm.create_model("mlp_64", drop_rate=0.5)
    x = torch.randn(2, 1, 28, 28)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_depth_that_no_network_has_is_refused():
    with pytest.raises(ValueError, match=r"6n\+2"):
        CifarResNet(depth=21)


# --- names --------------------------------------------------------------------------------------------------------


def test_a_wrong_name_comes_back_with_at_most_five_near_ones():
    with pytest.raises(ValueError, match="did you mean 'cifar_resnet20'") as caught:
        check_model_name("cifar_resnet_20")
    assert str(caught.value).count(" or '") <= 5


def test_a_wrong_tag_comes_back_with_those_that_exist():
    with pytest.raises(ValueError, match=r"resnet18\.a1_in1k"):
        check_model_name("resnet18.a9_in1k")


def test_names_that_timm_builds_are_accepted():
    for name in ("resnet18", "resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k", "mlp_800"):
        check_model_name(name)


# --- students -----------------------------------------------------------------------------------------------------


def test_a_student_from_scratch_is_shaped_by_the_data():
    built = tiny(7)
    assert built.spec == InputSpec(1, 8, (0.3,), (0.2,))
    assert built.model(torch.randn(2, 1, 8, 8)).shape == (2, 7)


def test_without_a_size_the_model_says_which():
    assert build_student("resnet18", 10, channels=3).spec.size == 224
    assert build_student("cifar_resnet8", 10).spec.size == 32


def test_normalisation_must_have_a_value_for_each_channel():
    assert tiny(channels=3).spec.mean == (0.3, 0.3, 0.3)
    with pytest.raises(ValueError, match="2 values for images of 1 channel"):
        tiny(mean=(0.1, 0.2))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mlp_64"])
def test_models_of_fixed_size_are_built_for_the_images(name):
    built = build_student(name, 10, channels=1, image_size=32)
    assert built.model(torch.randn(2, 1, 32, 32)).shape == (2, 10)


def test_images_smaller_than_a_patch_are_refused():
    with pytest.raises(ValueError, match="smaller than one"):
        build_student("vit_tiny_patch16_224", 10, image_size=8)


def test_arguments_that_the_model_does_not_know_are_named():
    with pytest.raises(ValueError, match=r"cannot build resnet18 with .*drop_pth_rate"):
        build_student("resnet18", 10, drop_pth_rate=0.1)


def pretrained_resnet18(tmp_path, classes: int = 12) -> dict:
    """Weights as timm's own, in a file, since nothing is downloaded here."""
    torch.manual_seed(1)
    file = tmp_path / "resnet18.safetensors"
    safetensors.torch.save_file(timm.create_model("resnet18", num_classes=classes).state_dict(), file)
    return {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file), "num_classes": classes}}


def test_a_pretrained_student_keeps_its_normalisation_and_gets_a_new_head(tmp_path, caplog):
    built = build_student("resnet18", 10, **GREY, **pretrained_resnet18(tmp_path))
    assert built.spec.channels == 3
    assert built.spec.size == 224
    assert built.spec.mean == timm.create_model("resnet18").pretrained_cfg["mean"]
    assert built.model.fc.out_features == 10
    assert "a new head for 10 classes" in caplog.text


def test_an_explicit_wish_goes_before_what_the_pretrained_model_says(tmp_path):
    built = build_student("resnet18", 10, in_chans=1, img_size=64, **pretrained_resnet18(tmp_path))
    assert (built.spec.channels, built.spec.size, len(built.spec.mean)) == (1, 64, 1)
    assert built.model(torch.randn(1, 1, 64, 64)).shape == (1, 10)


def test_a_download_that_fails_says_what_was_tried_and_what_else_there_is(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    with pytest.raises(ValueError, match=r"timm/resnet18\.a1_in1k.*Name or service not known.*checkpoint file"):
        build_student("resnet18", 10, pretrained=True)


def test_a_model_without_pretrained_weights_is_named():
    with pytest.raises(ValueError, match="no pretrained weights for cifar_resnet8"):
        build_student("cifar_resnet8", 10, pretrained=True)


def test_a_student_starts_from_a_checkpoint_with_another_head(tmp_path, caplog):
    source = tiny(5)
    save_model(tmp_path / "five.safetensors", source)
    built = build_student("cifar_resnet8", 10, checkpoint=tmp_path / "five.safetensors")
    assert "a new head for 10 classes" in caplog.text
    assert built.spec == source.spec
    assert torch.equal(built.model.conv1.weight, source.model.conv1.weight)
    assert built.model.fc.out_features == 10


def test_pretrained_beside_a_checkpoint_warns(tmp_path, caplog):
    save_model(tmp_path / "x.safetensors", tiny())
    build_student("cifar_resnet8", 10, pretrained=True, checkpoint=tmp_path / "x.safetensors")
    assert "no effect" in caplog.text


# --- files --------------------------------------------------------------------------------------------------------


def test_a_saved_model_loads_strictly_into_timms(tmp_path):
    built = build_student("cifar_resnet14", 7, channels=3, image_size=16)
    save_model(tmp_path / "m.safetensors", built)
    fresh = timm.create_model("cifar_resnet14", num_classes=7)
    fresh.load_state_dict(safetensors.torch.load_file(tmp_path / "m.safetensors"), strict=True)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(fresh.eval()(x), built.model.eval()(x))


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("cifar_resnet8", {"projection": True}),
        ("mlp_64", {"drop_rate": 0.3}),
        ("vit_tiny_patch16_224", {"image_size": 32}),
    ],
)
def test_a_saved_model_comes_back_whole(tmp_path, name, more):
    built = tiny(3, name, **more)
    built.classes, built.info = ["a", "b", "ç"], {"smoothing": 0.1, "epoch": 4}
    built.model.to(memory_format=torch.channels_last)
    save_model(tmp_path / "m.safetensors", built)
    back = load_model(tmp_path / "m.safetensors")
    assert (back.name, back.num_classes, back.spec) == (built.name, built.num_classes, built.spec)
    assert (back.classes, back.info) == (built.classes, built.info)
    x = torch.randn(2, 1, built.spec.size, built.spec.size)
    torch.testing.assert_close(back.model.eval()(x), built.model.eval()(x))


def test_wrappers_of_torch_leave_no_prefix_in_a_saved_file(tmp_path):
    built = tiny()
    built.model = torch.nn.DataParallel(torch.compile(built.model))
    save_model(tmp_path / "m.safetensors", built)
    assert "conv1.weight" in safetensors.torch.load_file(tmp_path / "m.safetensors")


def test_a_file_without_our_header_needs_a_name(tmp_path):
    safetensors.torch.save_file({"w": torch.zeros(1)}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="does not say which model"):
        load_model(tmp_path / "m.safetensors")


@pytest.mark.parametrize("file", ["m.safetensors", "m.pth"])
def test_a_damaged_file_is_named(tmp_path, file):
    (tmp_path / file).write_bytes(b"\x00" * 5)
    with pytest.raises(ValueError, match=rf"{file} is damaged or not"):
        build_teacher("cifar_resnet8", 10, checkpoint=tmp_path / file)


def test_a_missing_file_and_an_unknown_kind_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no such checkpoint file: .*gone\.pth"):
        build_student("cifar_resnet8", 10, checkpoint=tmp_path / "gone.pth")
    (tmp_path / "m.onnx").touch()
    with pytest.raises(ValueError, match=r"m\.onnx.*\.safetensors, \.pth"):
        build_student("cifar_resnet8", 10, checkpoint=tmp_path / "m.onnx")


def prefixed(prefix: str, state: dict) -> dict:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
        lambda state: {"model": prefixed("module.", state)},
        lambda state: {"state_dict": {"x": torch.zeros(1)}, "state_dict_ema": prefixed("module._orig_mod.", state)},
        lambda state: {"state_dict": prefixed("model.", state), "state_dict_ema": None},
    ],
)
def test_weights_are_found_in_any_usual_wrapper(tmp_path, wrap):
    source = tiny()
    for suffix in (".pth", ".pth.tar"):
        torch.save(wrap(source.model.state_dict()), tmp_path / f"m{suffix}")
        built = build_teacher("cifar_resnet8", 10, checkpoint=tmp_path / f"m{suffix}", **GREY)
        assert torch.equal(built.model.fc.weight, source.model.fc.weight)


class Unsafe:
    pass


def test_a_pickle_that_could_run_code_is_refused_with_the_way_out(tmp_path):
    torch.save({"state_dict": tiny().model.state_dict(), "args": Unsafe()}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"Unsafe.*could run code.*safetensors\.torch\.save_file"):
        build_student("cifar_resnet8", 10, checkpoint=tmp_path / "m.pth")


def test_a_file_without_weights_says_what_it_holds(tmp_path):
    torch.save({"epoch": 3, "note": "x"}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"holds no weights.*found epoch, note"):
        build_student("cifar_resnet8", 10, checkpoint=tmp_path / "m.pth")


def test_weights_of_another_model_are_refused(tmp_path):
    state = tiny().model.state_dict()
    state["extra.weight"] = state.pop("layer1.0.conv1.weight")
    state["conv1.weight"] = torch.zeros(16, 3, 3, 3)
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(
        ValueError, match=r"1 missing \(layer1.*1 unexpected \(extra.*\(16, 3, 3, 3\) for \(16, 1, 3, 3\)"
    ):
        build_student("cifar_resnet8", 10, checkpoint=tmp_path / "m.pth", **GREY)
    save_model(tmp_path / "ours.safetensors", tiny())
    with pytest.raises(ValueError, match="weights of cifar_resnet8, not of cifar_resnet14"):
        build_student("cifar_resnet14", 10, checkpoint=tmp_path / "ours.safetensors")


# --- teachers -----------------------------------------------------------------------------------------------------


def test_a_teacher_without_weights_is_refused():
    with pytest.raises(ValueError, match="teacher resnet18 has no weights"):
        build_teacher("resnet18", 10)


def test_a_pretrained_teacher_never_gets_a_random_head(tmp_path):
    how = pretrained_resnet18(tmp_path, classes=12)
    with pytest.raises(ValueError, match="has 12 classes, the data has 10"):
        build_teacher("resnet18", 10, **how)
    built = build_teacher("resnet18", 12, **how)
    weights = safetensors.torch.load_file(how["pretrained_cfg_overlay"]["file"])
    assert torch.equal(built.model.fc.weight, weights["fc.weight"])
    assert not built.model.training
    assert not any(parameter.requires_grad for parameter in built.model.parameters())


def test_a_checkpoint_with_another_class_count_or_no_head_is_no_teacher(tmp_path):
    state = tiny(5).model.state_dict()
    torch.save(state, tmp_path / "five.pth")
    with pytest.raises(ValueError, match="10 classes: it has 5 classes"):
        build_teacher("cifar_resnet8", 10, checkpoint=tmp_path / "five.pth", **GREY)
    torch.save({key: value for key, value in state.items() if not key.startswith("fc")}, tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"no classifier \(fc\.weight is absent\)"):
        build_teacher("cifar_resnet8", 10, checkpoint=tmp_path / "none.pth", **GREY)


def finished_run(folder, epochs=(2, 5), classes=None):
    built = tiny(classes=classes)
    for epoch in epochs:
        built.info = {"epoch": epoch}
        save_model(folder / f"checkpoints/epoch_{epoch:04d}.safetensors", built)
    built.info = {}
    save_model(folder / "student.safetensors", built)
    return str(folder)


def test_an_earlier_run_is_a_teacher(tmp_path):
    run = finished_run(tmp_path / "run")
    teacher = build_teacher(run, 10)
    assert (teacher.name, teacher.spec, teacher.info) == ("cifar_resnet8", InputSpec(1, 8, (0.3,), (0.2,)), {})
    assert build_teacher(f"{run}@5", 10).info == {"epoch": 5}
    with pytest.raises(ValueError, match="has 10 classes, the data has 7"):
        build_teacher(run, 7)


def test_an_epoch_that_was_not_kept_lists_those_that_were(tmp_path):
    run = finished_run(tmp_path / "run")
    for wrong in ("3", "last"):
        with pytest.raises(ValueError, match=rf"'{wrong}' \(kept: 2, 5\)"):
            resolve_teacher(f"{run}@{wrong}")


def test_a_name_is_a_path_only_where_it_looks_like_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet18").mkdir()  # not a run, so the model keeps its name
    assert resolve_teacher("resnet18") is None
    assert resolve_teacher("hf-hub:timm/resnet18@main") is None
    assert resolve_teacher("resnet81") is None
    with pytest.raises(ValueError, match="no such run directory: runs/gone"):
        resolve_teacher("runs/gone@3")
    with pytest.raises(ValueError, match=r"no such checkpoint file: gone\.safetensors"):
        resolve_teacher("gone.safetensors")
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(ValueError, match=r"has no student\.safetensors"):
        resolve_teacher("unfinished")


def test_classes_in_another_order_are_refused_and_other_names_warn(tmp_path, caplog):
    names = [f"class {number}" for number in range(10)]
    run = finished_run(tmp_path / "run", classes=names)
    assert build_teacher(run, 10, classes=names).classes == names
    with pytest.raises(ValueError, match="another order"):
        build_teacher(run, 10, classes=names[::-1])
    with caplog.at_level(logging.WARNING):
        build_teacher(run, 10, classes=[str(number) for number in range(10)])
    assert "taken to agree by their number" in caplog.text
