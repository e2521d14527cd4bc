"""Teachers that are weighed for each sample, the student's own average as teacher, features by timm's stages."""

import logging

import pytest
import timm
import torch
from helpers import config_of, metrics, train

from kdprune.checks import check
from kdprune.models.build import build_student, load_model
from kdprune.models.features import Features, channels_first, last_stages
from kdprune.models.inputs import Inputs
from kdprune.teachers.ensemble import combine, correctness_weights
from kdprune.teachers.targets import MeanTargets
from kdprune.training.observers import Observer


def logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


def test_a_teacher_counts_as_much_as_it_believes_the_label():
    """Against the definition, sample by sample: w_k·p_k(y) / Σ_j w_j·p_j(y)."""
    zs, weights = [logits(8, 5, seed=k) for k in range(3)], [0.2, 0.3, 0.5]
    target = torch.arange(8) % 5
    ours = torch.stack(correctness_weights(zs, weights, target))
    for n in range(8):
        belief = [w * z[n].double().softmax(0)[target[n]] for w, z in zip(weights, zs, strict=True)]
        expected = torch.stack(belief) / sum(belief)
        assert torch.allclose(ours[:, n].double(), expected, atol=1e-6)


def test_one_hot_probabilities_are_class_ids_and_mixed_ones_are_averaged():
    zs, target = [logits(6, 4, seed=k) for k in range(2)], torch.tensor([0, 1, 2, 3, 0, 1])
    one_hot = torch.nn.functional.one_hot(target, 4).float()
    for a, b in zip(
        correctness_weights(zs, [0.5, 0.5], target), correctness_weights(zs, [0.5, 0.5], one_hot), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-6)
    half = torch.full((6, 4), 0.25)  # every teacher believes a uniform label alike
    assert torch.allclose(torch.stack(correctness_weights(zs, [0.5, 0.5], half)), torch.full((2, 6), 0.5), atol=1e-6)


def test_weights_for_each_sample_average_probabilities():
    zs, weights = [logits(7, 5, seed=k) for k in range(2)], [torch.rand(7), None]
    weights[1] = 1 - weights[0]
    expected = sum(w[:, None] * (z / 4).softmax(1) for w, z in zip(weights, zs, strict=True))
    assert torch.allclose((combine(zs, 4.0, weights, [4.0, 4.0]) / 4).softmax(1), expected, atol=1e-6)


def test_confidently_wrong_teachers_leave_finite_weights():
    zs = [torch.tensor([[500.0, 0.0]]), torch.tensor([[0.0, 500.0]])]
    weights = correctness_weights(zs, [0.5, 0.5], torch.tensor([1]))
    assert torch.equal(torch.stack(weights), torch.tensor([[0.0], [1.0]]))
    assert combine(zs, 4.0, weights, [4.0, 4.0]).isfinite().all()
    mixed = correctness_weights([torch.tensor([[500.0, 0.0, 1.0]])] * 2, [0.3, 0.7], torch.tensor([[0.0, 0.5, 0.5]]))
    assert torch.allclose(torch.stack(mixed), torch.tensor([[0.3], [0.7]]))


class Losses(Observer):
    """What each batch's loss should be, of the teachers' logits, beside what it was."""

    def __init__(self, teachers, expected) -> None:
        self.teachers, self.expected, self.seen = [load_model(path) for path in teachers], expected, []
        for teacher in self.teachers:
            teacher.model.eval()

    def batch(self, batch, result) -> None:
        with torch.no_grad():
            zs = [one.model(Inputs(one.spec, batch.images.device)(batch.images)) for one in self.teachers]
        self.seen.append((result.kd_loss.item(), self.expected(zs, batch, result.output).item()))


def test_weighing_by_correctness_is_for_each_sample_of_a_training(tmp_path, digits_teacher):
    teachers = [f"{digits_teacher}@1", str(digits_teacher)]
    files = [digits_teacher / "checkpoints/epoch_0001.safetensors", digits_teacher / "student.safetensors"]

    def expected(zs, batch, output):
        p = [z.softmax(1)[torch.arange(len(z)), batch.labels] for z in zs]
        target = sum((p_k / sum(p))[:, None] * (z / 4).softmax(1) for p_k, z in zip(p, zs, strict=True))
        return 16 * (target * (target.log() - (output / 4).log_softmax(1))).sum(1).mean()

    weighed, equal = Losses(files, expected), Losses(files, expected)
    settings = {"teacher.models": teachers, "train.steps": 3}
    train(tmp_path, {**settings, "teacher.by_correctness": True}, weighed)
    train(tmp_path, settings, equal)
    for was, should in weighed.seen:
        assert was == pytest.approx(should, rel=1e-3)
    assert all(abs(was - should) > 0.01 * should for was, should in equal.seen)


