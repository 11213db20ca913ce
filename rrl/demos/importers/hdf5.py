"""Demonstrations in HDF5: robomimic's layout (a group per episode) and D4RL's (all steps in a row)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.demos.importers.base import Array, Recorded, array, fits, matrix
from rrl.registry import UserError


def read_hdf5(source: str) -> list[Recorded]:
    """The episodes of a file in robomimic's or D4RL's layout; UserError if it has neither."""
    try:
        import h5py
    except ImportError as error:
        raise UserError("HDF5 files need h5py: pip install 'rrl[demos]'") from error
    with h5py.File(source, "r") as file:
        check_hdf5(source, file)
        if isinstance(file.get("data"), h5py.Group):
            return _robomimic(source, file["data"])
        if isinstance(file.get("actions"), h5py.Dataset):
            return _d4rl(source, file)
        raise UserError(
            f"{source} has neither robomimic's `data/demo_0` nor D4RL's `actions`; "
            f"it has {', '.join(file.keys()) or 'nothing'}"
        )


def check_hdf5(source: str, file: Any) -> None:
    """UserError for a file that is more than a tree of arrays of its own.

    HDF5 can show other files of this machine as its content (external storage, links, virtual datasets),
    refer to one thing by many names, and claim any size for arrays that it does not hold.
    """
    import h5py

    seen: set[Any] = set()
    total = 0
    todo = [file]
    while todo:
        group = todo.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise UserError(f"{source} is refused: {group.name}/{name} is a link to something else")
            value = group[name]
            token = h5py.h5o.get_info(value.id)
            if (token.fileno, token.addr) in seen:
                raise UserError(f"{source} is refused: it has two names for {group.name}/{name}")
            seen.add((token.fileno, token.addr))
            if isinstance(value, h5py.Group):
                todo.append(value)
            elif isinstance(value, h5py.Dataset):
                if value.external or value.is_virtual:
                    raise UserError(f"{source} is refused: {group.name}/{name} lies in another file")
                total += value.size or 0
                fits(source, total)


def _arrays(group: Any) -> dict[str, NDArray[Any]]:
    """The datasets of numbers right in a group."""
    import h5py

    if not isinstance(group, h5py.Group):
        return {}
    datasets = {name: value for name, value in group.items() if isinstance(value, h5py.Dataset)}
    return {name: value[()] for name, value in datasets.items() if value.dtype.kind in "fiub" and value.shape}


def _robomimic(source: str, data: Any) -> list[Recorded]:
    """`data/demo_<i>`: `actions` [L, m], `states` [L, time? + nq + nv], `obs/`.

    robomimic stores nothing that a task randomises outside the state; it is looked for as `init_<name>` among
    the episode's arrays and attributes. nq and nv follow from `init_qpos`; without it they are equal, as
    Adroit's are.
    """
    names = sorted((n for n in data if re.fullmatch(r"demo_\d+", n)), key=lambda n: int(n[5:]))
    episodes = []
    for name in names:
        where = f"{source}, {name}"
        given = {**_arrays(data[name]), **{k: v for k, v in data[name].attrs.items() if np.ndim(v)}}
        if "actions" not in given:
            raise UserError(f"{where} has no actions")
        initial = {k[5:]: v for k, v in given.items() if k.startswith("init_")}
        qpos = qvel = None
        if "states" in given:
            qpos, qvel = _split(where, array(given["states"], f"{where}: states", 2), initial)
            initial = {"qpos": qpos[0], "qvel": qvel[0], **initial}
        episodes.append(Recorded(array(given["actions"], f"{where}: actions", 2), initial, qpos, qvel))
    return episodes


def _split(where: str, states: Array, initial: Mapping[str, Any]) -> tuple[Array, Array]:
    """qpos and qvel out of flat states [L, (time +) nq + nv]."""
    if not len(states):
        raise UserError(f"{where}: states has no rows")
    width = states.shape[1]
    nq = np.size(initial["qpos"]) if "qpos" in initial else width // 2
    timed = width % 2
    if timed + 2 * nq != width:
        raise UserError(
            f"{where}: states of {width} numbers are not qpos and qvel of {nq} each, with a time or without"
        )
    return states[:, timed : timed + nq], states[:, timed + nq :]


def _d4rl(source: str, file: Any) -> list[Recorded]:
    """`actions` [T, m]; `timeouts`, or else `terminals` [T]; `infos/qpos`, `infos/qvel` and
    `infos/<quantity>` [T, ...]: the state and what the task randomised, before each action."""
    whole = _arrays(file)
    actions = array(whole.get("actions", ()), f"{source}: actions", 2)
    count = len(actions)
    if not count:
        return []
    infos = {k: v for k, v in _arrays(file.get("infos")).items() if v.shape[:1] == (count,) and v.ndim > 1}
    if "qpos" not in infos or "qvel" not in infos:
        raise UserError(
            f"{source} has no infos/qpos and infos/qvel of {count} rows: without initial states nothing can be replayed"
        )
    qpos, qvel = (array(infos[name], f"{source}: infos/{name}", 2) for name in ("qpos", "qvel"))
    seen = matrix(whole["observations"], "observations") if "observations" in whole else None
    seen = seen if seen is not None and len(seen) == count else None
    return [
        Recorded(
            actions[a:b],
            {k: v[a] for k, v in infos.items()},
            qpos[a:b],
            qvel[a:b],
            None if seen is None else seen[a:b],
        )
        for a, b in pairwise(_bounds(source, whole, count))
    ]


def _bounds(source: str, whole: Mapping[str, NDArray[Any]], count: int) -> list[int]:
    """Where episodes begin, and the end. Without timeouts, the last of neighbouring terminals ends one: a pen
    that lies there stays terminal."""
    flags = {}
    for name in ("timeouts", "terminals"):
        if name in whole:
            flags[name] = whole[name].astype(bool).reshape(-1)
            if len(flags[name]) != count:
                raise UserError(f"{source}: {name} must have {count} entries, as actions has; got {len(flags[name])}")
    if flags.get("timeouts", np.zeros(1)).any():
        ends = np.flatnonzero(flags["timeouts"])
    else:
        terminals = flags.get("terminals", np.zeros(count, bool))
        ends = np.flatnonzero(terminals & ~np.append(terminals[1:], False))
    return sorted({0, count, *(int(end) + 1 for end in ends)})
