"""Demonstrations as plain arrays in an .npz: one array per quantity, episodes along the first axis."""

from __future__ import annotations

import math
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.lib.format import read_array, read_array_header_1_0, read_array_header_2_0, read_magic
from numpy.typing import NDArray

from rrl.demos.importers.base import Array, Recorded, array, fits
from rrl.registry import UserError

MAGIC = b"\x93NUMPY"


def read_npz(source: str) -> list[Recorded]:
    """`actions` [N, T, m] and `init_<name>` [N, ...] for qpos, qvel and what the task randomises; optionally
    `length` [N] (episodes are padded to T), `qpos`, `qvel`, `observations` [N, T or T + 1, ...].

    Arrays that are none of these are ignored; pickled ones are never loaded.
    """
    try:
        arrays = _numbers(source)
    except BadZipFile as error:
        raise UserError(f"{source} is not an .npz of plain arrays: {error}") from error
    if "lengths" in arrays and "initial.qpos" in arrays:
        raise UserError(f"{source} is a set of this project already; use it as it is")
    initial = {k[5:]: v for k, v in arrays.items() if k.startswith("init_") and v.ndim > 1}
    if "actions" not in arrays or arrays["actions"].ndim != 3 or not initial:
        raise UserError(
            f"{source} needs `actions` [episodes, steps, dimensions] and `init_qpos`, `init_qvel` and so on; "
            f"it has {', '.join(f'{k} {v.shape}' for k, v in arrays.items()) or 'no arrays of numbers'}"
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


def _numbers(source: str) -> dict[str, NDArray[Any]]:
    """The arrays of numbers in an .npz; others (text, pickled objects) are left where they are."""
    arrays: dict[str, NDArray[Any]] = {}
    with ZipFile(source) as file:
        fits(source, sum(member.file_size for member in file.infolist()) // 8)
        total = 0
        for name in file.namelist():
            with file.open(name) as member:
                if member.read(len(MAGIC)) != MAGIC:
                    continue
            with file.open(name) as member:
                shape, dtype = _header(member)
                if dtype.kind not in "fiub":  # text, or pickled objects
                    continue
                total += math.prod(shape)
                fits(source, total)
            with file.open(name) as member:
                arrays[name.removesuffix(".npy")] = read_array(member, allow_pickle=False)
    return arrays


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """(shape, dtype) that an .npy announces."""
    read = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}.get(read_magic(member))
    if read is None:
        raise UserError("an .npy of a version that is not read here")
    shape, _, dtype = read(member)
    return shape, dtype
