"""Checkpoints and policy files: tensors and JSON in one safetensors file, written atomically.

Nothing is ever unpickled: the JSON travels in safetensors' own metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from rrl.machine.paths import unusable
from rrl.registry import UserError
from rrl.store.files import writing
from rrl.store.schema import parsed

if TYPE_CHECKING:
    import torch

FORMAT = "rrl 2"
"""Of files with a checksum of themselves; earlier versions wrote `rrl` and none."""
CHECKSUM = "sha256"
TYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
"""Of numbers in tensors. Torch computes little with the others that safetensors knows, such as float8."""


def pack(arrays: Mapping[str, NDArray[Any]]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Arrays of any numeric type as tensors of bytes, and the JSON-able layout that `unpack` needs:
    safetensors and torch don't know all of numpy's types."""
    import torch

    tensors, layout = {}, {}
    for name, array in arrays.items():
        flat = np.ascontiguousarray(array).reshape(-1)
        tensors[name] = torch.from_numpy(flat.view(np.uint8).copy())
        layout[name] = [array.dtype.str, list(array.shape)]
    return tensors, layout


def unpack(tensors: Mapping[str, torch.Tensor], layout: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Undo of `pack`; tensors that `layout` doesn't name are left alone. ValueError for one that is no bytes."""
    if odd := [name for name in layout if str(tensors[name].dtype) != "torch.uint8"]:
        raise ValueError(f"{odd[0]} holds {tensors[odd[0]].dtype}, not bytes")
    return {name: tensors[name].numpy().view(np.dtype(kind)).reshape(shape) for name, (kind, shape) in layout.items()}


def fault(tensors: Mapping[str, torch.Tensor]) -> str:
    """In words, the first tensor with numbers that no learning leaves and comes back from: NaN and +inf. Empty if there
    is none. (-inf is no fault: masks hold it.)"""
    for name, t in tensors.items():
        if not t.is_floating_point() or t.sum().isfinite():  # quick, and as a rule enough
            continue
        if count := int((t.isnan() | t.isposinf()).sum()):
            return f"{name} holds {'nan' if t.isnan().any() else 'inf'} ({count} of {t.numel()} numbers)"
    return ""


def save_file(path: Path, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
    """Write or replace `path` so that a crash at any moment leaves the old or the new file, whole. UserError, and the
    old file, if a tensor has a `fault`."""
    from safetensors.torch import save

    if found := fault(tensors):
        raise UserError(f"{path} is not written: {found}")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(values)
    data = save(tensors, {"format": FORMAT, "values": text, CHECKSUM: _checksum(tensors, text)})
    with writing(path) as file:
        file.write(data)


def load_file(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(tensors, values) of a file written by `save_file`; UserError if it is anything else or was changed, or a tensor
    has a `fault` (earlier versions wrote such files)."""
    with _opened(path, "pt") as (file, values):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    for name, tensor in tensors.items():
        if (kind := str(tensor.dtype).removeprefix("torch.")) not in TYPES:
            raise UserError(f"{path} is no file that rrl wrote: {name} holds {kind}, not one of {', '.join(TYPES)}")
    if metadata["format"] == FORMAT and metadata.get(CHECKSUM) != _checksum(tensors, metadata["values"]):
        raise UserError(f"{path} does not match its own checksum: it was changed, or the disk lost some of it")
    if found := fault(tensors):
        raise UserError(f"{path} is of a training that diverged: {found}")
    return tensors, values


def load_values(path: Path) -> dict[str, Any]:
    """The values alone, from the file's header; UserError as `load_file`."""
    with _opened(path, "np") as (_, values):  # no tensors: no torch
        return values


def _checksum(tensors: Mapping[str, torch.Tensor], values: str) -> str:
    """SHA-256 of all that a file holds."""
    import torch

    digest = hashlib.sha256(values.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def _opened(path: Path, framework: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    if why := unusable(path):
        raise UserError(why)
    try:
        with safe_open(path, framework=framework) as file:
            metadata = file.metadata() or {}
            if metadata.get("format") not in (FORMAT, "rrl"):
                raise UserError(f"{path} is a safetensors file, but not one that rrl wrote")
            try:
                values = parsed(metadata["values"])
            except (KeyError, ValueError) as error:
                raise UserError(f"{path} has a damaged header: {error}") from error
            if not isinstance(values, dict):
                raise UserError(f"{path} has a damaged header: it holds {values!r}")
            yield file, values
    except SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors file, but cut short or of another kind: {error}") from error
