"""Students for elsewhere: their graphs and folders say what the student says, on any batch; and predictions."""

import json

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from helpers import plain, said_by, train
from PIL import Image
from safetensors.torch import load_file

import kdprune
from kdprune.data.framing import frame_image
from kdprune.export import export as exporting
from kdprune.export.card import _text
from kdprune.export.export import export
from kdprune.export.predict import predict
from kdprune.export.student import difference, images_for, load_deployed
from kdprune.models.build import build_student
from kdprune.models.saved import save_model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = {"student.model": "cifar_resnet8", "train.steps": 6, "name": "run", "train.save_steps": [3]}
    return train(tmp_path_factory.mktemp("runs"), {**settings, "subset.keep_fraction": 0.5})[1]


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A file with an untrained ViT of timm's."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vit") / "vit.safetensors"
    save_model(path, build_student("test_vit", 5, channels=3, image_size=32))
    return path


def student_says(source, images_NCHW):
    """What the student says, by its own network and the formula of the normalisation."""
    built, _ = load_deployed(str(source))
    mean, std = (torch.tensor(x).view(1, -1, 1, 1) for x in (built.spec.mean, built.spec.std))
    with torch.inference_mode():
        return built.model((images_NCHW.float() / 255 - mean) / std)


@pytest.mark.parametrize("kind", ["run", "vit"])
@pytest.mark.parametrize("to", ["onnx", "torch-export"])
def test_a_graph_says_what_the_student_says_on_batches_of_any_size(kind, to, request, tmp_path):
    source = request.getfixturevalue(kind)
    done = export(source, to, tmp_path / "graph")
    assert done.path == tmp_path / "graph"
    assert done.difference.relative < 1e-5
    images_NCHW = images_for(load_deployed(str(source))[0], 5)
    if to == "onnx":
        session = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
        (given,), (said,) = session.get_inputs(), session.get_outputs()
        assert (given.name, given.type, given.shape[1:]) == ("images", "tensor(uint8)", list(images_NCHW.shape[1:]))
        assert said.name == "logits"
        logits = torch.from_numpy(session.run(None, {"images": images_NCHW.numpy()})[0])
    else:
        logits = torch.export.load(done.path).module()(images_NCHW)
    assert torch.allclose(logits, student_says(source, images_NCHW), atol=1e-4)


def test_files_lie_in_the_run_directory_of_a_snapshot_too(run):
    assert export(f"{run}@step3", "torch-export").path == run / "student.pt2"
    images = images_for(load_deployed(str(run))[0], 2)
    exported = torch.export.load(run / "student.pt2").module()(images)
    assert torch.allclose(exported, student_says(f"{run}@step3", images), atol=1e-4)
    assert not torch.allclose(exported, student_says(run, images), atol=1e-4)


