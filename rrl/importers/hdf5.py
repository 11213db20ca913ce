"""Demonstrations in HDF5: robomimic's layout (a group per episode) and D4RL's (all steps in a row)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from rrl.importers.base import Array, Recorded, array
from rrl.registry import UserError


def read_hdf5(source: str) -> list[Recorded]:
    """The episodes of a file in robomimic's or D4RL's layout; UserError if it has neither."""
    try:
        import h5py
    except ImportError as error:
        raise UserError("HDF5 files need h5py: pip install 'rrl[demos]'") from error
    try:
        with h5py.File(source, "r") as file:
            if "data" in file and hasattr(file["data"], "keys"):
                return _robomimic(source, file["data"])
            if "actions" in file:
                return _d4rl(source, file)
            raise UserError(
                f"{source} has neither robomimic's `data/demo_0` nor D4RL's `actions`; "
                f"it has {', '.join(file.keys()) or 'nothing'}"
            )
    except OSError as error:
        raise UserError(f"{source} is not an HDF5 file that can be read: {error}") from error


def _robomimic(source: str, data: Any) -> list[Recorded]:
    """`data/demo_<i>`: `actions` [L, m], `states` [L, time? + nq + nv], `obs/`.

    robomimic stores nothing that a task randomises outside the state; it is looked for as `init_<name>` among
    the episode's arrays and attributes. nq and nv follow from `init_qpos` and `init_qvel`.
    """
    names = sorted((n for n in data if re.fullmatch(r"demo_\d+", n)), key=lambda n: int(n[5:]))
    made = []
    for name in names:
        group, where = data[name], f"{source}, {name}"
        if "actions" not in group:
            raise UserError(f"{where} has no actions")
        given: dict[str, Any] = {**{k: v[()] for k, v in group.items() if hasattr(v, "dtype")}, **group.attrs}
        initial = {
            k[5:]: array(v, f"{where}: {k}") for k, v in given.items() if k.startswith("init_") and np.ndim(v)
        }
        qpos = qvel = None
        if "states" in given:
            states = array(given["states"], f"{where}: states")
            qpos, qvel = _split(where, states, initial)
            initial = {"qpos": qpos[0], "qvel": qvel[0], **initial}
        made.append(Recorded(array(given["actions"], f"{where}: actions"), initial, qpos, qvel))
    return made


def _split(where: str, states: Array, initial: Mapping[str, Array]) -> tuple[Array, Array]:
    """qpos and qvel out of flat states [L, (time +) nq + nv]; Adroit's nq and nv are equal."""
    if states.ndim != 2:
        raise UserError(f"{where}: states must be [steps, numbers]; got shape {states.shape}")
    width = states.shape[1]
    nq = len(initial["qpos"]) if "qpos" in initial else width // 2
    timed = width % 2
    if timed + 2 * nq != width:
        raise UserError(
            f"{where}: states of {width} numbers are not qpos and qvel of {nq} each, with a time or not"
        )
    return states[:, timed : timed + nq], states[:, timed + nq :]


def _d4rl(source: str, file: Any) -> list[Recorded]:
    """`actions` [T, m], `timeouts` and `terminals` [T]; `infos/qpos`, `infos/qvel` and `infos/<quantity>`
    [T, ...]: the state and what the task randomised, before each action."""
    actions = array(file["actions"][()], f"{source}: actions")
    ends = np.zeros(len(actions), bool)
    for name in ("timeouts", "terminals"):
        if name in file:
            ends |= np.asarray(file[name][()], bool)
    ends[-1] = True
    infos = file.get("infos", {})
    arrays = {k: array(v[()], f"{source}: infos/{k}") for k, v in infos.items() if _per_step(v, len(actions))}
    if "qpos" not in arrays or "qvel" not in arrays:
        raise UserError(
            f"{source} has no infos/qpos and infos/qvel: without initial states nothing can be replayed"
        )
    bounds = [0, *(np.flatnonzero(ends) + 1)]
    return [
        Recorded(
            actions[a:b],
            {k: v[a] for k, v in arrays.items()},
            arrays["qpos"][a:b],
            arrays["qvel"][a:b],
            array(file["observations"][a:b], f"{source}: observations") if "observations" in file else None,
        )
        for a, b in pairwise(bounds)
    ]


def _per_step(values: Any, count: int) -> bool:
    return (
        hasattr(values, "dtype")
        and values.dtype.kind in "fiub"
        and values.shape[:1] == (count,)
        and values.ndim > 1
    )
