"""Demonstrations in HDF5: robomimic's layout (`data/demo_0`), robohive's (`Trial0`) and D4RL's (all steps in a row)."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.demos.importers.base import ROW, Recorded, array, fits, from_states, jumps
from rrl.registry import UserError


def read_hdf5(source: str) -> list[Recorded]:
    """The episodes of a file in robomimic's, robohive's or D4RL's layout; UserError if it has none of them."""
    with _opened(source) as opened:
        file = _File(source, opened)
        if file.names("data"):
            return _robomimic(file)
        if trials := _numbered(opened, "Trial"):
            return [_robohive(file, trial) for trial in trials]
        if file.shape("actions"):
            return _d4rl(file)
        raise UserError(
            f"{source} has neither robomimic's `data/demo_0` nor robohive's `Trial0` nor D4RL's `actions`; "
            f"it has {', '.join(opened) or 'nothing'}"
        )


def _opened(source: str) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise UserError("HDF5 files need h5py: pip install 'rrl[demos]'") from error
    return h5py.File(source, "r")


GYM = 2
"""robomimic's number for environments of gym, among those of `robomimic.envs.env_base.EnvType`."""


def hdf5_environment(source: str) -> dict[str, Any]:
    """Which environment of gymnasium a robomimic file was recorded in (`data`'s attribute `env_args`); nothing if it
    is of another kind, or the file says nothing."""
    with _opened(source) as opened:
        data = _File(source, opened).find("data")
        told = data.attrs.get("env_args") if hasattr(data, "attrs") else None
    args = json.loads(told) if isinstance(told, (str, bytes)) else {}
    if not isinstance(args, dict) or args.get("type") != GYM:
        return {}
    return {"id": args.get("env_name"), "kwargs": args.get("env_kwargs")}


class _File:
    """An HDF5 file of which only what a replay needs is looked at, and counted."""

    def __init__(self, source: str, opened: Any) -> None:
        self.source = source
        self.opened = opened
        self.total = 0
        """Numbers read so far."""

    def find(self, *path: str) -> Any:
        """The group or dataset at this path; None if there is none. UserError if it lies elsewhere."""
        at = self.opened
        for name in path:
            if not hasattr(at, "keys") or name not in at.keys():  # noqa: SIM118 - a file's keys are one level
                return None
            at = owned(self.source, at, name)
        return at

    def names(self, *path: str) -> list[str]:
        """What a group holds; nothing if there is no such group."""
        group = self.find(*path)
        return list(group) if hasattr(group, "keys") else []

    def shape(self, *path: str) -> tuple[int, ...]:
        """Of the dataset of numbers at this path; () if there is none."""
        found = self.find(*path)
        numbers = hasattr(found, "dtype") and found.dtype.kind in "fiub"
        return tuple(found.shape or ()) if numbers else ()

    def read(self, *path: str, rows: NDArray[np.int64] | None = None) -> NDArray[Any] | None:
        """The dataset of numbers at this path, or these rows of it; None if there is none."""
        shape = self.shape(*path)
        if not shape:
            return None
        self.total += math.prod(shape if rows is None else (len(rows), *shape[1:]))
        fits(self.source, self.total)
        values: NDArray[Any] = self.find(*path)[() if rows is None else rows]
        return values

    def series(self, lengths: tuple[int, ...], *path: str) -> list[str]:
        """The datasets in a group that hold a state's worth of numbers for each of so many steps: no pictures."""
        shapes = {name: self.shape(*path, name) for name in self.names(*path)}
        return [k for k, s in shapes.items() if len(s) > 1 and s[0] in lengths and math.prod(s[1:]) <= ROW]


def owned(source: str, group: Any, name: str) -> Any:
    """What a group holds by this name; UserError if it lies elsewhere.

    HDF5 can show other files of this machine as its content: by external storage, links, virtual datasets.
    """
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise UserError(f"{source} is refused: {group.name}/{name} is a link to something else")
    value = group[name]
    if isinstance(value, h5py.Dataset) and (value.external or value.is_virtual):
        raise UserError(f"{source} is refused: {group.name}/{name} lies in another file")
    return value


def check_hdf5(source: str, file: Any) -> None:
    """UserError for a file of an episode per group that is more than a tree of arrays of its own, for a library that
    reads whole episodes: it may also refer to one thing by many names, and claim any size for arrays that it does
    not hold. Pictures count as stored, an episode at a time, since they are not kept.
    """
    import h5py

    seen: set[Any] = set()
    total = 0
    for first in file:
        pictures = 0
        todo = [(file, first)]
        while todo:
            group, name = todo.pop()
            value = owned(source, group, name)
            token = h5py.h5o.get_info(value.id)
            if (token.fileno, token.addr) in seen:
                raise UserError(f"{source} is refused: it has two names for {group.name}/{name}")
            seen.add((token.fileno, token.addr))
            if isinstance(value, h5py.Group):
                todo += [(value, each) for each in value]
            elif isinstance(value, h5py.Dataset) and len(value.shape or ()) > 2:
                pictures += value.size * value.dtype.itemsize // 8
            elif isinstance(value, h5py.Dataset):
                total += value.size or 0
            fits(source, total + pictures)


