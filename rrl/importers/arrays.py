"""Demonstrations as plain arrays in an .npz: one array per quantity, episodes along the first axis."""

from __future__ import annotations

from zipfile import BadZipFile

import numpy as np

from rrl.importers.base import Array, Recorded, array
from rrl.registry import UserError


def read_npz(source: str) -> list[Recorded]:
    """`actions` [N, T, m] and `init_<name>` [N, ...] for qpos, qvel and what the task randomises; optionally
    `length` [N] (episodes are padded to T), `qpos`, `qvel`, `observations` [N, T or T + 1, ...].

    Arrays that are none of these are ignored; pickled ones are never loaded.
    """
    try:
        with np.load(source, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if file[name].dtype.kind in "fiub"}
    except (OSError, ValueError, BadZipFile) as error:
        raise UserError(f"{source} is not an .npz of plain arrays: {error}") from error
    if "lengths" in arrays and "initial.qpos" in arrays:
        raise UserError(f"{source} is a set of this project already; use it as it is")
    initial = {name[5:]: values for name, values in arrays.items() if name.startswith("init_")}
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

    def cut(name: str, i: int) -> Array | None:
        if name not in arrays or arrays[name].shape[:1] != (count,):
            return None
        more = arrays[name].shape[1] - longest  # 0, or 1: with what follows the last action
        return array(arrays[name][i, : lengths[i] + max(more, 0)], f"{source}: {name}")

    return [
        Recorded(
            actions=array(arrays["actions"][i, : lengths[i]], f"{source}: actions"),
            # One value per episode; constants of all episodes (scalars) are none of the task's randomisation.
            initial={k: array(v[i], f"{source}: init_{k}") for k, v in initial.items() if v.ndim > 1},
            qpos=cut("qpos", i),
            qvel=cut("qvel", i),
            observations=cut("observations", i),
        )
        for i in range(count)
    ]
