"""Policy files of fewer bytes: a network's weights in float16, or its matrices in int8 with a scale for each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from rrl.registry import UserError

Rounding = Literal["half", "int8"]
SCALE = ".int8_scale"
"""Ends the names of rows' scales: what one step of a row's whole numbers is."""
LARGEST = 127


def rounded(tensors: Mapping[str, Tensor], kind: Rounding, may: Callable[[str], bool]) -> dict[str, Tensor]:
    """The tensors, those that `may` be rounded as `kind` says: in int8 matrices alone, the others then in float16."""
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not may(name):
            stored[name] = tensor
        elif kind == "int8" and tensor.ndim == 2:
            scale = tensor.abs().amax(dim=1).float() / LARGEST
            stored[name] = (tensor / scale.clamp_min(torch.finfo().tiny)[:, None]).round().to(torch.int8)
            stored[name + SCALE] = scale
        else:
            stored[name] = tensor.to(torch.float16)
    return stored


def restored(stored: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors that `rounded` made these of, in float32 where they were int8; UserError if scales don't fit."""
    tensors = {name: tensor for name, tensor in stored.items() if not name.endswith(SCALE)}
    for name in stored.keys() - tensors.keys():
        of, scale = name.removesuffix(SCALE), stored[name]
        rows = tensors.get(of)
        if rows is None or rows.dtype != torch.int8 or rows.ndim != 2 or scale.shape != rows.shape[:1]:
            raise UserError(f"{path} is no policy that rrl wrote: {name} is the scale of no matrix in int8")
        tensors[of] = rows.float() * scale[:, None]
    return tensors
