"""Views: a function of (seed, view, sample id), and what each part of a recipe does to the pixels."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from helpers import need_fake_gpus
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import beta, ks_2samp
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.transforms import CenterCrop, Compose, RandomResizedCrop, Resize

from kdprune.artefact import key_hash
from kdprune.data import augment, counter
from kdprune.data import draws as column
from kdprune.data import views as module
from kdprune.data.place import Place
from kdprune.data.reader import Reader, plain_batches
from kdprune.data.recipe import Recipe, parse
from kdprune.data.sources import from_indexable
from kdprune.data.split import Split
from kdprune.data.view_settings import ViewSettings
from kdprune.data.views import beta_quantile, crop_box, draws, mixed, mixing, view_of_stored
from kdprune.models.spec import InputSpec

CPU = torch.device("cpu")
SPEC = InputSpec(3, 8, (0.5,) * 3, (0.25,) * 3)
FILL = (120, 110, 100)
EVERYTHING = [
    "crop(2)+flip+cutout(3)+erase(0.5)+jitter(0.4)",
    "rrc(0.2)+flip+mixup(0.5)+cutmix(1)",
    "crop+mixup(0.2)",
    "rrc(0.5)+randaugment(1, 20)+jitter(0.2, 0.3)+grey(0.4)",
    "crop+trivialaugment",
]

seeds = st.integers(0, 10**6)


def pixels(n: int, channels: int = 3, height: int = 8, width: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, channels, height, width), dtype=np.uint8))


def source_of(images: list[Image.Image]):
    return from_indexable([(image, i % 3) for i, image in enumerate(images)], "mine", "train")


def pil(image_CHW: torch.Tensor) -> Image.Image:
    return Image.fromarray(image_CHW.permute(1, 2, 0).numpy())


def split_of(source, images=None) -> Split:
    return Split(source, 3, images, np.array([], dtype=np.int64))


def reader(recipe: str, source, images=None, kept=None, workers: int = 0, seed: int = 3, role="student") -> Reader:
    settings = ViewSettings(parse(recipe), 8, seed, FILL, images is not None, role)
    kept = np.arange(len(source)) if kept is None else kept
    return Reader(split_of(source, images), settings, kept, 3, Place(CPU, workers))


def read(made: Reader, ids: list[int], views: list[int], batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All of them, in requests of a size, each of which gives what it gives alone, however many are asked for."""
    requests = list(zip(torch.tensor(ids).split(batch_size), torch.tensor(views).split(batch_size), strict=True))
    batches = list(made.read(iter(requests)))
    for request, batch in zip(requests, batches, strict=True):
        (alone,) = made.read([request])
        assert torch.equal(alone.images, batch.images)
        assert torch.equal(alone.labels, batch.labels)
    assert torch.cat([batch.ids for batch in batches]).tolist() == ids
    assert torch.cat([batch.views for batch in batches]).tolist() == views
    return torch.cat([batch.images for batch in batches]), torch.cat([batch.labels for batch in batches])


# --- a view is a function ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored():
    """Twelve images of 8×8, as a source and as a store."""
    images = pixels(12)
    return source_of([pil(image) for image in images]), images


@pytest.fixture(scope="module")
def photos():
    """Images of mixed sizes and modes, too different for a store."""
    random = np.random.default_rng(1)
    made = []
    for i, mode in enumerate(["RGB", "L", "RGBA", "P", "CMYK", "1", "RGB", "LA", "RGB"]):
        height, width = random.integers(9, 40, 2)
        made.append(Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode))
        assert made[i].mode == mode
    return source_of(made)


@pytest.mark.parametrize("recipe", EVERYTHING)
@given(order=st.permutations(range(12)), batch_size=st.integers(1, 12), view=st.integers(0, 300))
def test_a_view_from_the_store_is_the_same_in_every_batch(stored, recipe, order, batch_size, view):
    source, images = stored
    made = reader(recipe, source, images)
    whole, targets = read(made, list(range(12)), [view] * 12, 12)
    part, part_targets = read(made, order, [view] * 12, batch_size)
    assert torch.equal(part, whole[order])
    assert torch.equal(part_targets, targets[order])


@pytest.mark.parametrize("recipe", EVERYTHING)
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_view_of_a_large_image_is_the_same_in_every_batch_and_worker(photos, recipe, workers):
    ids, views = list(range(9)), [5] * 9
    whole, targets = read(reader(recipe, photos), ids, views, 9)
    assert whole.shape == (9, 3, 8, 8)
    order = [7, 0, 3, 8, 1, 2, 6, 5, 4]
    part, part_targets = read(reader(recipe, photos, workers=workers), order, views, 4)
    assert torch.equal(part, whole[order])
    assert torch.equal(part_targets, targets[order])