def test_timm_reads_the_folder(run, tmp_path):
    status, out, said = said_by(["export", run, "--to", "hub-folder", "--output", tmp_path / "hub", "--license", "mit"])
    assert status == 0, said
    assert out == f"{tmp_path / 'hub'}: its logits differ by at most 0, 0 of the largest\n"
    model = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    state = load_file(run / "student.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    spec = load_deployed(str(run))[0].spec
    config = timm.data.resolve_model_data_config(model)
    assert (tuple(config["mean"]), tuple(config["std"])) == (spec.mean, spec.std)
    assert (config["input_size"], config["crop_pct"]) == ((1, 8, 8), 1.0)
    assert model.pretrained_cfg["license"] == "mit"
    assert json.loads((tmp_path / "hub" / "config.json").read_text())["label_names"] == [str(n) for n in range(10)]
    export(run, "hub-folder", tmp_path / "hub")  # again, in place of it
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


def test_a_card_says_how_the_student_was_made(run, tmp_path):
    export(run, "hub-folder", tmp_path / "hub", license="mit")
    card = (tmp_path / "hub" / "README.md").read_text()
    summary = json.loads((run / "summary.json").read_text())
    assert card.startswith("---\nlibrary_name: timm\n")
    for part in ('license: "mit"', "674 of 1,347 (50.0%)", f"{summary['test_top1']:.2%}", "| teacher | none |",
                 "import kdprune.models", "1 channel of 8×8 pixels", "6 steps"):  # fmt: skip
        assert part in card


def test_a_card_says_the_rate_that_was_trained_with(tmp_path):
    trained = train(tmp_path, {"train.steps": 1, "train.batch_size": 64, "train.lr_base": 0.2})[1]
    export(trained, "hub-folder", tmp_path / "hub")
    assert "lr 0.05," in (tmp_path / "hub" / "README.md").read_text(), "0.2 · 64 / 256; the setting is not in effect"


def test_a_licence_is_for_a_card(run, tmp_path):
    said = said_by(["export", run, "--to", "torch-export", "--license", "mit", "--output", tmp_path / "x.pt2"])[2]
    assert "--license has no effect: " in " ".join(said.split())


def test_names_are_no_markup_in_a_card():
    assert _text("a|b\n# <script> [x](y) `c` *d*") == r"a\|b \# &lt;script> \[x\](y) \`c\` \*d\*"


def test_what_differs_too_much_is_refused_and_not_left_behind(run, tmp_path, monkeypatch):
    for to in exporting.KINDS:
        path = tmp_path / to
        monkeypatch.setattr(exporting, "difference", lambda made, wanted: difference([made[0] + 1.0], [wanted[0]]))
        status, _, said = said_by(["export", run, "--to", to, "--output", path])
        assert status == 2
        assert "--tolerance 0.0001" in said
        assert "nothing was written" in said
        assert not list(tmp_path.iterdir())


def test_logits_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        difference([torch.tensor([[float("nan")]])], [torch.zeros(1, 1)])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--to", "onx"], "did you mean 'onnx'"),
        (["--to", "onnx", "--tolerance", "0"], "--tolerance: 0.0 given, allowed is (0, 1)"),
        (["--to", "hub-folder", "--output", "{tmp}"], "holds something else"),
        (["nowhere", "--to", "onnx"], "no such run directory: nowhere"),
    ],
)
def test_mistakes_are_said(run, tmp_path, words, complaint):
    (tmp_path / "mine.txt").write_text("mine")
    words = [word.format(tmp=tmp_path) for word in words]
    status, _, said = said_by(["export", *([] if words[0] == "nowhere" else [run]), *words])
    assert status == 2
    assert complaint in plain(said)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_hub_folder_needs_a_run(vit):
    with pytest.raises(ValueError, match="allowed is a run directory"):
        export(vit, "hub-folder")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of many shapes and modes, one of them broken."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for n, (mode, shape) in enumerate([("L", (8, 8)), ("RGB", (30, 17, 3)), ("RGBA", (9, 40, 4)), ("L", (100, 90))]):
        Image.fromarray(rng.integers(256, size=shape, dtype=np.uint8), mode).save(folder / f"{n}.png")
    (folder / "4.png").write_text("no image")
    (folder / "notes.txt").write_text("no image, and not called one")
    return folder


def test_predictions_are_the_softmax_of_framed_images(run, folder):
    found = list(predict(str(run), [folder, folder / "0.png"], top=3))
    assert [one.path.name for one in found] == ["0.png", "1.png", "2.png", "3.png", "4.png", "0.png"]
    assert found[4].error is not None
    built, _ = load_deployed(str(run))
    for one in [*found[:4], found[5]]:
        image = Image.open(one.path)
        array = frame_image(image.convert("L" if image.mode == "L" else "RGB"), built.spec)
        if array.shape[2] == 3:  # scaled first, grey then
            array = np.asarray(Image.fromarray(array).convert("L"))[..., None]
        logits = student_says(run, torch.from_numpy(array).permute(2, 0, 1)[None])[0]
        values, ids = logits.softmax(0).topk(3)
        assert one.classes == tuple(str(n) for n in ids.tolist())
        assert one.probabilities == pytest.approx(values.tolist(), abs=1e-5)


def test_predictions_agree_with_the_evaluation(run, tmp_path):
    labels = {}
    for batch in kdprune.Views("digits").held_out():
        for image_CHW, label in zip(batch.images, batch.labels.tolist(), strict=True):
            name = f"{len(labels):03}.png"
            labels[name] = str(label)
            Image.fromarray(image_CHW[0].numpy()).save(tmp_path / name)
    found = list(predict(str(run), [tmp_path], top=1))
    right = sum(one.classes[0] == labels[one.path.name] for one in found)
    assert right / len(labels) == json.loads((run / "summary.json").read_text())["test_top1"]


def test_predictions_are_printed(run, folder):
    status, out, _ = said_by(["predict", run, folder, "--top", "2"])
    assert status == 1  # one image is none
    assert "it is no image of the formats" in plain(out)
    status, out, _ = said_by(["predict", run, folder / "1.png", "--json", "--top", "99"])
    answer = json.loads(out)
    assert status == 0
    assert len(answer["classes"]) == 10
    assert sum(answer["probabilities"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["{folder}/none.png"], "no such image or folder"),
        (["{folder}", "--top", "0"], "--top: 0 given"),
        (["{empty}"], "holds no images"),
    ],
)
def test_mistakes_in_what_to_predict_are_said(run, folder, tmp_path, words, complaint):
    status, _, said = said_by(["predict", run, *(word.format(folder=folder, empty=tmp_path) for word in words)])
    assert status == 2
    assert complaint in said
