"""The identity of a model: a hash of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values of a state dict, hex.

    It is the same for a model's `state_dict()` and for the tensors of the file that the model was saved to, so a file
    can be compared with a model without building one.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        host = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {host.dtype} {tuple(host.shape)}".encode())
        # As bytes, and not as numbers: two NaNs are different weights if a bit of them differs.
        digest.update(host.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
