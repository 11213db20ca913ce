"""Demonstrations as plain arrays in an .npz: one array per quantity, episodes along the first axis."""

from __future__ import annotations

import zlib
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from rrl.importers.base import Array, Recorded, array
from rrl.registry import UserError


def read_npz(source: str) -> list[Recorded]:
    """`actions` [N, T, m] and `init_<name>` [N, ...] for qpos, qvel and what the task randomises; optionally
    `length` [N] (episodes are padded to T), `qpos`, `qvel`, `observations` [N, T or T + 1, ...].

    Arrays that are none of these are ignored; pickled ones are never loaded.
    """
    arrays = _numbers(source)
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
        raise UserError(
            f"{source}: `length` must hold {count} numbers from 1 to {longest}; got {lengths.tolist()}"
        )
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
    found = {}
    try:
        with np.load(source, allow_pickle=False) as file:
            for name in file.files:
                try:
                    values = file[name]
                except ValueError:  # pickled objects
                    continue
                if values.dtype.kind in "fiub":
                    found[name] = values
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        KeyError,
        BadZipFile,
        zlib.error,
    ) as error:
        raise UserError(f"{source} is not an .npz of plain arrays: {error}") from error
    return found
