"""The identity of a model: a hash of its weights."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over names, shapes and values of parameters and buffers, hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        host = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {host.dtype} {tuple(host.shape)}".encode())
        digest.update(host.view(-1).view(torch.uint8).numpy().tobytes() if host.ndim else repr(host.item()).encode())
    return digest.hexdigest()