@pytest.mark.parametrize(
    "recipe",
    [
        "crop(2)+flip",
        "crop(3)+cutout(3)+mixup(0.5)",
        "none",
        "flip+cutout(3)+erase(0.5)+jitter(0.4, 0.2)+grey",
        "crop+randaugment",
        "trivialaugment",
        "flip+mixup(0.3)+cutmix(1)",
    ],
)
def test_the_store_and_the_workers_show_the_same_where_nothing_is_scaled(stored, recipe):
    source, images = stored
    ids, views = list(range(12)), [0, 1, 2] * 4
    for a, b in zip(
        read(reader(recipe, source, images), ids, views, 5), read(reader(recipe, source), ids, views, 12), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("recipe", EVERYTHING)
def test_other_seeds_views_and_roles_differ(stored, recipe):
    source, images = stored
    ids = list(range(12))
    base, _ = read(reader(recipe, source, images), ids, [0] * 12, 12)
    other_view, _ = read(reader(recipe, source, images), ids, [1] * 12, 12)
    other_seed, _ = read(reader(recipe, source, images, seed=4), ids, [0] * 12, 12)
    teachers, _ = read(reader(recipe, source, images, role="teacher"), ids, [0] * 12, 12)
    for other in (other_view, other_seed, teachers):
        assert (base != other).flatten(1).any(1).float().mean() > 0.5


@pytest.mark.parametrize("recipe", ["crop(2)+flip+jitter", "mixup(1)", "cutmix(1)"])
def test_a_role_draws_alike_from_the_store_and_in_workers(stored, recipe):
    source, images = stored
    ids, views = list(range(12)), [3] * 12
    from_store = read(reader(recipe, source, images, role="teacher"), ids, views, 12)
    decoded = read(reader(recipe, source, role="teacher"), ids, views, 5)
    assert all(map(torch.equal, from_store, decoded))


def test_the_draws_of_a_student_have_no_prefix_and_those_of_other_roles_have():
    ids, view = torch.arange(5), torch.full((5,), 2)
    for role, word in (("student", "view"), ("teacher", "teacher view")):
        expected = counter.uniform(counter.bits(counter.key(7, word), ids, view), column.COUNT)
        assert torch.equal(draws(7, ids, view, role), expected)


def test_settings_have_one_key_exactly_if_they_are_equal():
    base = ViewSettings(parse("crop(2)+flip"), 8, 3, FILL, True)
    changes = {
        "recipe": parse("crop(3)+flip"), "size": 9, "seed": 4, "fill": (0, 0, 0), "stored": False, "role": "teacher",
        "interpolation": "bicubic",
    }  # fmt: skip
    assert set(changes) == {field.name for field in dataclasses.fields(base)}
    keys = [key_hash(dataclasses.replace(base, **{name: value}).key()) for name, value in changes.items()]
    assert len({key_hash(base.key()), *keys}) == len(changes) + 1
    assert json.loads(json.dumps(base.key())) == base.key()


def test_another_version_of_the_views_is_another_key(monkeypatch):
    before = ViewSettings(parse("flip"), 8, 3, FILL, True).key()
    monkeypatch.setattr(module, "VIEWS_VERSION", module.VIEWS_VERSION + 1)
    assert ViewSettings(parse("flip"), 8, 3, FILL, True).key() != before


def test_another_version_of_cutting_is_another_key_of_what_workers_make(monkeypatch):
    stored, decoded = (ViewSettings(parse("flip"), 8, 3, FILL, stored) for stored in (True, False))
    before = stored.key(), decoded.key()
    monkeypatch.setattr(module, "CUTTING_VERSION", module.CUTTING_VERSION + 1)
    assert stored.key() == before[0]
    assert decoded.key() != before[1]


@pytest.mark.parametrize("workers", [None, 0, 2])
def test_weights_of_samples_come_with_their_batch(stored, workers):
    source, images = stored
    made = reader("flip", source, images) if workers is None else reader("flip", source, workers=workers)
    ids, zeros, weights = torch.arange(4), torch.zeros(4, dtype=torch.int64), torch.rand(4)
    weighted, without, unweighted = made.read([(ids, zeros, weights), (ids, zeros, None), (ids, zeros)])
    assert torch.equal(weighted.weights, weights)
    assert without.weights is None
    assert unweighted.weights is None


def test_without_a_recipe_a_view_is_the_image(stored):
    source, images = stored
    made, target = read(reader("none", source, images), list(range(12)), [0] * 12, 5)
    assert torch.equal(made, images)
    assert target.tolist() == [i % 3 for i in range(12)]


def test_held_out_images_of_mixed_sizes_are_the_scaled_centre(photos):
    batch = next(plain_batches(split_of(photos), np.arange(9), SPEC, Place(CPU)))
    whole = Compose([Resize(8), CenterCrop(8)])
    for i, view in enumerate(batch.images):
        image = photos[i].convert("RGBA").convert("RGB") if photos[i].mode == "P" else photos[i].convert("RGB")
        assert abs(view.permute(1, 2, 0).numpy().astype(int) - np.asarray(whole(image))).max() <= 1
    assert batch.labels.tolist() == photos.labels.tolist()


@given(st.integers(1, 5), st.integers(1, 20), st.sets(st.integers(0, 11), min_size=1))
def test_the_shards_of_all_ranks_cover_every_held_out_sample_once(stored, world, batch_size, chosen):
    source, images = stored
    ids = np.array(sorted(chosen))
    spec, split = SPEC, split_of(source, images)
    shards = [list(plain_batches(split, ids, spec, Place(CPU, 0, rank, world), batch_size)) for rank in range(world)]
    seen = sorted(i for shard in shards for batch in shard for i in batch.ids.tolist())
    assert seen == ids.tolist()
    for batch in (batch for shard in shards for batch in shard):
        assert torch.equal(batch.images, images[batch.ids])
        assert batch.labels.tolist() == source.labels[batch.ids.numpy()].tolist()


# --- what each part does: slow restatements from the same draws -------------------------------------------------------


def slow_view(recipe: Recipe, image_CHW: np.ndarray, u: np.ndarray) -> np.ndarray:
    """crop, flip, cutout and erase of one image with loops, in numpy's float32."""
    x = image_CHW.copy()
    channels, height, width = x.shape
    one = np.float32(1)
    if recipe.crop:
        pad = recipe.crop if recipe.crop > 0 else max(1, min(height, width) // 8)
        padded = np.zeros((channels, height + 2 * pad, width + 2 * pad), np.uint8)
        padded[:, pad : pad + height, pad : pad + width] = x
        top, left = (int(np.float32(2 * pad + 1) * u[d]) for d in (column.TOP, column.LEFT))
        x = padded[:, top : top + height, left : left + width]
    if u[column.FLIP] < recipe.flip:
        x = x[:, :, ::-1]
    x = x.copy()
    if recipe.cutout:
        top = int(u[column.CUT_Y] * np.float32(height)) - recipe.cutout // 2
        left = int(u[column.CUT_X] * np.float32(width)) - recipe.cutout // 2
        fill(x, top, left, recipe.cutout, recipe.cutout)
    if u[column.ERASE] < recipe.erase:
        area = (np.float32(0.02) + np.float32(0.31) * u[column.ERASE_AREA]) * height * width
        log_ratio = (2 * u[column.ERASE_RATIO] - one) * np.float32(np.log(1 / 0.3))
        h = min(np.round(np.sqrt(area * np.exp(log_ratio))), height)
        w = min(np.round(np.sqrt(area / np.exp(log_ratio))), width)
        top = int(u[column.ERASE_Y] * np.float32(height - h + 1))
        left = int(u[column.ERASE_X] * np.float32(width - w + 1))
        fill(x, top, left, int(h), int(w))
    return x


def fill(x: np.ndarray, top: int, left: int, height: int, width: int) -> None:
    for row in range(max(0, top), min(x.shape[1], top + height)):
        for place in range(max(0, left), min(x.shape[2], left + width)):
            x[:, row, place] = FILL[: len(x)]


@given(
    seeds, st.integers(3, 17), st.integers(3, 17), st.sampled_from([1, 3]),
    st.builds(
        Recipe, crop=st.integers(-1, 6), flip=st.floats(0, 1), cutout=st.integers(0, 9),
        erase=st.sampled_from([0.0, 0.6]),
    ),
)  # fmt: skip
def test_crop_flip_cutout_and_erase_are_what_loops_give(seed, height, width, channels, recipe):
    images = pixels(6, channels, height, width, seed)
    ids = torch.arange(seed, seed + 6)
    u = draws(seed, ids, torch.full((6,), seed % 7))
    fill_C = torch.tensor(FILL[:channels], dtype=torch.uint8)
    fast = view_of_stored(recipe, images, u, (height, width), fill_C)
    for image, row, view in zip(images.numpy(), u.numpy(), fast.numpy(), strict=True):
        assert (view == slow_view(recipe, image, row)).all()


def some_draws(n: int, seed: int = 0) -> torch.Tensor:
    return draws(seed, torch.arange(n), torch.zeros(n, dtype=torch.int64))


def test_flips_are_as_frequent_as_asked():
    images = pixels(1).expand(4000, -1, -1, -1)
    views = view_of_stored(parse("flip(0.3)"), images, some_draws(4000), 8, torch.tensor(FILL))
    flipped = (views == images.flip(-1)).flatten(1).all(1)
    assert ((views == images).flatten(1).all(1) ^ flipped).all()
    assert flipped.float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_erased_areas_are_in_the_papers_range_and_all_shifts_occur():
    blank = torch.full((2000, 1, 32, 32), 200, dtype=torch.uint8)
    erased = view_of_stored(parse("erase(1)"), blank, some_draws(2000), 32, torch.tensor([7])) == 7
    share = erased.flatten(1).float().mean(1)
    assert share.min() >= 0.015  # 2% before rounding to whole pixels
    assert share.max() <= 0.345
    marked = torch.zeros(2000, 1, 9, 9, dtype=torch.uint8)
    marked[:, :, 4, 4] = 255
    places = view_of_stored(parse("crop(2)"), marked, some_draws(2000), 9, torch.tensor([0])).flatten(1).argmax(1)
    counts = torch.bincount(places, minlength=81).view(9, 9)
    assert (counts[2:7, 2:7] > 40).all()  # 80 each are expected
    assert counts.sum() == counts[2:7, 2:7].sum()


@given(seeds, st.floats(0.01, 1.0), st.integers(1, 500), st.integers(1, 500))
def test_the_box_of_a_resized_crop_is_inside_the_image(seed, smallest, height, width):
    n = 40
    heights, widths = torch.full((n,), height), torch.full((n,), width)
    top, left, h, w = crop_box(Recipe(rrc=smallest), some_draws(n, seed), heights, widths).unbind(1)
    for start, extent, limit in ((top, h, height), (left, w, width)):
        assert (start >= 0).all()
        assert (extent >= 1).all()
        assert (start + extent <= limit).all()
        assert (start == start.round()).all()


def slow_box(min_area: float, u: np.ndarray, height: int, width: int) -> tuple[float, ...]:
    """torchvision's RandomResizedCrop.get_params, line by line, from draws of one sample."""
    areas = [u[column.AREA], *u[column._MORE_AREAS]]
    ratios = [u[column.RATIO], *u[column._MORE_RATIOS]]
    for area_draw, ratio_draw in zip(areas, ratios, strict=True):
        target_area = height * width * (min_area + (1 - min_area) * float(area_draw))
        low, high = math.log(3 / 4), math.log(4 / 3)
        aspect_ratio = math.exp(low + (high - low) * float(ratio_draw))
        w = round(math.sqrt(target_area * aspect_ratio))
        h = round(math.sqrt(target_area / aspect_ratio))
        if 0 < w <= width and 0 < h <= height:
            return math.floor(u[column.TOP] * (height - h + 1)), math.floor(u[column.LEFT] * (width - w + 1)), h, w
    in_ratio = width / height
    w, h = width, height
    if in_ratio < 3 / 4:
        h = round(w / (3 / 4))
    elif in_ratio > 4 / 3:
        w = round(h * (4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


@given(seeds, st.sampled_from([0.01, 0.08, 0.5, 0.9, 1.0]), st.integers(1, 500), st.integers(1, 500))
def test_a_resized_crop_is_torchvisions_from_the_same_draws(seed, smallest, height, width):
    u = some_draws(40, seed)
    boxes = crop_box(Recipe(rrc=smallest), u, torch.full((40,), height), torch.full((40,), width))
    expected = np.array([slow_box(smallest, row, height, width) for row in u.numpy()])
    # float32 may round a side to the other whole number, and then the place is another, too.
    assert (boxes.numpy() == expected).all(1).mean() >= 0.95


@pytest.mark.parametrize(("height", "width", "smallest"), [(160, 213, 0.08), (64, 64, 0.2), (100, 300, 0.5)])
def test_boxes_of_a_resized_crop_are_distributed_as_torchvisions(height, width, smallest):
    n = 4000
    torch.manual_seed(0)
    theirs = [RandomResizedCrop.get_params(torch.empty(1, height, width), [smallest, 1.0], [3 / 4, 4 / 3])
              for _ in range(n)]  # fmt: skip
    ours = (
        crop_box(Recipe(rrc=smallest), some_draws(n), torch.full((n,), height), torch.full((n,), width))
        .double()
        .numpy()
    )
    for of in (lambda b: b[:, 0], lambda b: b[:, 1], lambda b: b[:, 2] * b[:, 3], lambda b: b[:, 3] / b[:, 2]):
        assert ks_2samp(of(np.array(theirs)), of(ours)).pvalue > 1e-3
    if smallest == 0.08:
        assert (ours[:, 2] * ours[:, 3]).mean() / (height * width) == pytest.approx(0.436, abs=0.015)


@given(seeds, st.booleans(), st.integers(1, 60), st.integers(1, 60))
def test_without_scaling_a_large_image_shows_its_largest_square(seed, moves, height, width):
    n, side = 20, min(height, width)
    box = crop_box(Recipe(crop=-int(moves)), some_draws(n, seed), torch.full((n,), height), torch.full((n,), width))
    assert (box[:, 2:] == side).all()
    assert (box[:, 0] + side <= height).all()
    assert (box[:, 1] + side <= width).all()
    if not moves:
        assert (box[:, 0] == (height - side + 1) // 2).all()
        assert (box[:, 1] == (width - side + 1) // 2).all()


@given(seeds, st.floats(0.01, 1.0), st.integers(0, 255))
def test_jitter_of_one_colour_stays_within_its_strength(seed, strength, level):
    flat = torch.full((30, 3, 4, 4), level, dtype=torch.uint8)
    views = view_of_stored(Recipe(jitter=strength), flat, some_draws(30, seed), 4, torch.tensor(FILL)).float()
    assert (views >= np.floor(level * (1 - strength))).all()
    assert (views <= min(255, np.ceil(level * (1 + strength)))).all()


def slow_jitter(strength: float, image_CHW: np.ndarray, u: np.ndarray) -> np.ndarray:
    b, c, s = 1 + strength * (2 * u[[column.BRIGHTNESS, column.CONTRAST, column.SATURATION]].astype(float) - 1)
    luma = np.array([0.299, 0.587, 0.114])[:, None, None]
    x = np.clip(image_CHW * b, 0, 255)
    x = np.clip(x * c + (1 - c) * (x * luma).sum(0).mean(), 0, 255)
    return np.clip(x * s + (1 - s) * (x * luma).sum(0), 0, 255)


@given(seeds, st.floats(0.01, 1.0))
def test_jitter_is_brightness_then_contrast_then_saturation(seed, strength):
    images, u = pixels(8, seed=seed), some_draws(8, seed)
    views = view_of_stored(Recipe(jitter=strength), images, u, 8, torch.tensor(FILL)).numpy()
    for image, row, view in zip(images.numpy(), u.numpy(), views, strict=True):
        assert abs(view - slow_jitter(strength, image, row)).max() < 0.51


# --- mixtures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [0.1, 0.2, 1.0, 4.0])
def test_lambda_follows_its_beta_distribution(a):
    u = torch.linspace(0.001, 0.999, 10_001)  # the table is coarse beyond
    assert abs(beta_quantile(a, u).double().numpy() - beta(a, a).ppf(u.double().numpy())).max() < 2e-3
    ids, grid = torch.arange(20_000), np.linspace(0.01, 0.99, 99)  # nearer to 1, float32 has too few numbers
    for recipe in (Recipe(mixup=a), Recipe(cutmix=a)):
        lam = np.sort(mixing(recipe, 0, ids, torch.zeros_like(ids), ids).lam.numpy())
        share = np.searchsorted(lam, grid, side="right") / len(lam)
        assert abs(share - beta(a, a).cdf(grid)).max() < 0.015  # Kolmogorov-Smirnov at 1e-4: 0.0156


@given(seeds, st.sets(st.integers(0, 10**6), min_size=1, max_size=30))
def test_partners_are_kept_samples(seed, kept):
    kept_K = torch.tensor(sorted(kept))
    ids = torch.arange(200)
    mix = mixing(Recipe(mixup=1.0), seed, ids, torch.zeros_like(ids), kept_K)
    assert set(mix.partner.tolist()) <= kept
    if len(kept) > 1:
        assert len(set(mix.partner.tolist())) > 1


def test_every_partner_is_equally_likely_and_both_kinds_of_mixture_too():
    ids, kept = torch.arange(20_000), torch.arange(10) * 7
    mix = mixing(Recipe(mixup=0.2, cutmix=1.0), 0, ids, torch.zeros_like(ids), kept)
    counts = torch.bincount(mix.partner // 7)
    assert (abs(counts - 2000) < 6 * (20_000 * 0.1 * 0.9) ** 0.5).all()
    assert mix.is_cut.float().mean().item() == pytest.approx(0.5, abs=0.02)


@given(seeds, st.integers(1, 20), st.integers(1, 20))
def test_the_share_of_a_cutmix_label_is_its_area(seed, height, width):
    ids = torch.arange(50)
    mix = mixing(Recipe(cutmix=1.0), seed, ids, torch.zeros_like(ids), ids)
    own, other = (torch.full((50, 1, height, width), level, dtype=torch.uint8) for level in (0, 255))
    view, share = mixed(own, other, mix)
    assert set(view.unique().tolist()) <= {0, 255}
    assert torch.allclose((view == 0).flatten(1).double().mean(1).float(), share, atol=1e-6)
    # the box is one rectangle
    for image in (view[:, 0] == 255).numpy():
        rows, columns = image.any(1), image.any(0)
        assert image.sum() == rows.sum() * columns.sum()
        assert (np.diff(np.flatnonzero(rows)) == 1).all()
        assert (np.diff(np.flatnonzero(columns)) == 1).all()


@given(seeds)
def test_a_mixup_is_the_weighted_mean_of_both(seed):
    ids = torch.arange(20)
    mix = mixing(Recipe(mixup=0.5), seed, ids, torch.zeros_like(ids), ids)
    own, other = pixels(20, seed=seed), pixels(20, seed=seed + 1)
    view, share = mixed(own, other, mix)
    lam = mix.lam.double().numpy()[:, None, None, None]
    assert torch.equal(share, mix.lam)
    assert abs(view.numpy() - (lam * own.numpy() + (1 - lam) * other.numpy())).max() < 0.501


def test_a_reader_mixes_views_and_labels_alike():
    """Class c is an image of one grey level, so the pixels say what the labels must."""
    levels = torch.tensor([0, 100, 250])
    images = levels.repeat(10).to(torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)
    source = source_of([pil(image) for image in images])
    kept = np.arange(3, 27)
    for recipe in ("mixup(1)", "cutmix(1)", "mixup(0.4)+cutmix(0.7)"):
        made, target = read(reader(recipe, source, images, kept), list(range(3, 27)), [2] * 24, 7)
        assert target.shape == (24, 3)
        assert torch.allclose(target.sum(1), torch.ones(24))
        assert (target >= 0).all()
        mean = made.float().mean((1, 2, 3))
        assert torch.allclose(mean, target @ levels.float(), atol=0.51)


class _Copies(TorchDispatchMode):
    """Counts tensors that go from the host to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        from_host = any(isinstance(x, torch.Tensor) and x.device.type == "cpu" and x.ndim for x in tree_leaves(args))
        if from_host and isinstance(output, torch.Tensor) and output.device.type == "cuda":
            self.names.append(str(func))
        return output


RECIPES = [
    "crop(2)+flip",
    "rrc(0.3)+jitter(0.4, hue=0.1)+grey+cutout(3)+erase(0.5)",
    "crop(1)+mixup(0.3)+cutmix",
    "randaugment",
    "trivialaugment",
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_on_a_gpu_nothing_comes_from_the_host_in_a_step(recipe):
    """Fake tensors know their device, and no GPU is needed for that; tables are copied once and kept."""
    need_fake_gpus()
    with FakeTensorMode():
        ids, kept = (torch.arange(n, device="cuda") for n in (4, 9))
        images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8, device="cuda")
        fill = torch.zeros(3, dtype=torch.uint8, device="cuda")

        def step() -> torch.Tensor:
            x = module.view_of_stored(parse(recipe), images, module.draws(1, ids, ids), 8, fill)
            mix = module.mixing(parse(recipe), 1, ids, ids, kept)
            return module.mixed(x, x, mix)[0]

        try:
            assert step().device.type == "cuda"
            with _Copies() as copies:
                step()
            assert copies.names == []
            with _Copies() as copies:
                images[:, [0, 2]]
            assert copies.names  # it does see one
        finally:
            module._extent.cache_clear()
            augment._magnitudes.cache_clear()
            module._beta_table.cache_clear()