def _numbered(names: Any, word: str) -> list[str]:
    """The names that are this word and a number, by number."""
    found = [name for name in names if re.fullmatch(word + r"\d+", name)]
    return sorted(found, key=lambda name: int(name[len(word) :]))


def _robomimic(file: _File) -> list[Recorded]:
    """`data/demo_<i>`: `actions` [L, m], `states` [L, time? + nq + nv]; nothing else, such as `obs/`, is read.

    robomimic stores nothing that a task randomises outside the state; it is looked for as `init_<name>` among
    the episode's arrays and attributes.
    """
    episodes = []
    for name in _numbered(file.names("data"), "demo_"):
        where = f"{file.source}, {name}"
        actions, states = file.read("data", name, "actions"), file.read("data", name, "states")
        if actions is None:
            raise UserError(f"{where} has no actions")
        attributes = file.find("data", name).attrs
        initial: dict[str, Any] = {k[5:]: attributes[k] for k in attributes if k.startswith("init_")}
        for dataset in file.names("data", name):
            if dataset.startswith("init_"):
                initial[dataset[5:]] = file.read("data", name, dataset)
        initial = {k: v for k, v in initial.items() if np.ndim(v)}
        flat = None if states is None else array(states, f"{where}: states", 2)
        episodes.append(Recorded(array(actions, f"{where}: actions", 2), initial, states=flat))
    return episodes


def _robohive(file: _File, trial: str) -> Recorded:
    """`Trial<i>`: `actions` [L (+ 1), m] and `env_infos/state/<name>`: the state and what the task randomised."""
    where = f"{file.source}, {trial}"
    values = file.read(trial, "actions")
    if values is None:
        raise UserError(f"{where} has no actions; it has {', '.join(file.names(trial)) or 'nothing'}")
    actions = array(values, f"{where}: actions", 2)
    inside = (trial, "env_infos", "state")
    names = file.series((len(actions) - 1, len(actions), len(actions) + 1), *inside)
    states = {name: file.read(*inside, name) for name in names}
    return from_states(where, actions, {k: v for k, v in states.items() if v is not None})


def _d4rl(file: _File) -> list[Recorded]:
    """`actions` [T, m]; `timeouts`, `terminals` [T]; `infos/qpos`, `infos/qvel` and `infos/<quantity>` [T, ...]: the
    state and what the task randomised, before each action."""
    source, given = file.source, file.read("actions")
    actions = array(() if given is None else given, f"{source}: actions", 2)
    count = len(actions)
    if not count:
        return []
    names = file.series((count,), "infos")
    if not {"qpos", "qvel"} <= set(names):
        raise UserError(
            f"{source} has no infos/qpos and infos/qvel of {count} rows: without initial states nothing can be replayed"
        )
    qpos, qvel = (array(file.read("infos", name), f"{source}: infos/{name}", 2) for name in ("qpos", "qvel"))
    bounds = _bounds(file, jumps(qpos, qvel))
    starts = np.array(bounds[:-1])
    initial = {name: file.read("infos", name, rows=starts) for name in names}
    shape = file.shape("observations")
    narrow = len(shape) == 2 and shape[0] == count and shape[1] <= ROW
    seen = array(file.read("observations"), f"{source}: observations") if narrow else None
    return [
        Recorded(
            actions[a:b],
            {k: v[i] for k, v in initial.items() if v is not None},
            qpos[a:b],
            qvel[a:b],
            None if seen is None else seen[a:b],
        )
        for i, (a, b) in enumerate(pairwise(bounds))
    ]


def _bounds(file: _File, jumped: NDArray[np.bool_]) -> list[int]:
    """Where episodes begin, and the end; `jumped` [T - 1]: between a step and the next.

    An episode ends at either flag. Neighbouring terminals without a jump in between are one end, at the last of
    them: a pen that lies there stays terminal.
    """
    count = len(jumped) + 1
    flags = {}
    for name in ("timeouts", "terminals"):
        values = file.read(name)
        flags[name] = np.zeros(count, bool) if values is None else values.astype(bool).reshape(-1)
        if len(flags[name]) != count:
            raise UserError(f"{file.source}: {name} must have {count} entries, as actions has; got {len(flags[name])}")
    lies_on = np.append(flags["terminals"][1:] & ~jumped, False)
    ends = np.flatnonzero(flags["timeouts"] | (flags["terminals"] & ~lies_on))
    return sorted({0, count, *(int(end) + 1 for end in ends)})
