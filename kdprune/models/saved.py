"""Models in files: safetensors, with a header that says how to build the model again."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from kdprune.files import write_whole
from kdprune.messages import about
from kdprune.models.arguments import check_saved_arguments, check_saved_name, of_the_size_of
from kdprune.models.create import create
from kdprune.models.hashing import weights_hash
from kdprune.models.narrow import Widths, check_runs, check_widths, create_narrow, narrow
from kdprune.models.spec import BuiltModel, InputSpec
from kdprune.models.structure import structure as structure_of
from kdprune.models.weights import (
    METADATA_KEY,
    WEIGHTS_HASH,
    StateDict,
    check_finite,
    check_fit,
    read_header,
    read_weights,
)

log = logging.getLogger("kdprune")


def save_model(path: str | Path, built: BuiltModel) -> None:
    """Write weights and what is needed to build the model again, whole or not at all.

    The tensors have the model's own names: `timm.create_model(name, num_classes=C)` loads them with `strict=True`.
    Their hash stands in the header, so that whoever reads the file finds out if a bit of them has changed.
    """
    # Cloned, since safetensors refuses tensors that share memory.
    state = {key: value.detach().cpu().contiguous().clone() for key, value in _bare(built.model).state_dict().items()}
    header = {
        "name": built.name,
        "num_classes": built.num_classes,
        "spec": built.spec.to_json(),
        "classes": built.classes,
        "info": built.info,
        "model_args": built.model_args,
        "structure": built.structure,
        WEIGHTS_HASH: weights_hash(state),
        **({"widths": built.widths} if built.widths else {}),
    }
    content = safetensors.torch.save(state, metadata={METADATA_KEY: json.dumps(header)})
    write_whole(path, lambda file: file.write(content))


def stored_hash(path: str | Path) -> str | None:
    """The hash of the weights that a file says it holds; None for files of others. Reads no tensor."""
    header = read_header(path)
    return None if header is None else header.get(WEIGHTS_HASH)


def load_model(path: str | Path, module: nn.Module | None = None) -> BuiltModel:
    """The model in a file of `save_model`.

    Args:
        module: of the user's own, of which a copy gets the weights; for files that hold such a module's.

    Raises:
        ValueError: no such file, damaged, not ours, other weights than were written, or weights that are not the
            model's; a module of the user's own that was not given.
    """
    state, header = read_weights(path)
    if header is None:
        raise ValueError(f"{path} does not say which model it is for: give the model's name, and this as `checkpoint`")
    return _from_header(path, state, header, module)


def check_saved(path: str | Path, state: StateDict, header: dict[str, Any]) -> None:
    """Refuse a file whose header leads elsewhere, or speaks of another model than its tensors are of.

    The model is built once without memory, so that a header which promises more than the file holds takes none.

    Raises:
        ValueError: naming the file and what is wrong.
    """
    name, spec, where = header["name"], InputSpec.from_json(header["spec"]), str(path)
    check_saved_name(name, where)
    check_saved_arguments(name, header["model_args"], where)
    with of_the_size_of(state, where):
        model = create(name, header["num_classes"], spec.channels, spec.size, False, header["model_args"])
    if header.get("widths"):
        with about(where):
            check_widths(model, header["widths"])
            narrow(model, header["widths"])
            check_runs(model, (spec.channels, *spec.size_HW))
    check_fit(state, model.state_dict(), f"the weights of {path} and {name}")


def _from_header(path: str | Path, state: StateDict, header: dict[str, Any], module: nn.Module | None) -> BuiltModel:
    name, num_classes, spec = header["name"], header["num_classes"], InputSpec.from_json(header["spec"])
    structure = header.get("structure")
    widths: Widths = {}
    if module is not None:
        model = copy.deepcopy(module)
        if structure is not None and structure_of(model) != structure:
            log.warning("%s: the code or the settings of %s are not those that it was trained with", path, name)
    elif structure is not None:
        raise ValueError(
            f"{path} holds the weights of {header['info'].get('module', name)}, a module of one's own, which cannot be "
            f"built by name: load it in Python, kdprune.load_student(RUN, model={name}(…))"
        )
    else:
        check_saved(path, state, header)
        model, widths = _created(header, spec)
    check_fit(state, model.state_dict(), f"the weights of {path} and {name if module is None else 'model'}")
    model.load_state_dict(state)
    check_finite(model, f"the weights of {path}")
    return BuiltModel(
        model, name, num_classes, spec, header["classes"], header["info"], header["model_args"], structure, dict(widths)
    )


def _created(header: dict[str, Any], spec: InputSpec) -> tuple[nn.Module, Widths]:
    """The network that a header speaks of, and its widths where they are not those of its name."""
    given = header["name"], header["num_classes"], spec.channels, spec.size
    if header.get("widths"):
        return create_narrow(*given, header["model_args"], header["widths"])
    return create(*given, False, header["model_args"]), {}


def _bare(model: nn.Module) -> nn.Module:
    """The model inside `torch.compile` and DistributedDataParallel."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if inner is None:
            return model
        model = inner
