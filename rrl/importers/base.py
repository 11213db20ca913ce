"""What an importer returns, how a format is recognised, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.registry import UserError

Array = NDArray[np.float64]
FORMATS = ("dapg", "hdf5", "minari", "npz")


@dataclass(frozen=True)
class Recorded:
    """One episode as a file holds it: L actions."""

    actions: Array
    """[L, m], not clipped."""
    initial: Mapping[str, Array]
    """Initial qpos, qvel and what the task randomises, by mj_envs' names (`door_body_pos`, ...); there may be
    more."""
    qpos: Array | None = None
    """[L or L + 1, nq]: recorded positions before each action (and after the last)."""
    qvel: Array | None = None
    """[L or L + 1, nv]"""
    observations: Array | None = None
    """[L or L + 1, n]: recorded observations, whatever they are."""


def read(source: str, kind: str | None = None) -> list[Recorded]:
    """The episodes of a file, a folder (Minari) or a Minari dataset id.

    `kind` is one of `FORMATS`; None: told by the name. UserError if the source can't be read or is something
    else than it claims.
    """
    kind = kind or guess(source)
    if kind not in FORMATS:
        raise UserError(f"there is no format {kind}; it is one of {', '.join(FORMATS)}")
    reader = _reader(kind)
    if kind != "minari" and not Path(source).is_file():
        raise UserError(f"there is no file {source}")
    episodes = reader(source)
    if not episodes:
        raise UserError(f"{source} holds no episodes")
    for i, episode in enumerate(episodes):
        _check(source, i, episode)
    return episodes


def guess(source: str) -> str:
    """The format that a name suggests; UserError if it suggests none."""
    path = Path(source)
    by_suffix = {".pickle": "dapg", ".pkl": "dapg", ".npz": "npz", ".hdf5": "hdf5", ".h5": "hdf5"}
    if path.suffix in by_suffix:
        return by_suffix[path.suffix]
    if path.is_dir() or not path.exists():  # an id such as D4RL/door/human-v2
        return "minari"
    raise UserError(
        f"the name {source} says nothing of its format; add --format with one of {', '.join(FORMATS)}"
    )


def _reader(kind: str) -> Callable[[str], list[Recorded]]:
    if kind == "dapg":
        from rrl.importers.dapg import read_dapg

        return read_dapg
    if kind == "hdf5":
        from rrl.importers.hdf5 import read_hdf5

        return read_hdf5
    if kind == "minari":
        from rrl.importers.minari import read_minari

        return read_minari
    from rrl.importers.arrays import read_npz

    return read_npz


def array(values: Any, what: str) -> Array:
    """float64; UserError if these are not numbers of one shape."""
    try:
        made = np.asarray(values)
        if made.dtype.kind not in "fiub":
            raise ValueError(f"it holds {made.dtype}")
        return made.astype(np.float64)
    except (ValueError, TypeError) as error:
        raise UserError(f"{what} is not an array of numbers: {error}") from error


def _check(source: str, index: int, episode: Recorded) -> None:
    """Shapes that belong together, finite numbers."""
    where = f"{source}, episode {index}"
    if episode.actions.ndim != 2 or not len(episode.actions):
        raise UserError(f"{where}: actions must be [steps, dimensions]; got shape {episode.actions.shape}")
    length = len(episode.actions)
    for name in ("qpos", "qvel", "observations"):
        values = getattr(episode, name)
        if values is not None and (values.ndim != 2 or len(values) not in (length, length + 1)):
            raise UserError(
                f"{where}: {name} must have a row for each of the {length} actions, or one more; "
                f"got shape {values.shape}"
            )
    named: Sequence[tuple[str, Any]] = [("actions", episode.actions), *episode.initial.items()]
    for name, values in named:
        if not np.isfinite(values).all():
            raise UserError(f"{where}: {name} holds values that are not finite")
