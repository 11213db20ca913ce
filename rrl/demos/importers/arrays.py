"""Demonstrations as plain arrays in an .npz: one array per quantity, episodes along the first axis."""

from __future__ import annotations

import math
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.lib.format import read_array, read_array_header_1_0, read_array_header_2_0, read_magic
from numpy.typing import NDArray

from rrl.demos.importers.base import ROW, Array, Recorded, array, fits
from rrl.registry import UserError

MAGIC = b"\x93NUMPY"
SERIES = {"actions": 3, "length": 1, "qpos": 3, "qvel": 3, "observations": 3}
"""Arrays that are read, and their dimensions; `init_<name>` are too."""


def read_npz(source: str) -> list[Recorded]:
    """`actions` [N, T, m] and `init_<name>` [N, ...] for qpos, qvel and what the task randomises; optionally
    `length` [N] (episodes are padded to T), `qpos`, `qvel`, `observations` [N, T or T + 1, ...].

    Arrays that are none of these are ignored; pickled ones are never loaded.
    """
    try:
        arrays, shapes = _numbers(source)
    except BadZipFile as error:
        raise UserError(f"{source} is not an .npz of plain arrays: {error}") from error
    if "lengths" in shapes and "initial.qpos" in shapes:
        raise UserError(f"{source} is a set of this project already; use it as it is")
    initial = {k[5:]: v for k, v in arrays.items() if k.startswith("init_") and v.ndim > 1}
    if "actions" not in arrays or arrays["actions"].ndim != 3 or not initial:
        raise UserError(
            f"{source} needs `actions` [episodes, steps, dimensions] and `init_qpos`, `init_qvel` and so on; "
            f"it has {', '.join(f'{k} {shape}' for k, shape in shapes.items()) or 'no arrays of numbers'}"
        )
    count, longest = arrays["actions"].shape[:2]
    lengths = arrays.get("length", np.full(count, longest)).astype(int)
    if lengths.shape != (count,) or (lengths < 1).any() or (lengths > longest).any():
        raise UserError(f"{source}: `length` must hold {count} numbers from 1 to {longest}; got {lengths.tolist()}")
    for name, values in initial.items():
        if len(values) != count:
            raise UserError(f"{source}: init_{name} must be of {count} episodes; its shape is {values.shape}")

    def cut(name: str, i: int) -> Array | None:
        values = arrays.get(name)
        if values is None or values.ndim != 3 or values.shape[0] != count:
            return None
        more = values.shape[1] - longest  # 0, or 1: with what follows the last action
        return array(values[i, : lengths[i] + max(more, 0)], f"{source}: {name}")

    return [
        Recorded(
            actions=array(arrays["actions"][i, : lengths[i]], f"{source}: actions"),
            initial={k: v[i] for k, v in initial.items()},
            qpos=cut("qpos", i),
            qvel=cut("qvel", i),
            observations=cut("observations", i),
        )
        for i in range(count)
    ]


def _numbers(source: str) -> tuple[dict[str, NDArray[Any]], dict[str, tuple[int, ...]]]:
    """The arrays of an .npz that a replay may need, and the shapes of all that hold numbers. Others (pictures, text,
    pickled objects) are left where they are, and not counted."""
    arrays: dict[str, NDArray[Any]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    with ZipFile(source) as file:
        total = 0
        for member in file.namelist():
            name = member.removesuffix(".npy")
            with file.open(member) as content:
                if content.read(len(MAGIC)) != MAGIC:
                    continue
            with file.open(member) as content:
                shape, dtype = _header(content)
            if dtype.kind not in "fiub":  # text, or pickled objects
                continue
            shapes[name] = shape
            if name in SERIES:
                needed = len(shape) == SERIES[name]
            else:
                needed = name.startswith("init_") and math.prod(shape[1:]) <= ROW
            if needed:
                total += math.prod(shape)
                fits(source, total)
                with file.open(member) as content:
                    arrays[name] = read_array(content, allow_pickle=False)
    return arrays, shapes


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """(shape, dtype) that an .npy announces; objects, which are not read, for versions that numbers don't need."""
    read = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}.get(read_magic(member))
    if read is None:
        return (), np.dtype(object)
    shape, _, dtype = read(member)
    return shape, dtype
