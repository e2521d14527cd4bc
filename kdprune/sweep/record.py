"""What a sweep is going to make, as a file beside its journal: with both, a report needs nothing else of the study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdprune.files import write_json
from kdprune.report.study import FILE, FORMAT
from kdprune.sweep.graph import Node
from kdprune.sweep.plan import Plan
from kdprune.sweep.study import Settings, value_words
from kdprune.sweep.tuning import confounded


def write_study(plan: Plan, folder: Path) -> None:
    """Write study.json: the axes, each run with what it needs, and what is to be warned of."""
    study, warning, finals = plan.study, confounded(plan.study), dict(plan.finals)
    content = {
        "format": FORMAT,
        "name": study.name,
        "axes": [sorted({name for point in axis for name in point.coordinates}) for axis in study.axes],
        "tuned": list(study.tuned),
        "warnings": [] if warning is None else [warning],
        "nodes": {id: _described(node) for id, node in plan.graph.nodes.items() if id not in finals},
        "runs": [{"id": id, "coordinates": _in_words(run.coordinates), **_before(plan, id)} for id, run in plan.finals],
    }
    write_json(folder / FILE, content)


def _described(node: Node) -> dict[str, Any]:
    need = node.need
    several = {"teachers": len(need.config.teacher.models)} if need is not None and need.kind == "targets" else {}
    return {"kind": "trial" if need is None else need.kind, "what": node.what, "needs": sorted(node.needs), **several}


def _before(plan: Plan, id: str) -> dict[str, list[str]]:
    """What a run needs, and the runs that chose its settings."""
    arm = plan.arm_of.get(id)
    tried = [] if arm is None else [run.id for trial in arm.trials for run in trial.runs]
    return {"needs": sorted(plan.graph.nodes[id].needs), "tried": tried}


def _in_words(settings: Settings) -> dict[str, str]:
    return {name: value_words(value) for name, value in settings.items()}