def test_the_students_own_average_teaches(tmp_path):
    summary, run = train(tmp_path, {"teacher.models": "ema", "train.ema": 0.9, "distill.alpha": 0.5})
    assert summary["teacher"][0]["name"] == "ema"
    assert summary["alpha"] == 0.5
    kd = [float(row["kd_loss"]) for row in metrics(run)]
    assert kd[-1] > 0
    assert summary["cost"]["student_training"]["teacher_forward_samples"] == summary["images_seen"]


def test_the_mean_teacher_has_no_gradient_and_follows_the_model_it_was_given():
    model = torch.nn.Linear(4, 3)
    targets = MeanTargets(2.0)
    targets.follow(model)
    batch = type("Batch", (), {"ids": torch.arange(2), "images": torch.ones(2, 4), "target": None})()
    before = targets(batch)
    assert not before.requires_grad
    assert torch.allclose(before, model(batch.images))
    with torch.no_grad():
        model.bias += 1
    assert torch.allclose(targets(batch), before + 1, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"train.ema": 0.0},
        {"train.ema": 0.9, "teacher.models": ["ema", "cifar_resnet8"]},
        {"train.ema": 0.9, "teacher.targets": "cached"},
    ],
)
def test_what_the_mean_teacher_cannot_do_is_refused(tmp_path, options):
    with pytest.raises(ValueError, match=r"only teacher, needs --train\.ema above 0 and --teacher\.targets online"):
        check(config_of(tmp_path, {"teacher.models": "ema", **options}))


def test_layers_default_to_the_last_stages_of_both():
    student, teacher = (
        build_student(name, 10, channels=3, image_size=32).model for name in ("cifar_resnet8", "resnet18")
    )
    assert last_stages(student, teacher) == [("layer1", "layer2"), ("layer2", "layer3"), ("layer3", "layer4")]
    with pytest.raises(ValueError, match=r"name them with --distill\.layers"):
        last_stages(torch.nn.Linear(2, 2), teacher)


def test_features_are_what_the_layer_puts_out():
    model = timm.create_model("cifar_resnet8").eval()
    taps, x = Features(model, ["layer2"], "student"), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        model(x)
    (output,) = taps.taken().values()
    assert output.shape == (2, 32, 16, 16)
    assert taps.taken() == {}
    with pytest.raises(ValueError, match=r"layer of the student 'layer22'; did you mean 'layer2'"):
        Features(model, ["layer22"], "student")


@pytest.mark.parametrize(("name", "path", "index"), [("test_vit", "blocks.3", 3), ("test_mambaout", "stages.2", 2),
                                                     ("test_resnet", "layer3", 3)])  # fmt: skip
def test_maps_are_those_that_timm_itself_gives(name, path, index):
    """Whatever layout the family works in: tokens behind a class token, channels last, channels first."""
    model, x = timm.create_model(name, num_classes=10).eval(), torch.randn(2, 3, 160, 160)
    taps = Features(model, [path], "teacher")
    with torch.no_grad():
        model(x)
        (expected,) = model.forward_intermediates(
            x, indices=[index], output_fmt="NCHW", intermediates_only=True, norm=False
        )
    assert torch.equal(taps.taken()[path], expected)


def test_tokens_of_no_grid_stay_as_they_are():
    model = timm.create_model("test_vit", num_classes=10)
    assert channels_first(torch.zeros(2, 8, 4), model.norm, model).shape == (2, 8, 4)
    assert channels_first(torch.zeros(2, 101, 4), model.norm, torch.nn.Identity()).shape == (2, 101, 4)
    assert channels_first(torch.zeros(2, 64), model.norm, model).shape == (2, 64)


def test_a_transformer_learns_the_features_of_a_convolutional_network(tmp_path, digits_teacher):
    settings = {
        "student.model": "test_vit", "data.image_size": 64, "teacher.models": str(digits_teacher),
        "distill.loss": "kd + fitnet + review",
        "distill.layers": [["blocks.3", "layer2"], ["blocks.5", "layer3"]], "train.steps": 1, "train.batch_size": 8,
    }  # fmt: skip
    assert train(tmp_path, settings)[0]["student"]["name"] == "test_vit"


def test_settings_of_a_training_that_does_not_take_place_warn(tmp_path, digits_teacher, caplog):
    logging.getLogger("kdprune").addHandler(caplog.handler)
    train(tmp_path, {"teacher.models": str(digits_teacher), "teacher.train.epochs": 3, "train.steps": 1})
    assert "--teacher.train.epochs has no effect" in caplog.text
    assert "--teacher.train_fraction" not in caplog.text
