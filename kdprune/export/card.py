"""A model card: what a student is and how it was made, filled from its run."""

from __future__ import annotations

import json
import re
from typing import Any

from kdprune.models.spec import BuiltModel


def model_card(built: BuiltModel, summary: dict[str, Any], settings: dict[str, Any], license: str | None) -> str:
    """Markdown with the hub's front matter.

    Args:
        built: the student.
        summary: of its run.
        settings: of its run, by dotted names.
        license: an identifier of the hub, such as apache-2.0; None is said to be not stated.
    """
    return "\n".join(
        [*_front(license), f"# {_text(built.name)}, trained by kdprune", "", *_table(summary, settings), "",
         *_usage(built), "", *_limits(summary)]
    )  # fmt: skip


def _front(license: str | None) -> list[str]:
    # JSON's texts are YAML's, too, whatever they hold.
    stated = [f"license: {json.dumps(license)}"] if license else []
    return [
        "---",
        "library_name: timm",
        "pipeline_tag: image-classification",
        "tags: [kdprune, timm]",
        *stated,
        "---",
        "",
    ]


def _table(summary: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    subset = f"{summary['kept']:,} of {summary['total']:,} ({summary['keep_fraction']:.1%})"
    chosen = "a subset file" if settings["subset.file"] else settings["subset.selector"]
    teachers = ", ".join(_of_teacher(teacher) for teacher in summary["teacher"]) or "none"
    distilled = "-"
    if summary["teacher"]:
        distilled = f"{summary['loss']}, α = {summary['alpha']:.3g}, T = {summary['temperature']:g}"
    cost = summary["cost"]
    passes = sum(count for part in cost.values() for name, count in part.items() if name.endswith("samples"))
    rows = {
        "data": summary["dataset"],
        "training samples kept": subset,
        "chosen by": chosen,
        "scorer": settings["subset.scorer"] or settings["subset.scores"] or "-",
        "teacher": teachers,
        "distillation": distilled,
        "top-1 on held-out data, last epoch": _percent(summary["test_top1"]),
        "budget": f"{summary['steps']:,} steps, {summary['epochs']:.4g} epochs of what is kept",
        "augmentation": settings["data.augment"],
        "optimizer": f"{settings['train.opt']}, lr {_rate(summary, settings):g}, {settings['train.sched']}, "
        f"batch {settings['train.batch_size']}",
        "seed": summary["seed"],
        "cost": f"{sum(part['seconds'] for part in cost.values()):,.0f} s on {summary['device']}, "
        f"{passes:,} forward and backward passes of a sample, teacher and caching included",
        "parameters": f"{summary['student']['parameters']:,}",
    }
    return ["| | |", "| --- | --- |", *(f"| {name} | {_text(value)} |" for name, value in rows.items())]


def _rate(summary: dict[str, Any], settings: dict[str, Any]) -> float:
    """The learning rate that the run was trained with, which may follow from lr_base and the batch."""
    trained = summary.get("key", {}).get("train", {})
    return float(trained.get("lr", settings["train.lr"]))


def _of_teacher(teacher: dict[str, Any]) -> str:
    return f"{teacher['name']} ({_percent(teacher.get('test_top1'))})"


def _usage(built: BuiltModel) -> list[str]:
    spec = built.spec
    height, width = spec.size_HW
    own = type(built.model).__module__.startswith("kdprune.")
    named = ["import kdprune.models  # registers the model's name", ""] if own else []
    return [
        "## Use", "", "```python", "import timm", *named,
        'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()  # or hf-hub:ORG/NAME',
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)",
        "```", "",
        f"Images: {spec.channels} channel{'s' * (spec.channels > 1)} of {height}×{width} pixels, scaled "
        f"({spec.interpolation}, crop_pct {spec.crop_pct:g}, {spec.crop_mode}), "
        f"(x/255 − {_numbers(spec.mean)}) / {_numbers(spec.std)}.",
    ]  # fmt: skip


def _limits(summary: dict[str, Any]) -> list[str]:
    of = f"One run with one seed. Its accuracy holds for images like those of {_text(summary['dataset'])}."
    part = "The student saw a part of the data only; what is rare in it may be missing there."
    return ["## Limits", "", of, *([part] if summary["kept"] < summary["total"] else [])]


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2%}"


def _numbers(values: tuple[float, ...]) -> str:
    return f"[{', '.join(f'{value:.4g}' for value in values)}]"


def _text(value: Any) -> str:
    """A value in a cell of a table: names of files and classes are anybody's, so nothing in them is markup."""
    text = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\|`*_\[\]#])", r"\\\1", text)
