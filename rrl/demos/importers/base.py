"""What an importer returns, how a format is recognised, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.registry import UserError

Array = NDArray[np.float64]
LIMIT = 4_000_000_000
"""Bytes of float64 that a source may unfold to: D4RL's largest Adroit sets take one GB."""
FORMATS = ("dapg", "hdf5", "minari", "npz")


@dataclass(frozen=True)
class Recorded:
    """One episode as a file holds it: L actions."""

    actions: Array
    """[L, m], not clipped."""
    initial: Mapping[str, Any]
    """Initial qpos, qvel and what the task randomises, by mj_envs' names (`door_body_pos`, ...), as the file
    has them: there may be more, and nothing here is checked yet."""
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
    if kind != "minari" and not Path(source).is_file():
        raise UserError(f"there is no file {source}")
    try:
        episodes = _reader(kind)(source)
    except UserError:
        raise
    except Exception as error:  # other people's files, and libraries that read them, fail in many ways
        raise UserError(
            f"{source} can't be read as {kind}, it may be damaged: {type(error).__name__}: {error}"
        ) from error
    if not episodes:
        raise UserError(f"{source} holds no episodes")
    for i, episode in enumerate(episodes):
        _check(f"{source}, episode {i}", episode)
    return episodes


def guess(source: str) -> str:
    """The format that a name suggests; UserError if it suggests none."""
    path = Path(source)
    by_suffix = {".pickle": "dapg", ".pkl": "dapg", ".npz": "npz", ".hdf5": "hdf5", ".h5": "hdf5"}
    if path.suffix in by_suffix:
        return by_suffix[path.suffix]
    if path.is_dir() or not path.exists():  # an id such as D4RL/door/human-v2
        return "minari"
    raise UserError(f"the name {source} says nothing of its format; add --format with one of {', '.join(FORMATS)}")


def _reader(kind: str) -> Callable[[str], list[Recorded]]:
    if kind == "dapg":
        from rrl.demos.importers.dapg import read_dapg

        return read_dapg
    if kind == "hdf5":
        from rrl.demos.importers.hdf5 import read_hdf5

        return read_hdf5
    if kind == "minari":
        from rrl.demos.importers.minari import read_minari

        return read_minari
    from rrl.demos.importers.arrays import read_npz

    return read_npz


def array(values: Any, what: str, ndim: int | None = None) -> Array:
    """float64; UserError if these are not numbers of one shape, or have not `ndim` dimensions."""
    try:
        made = np.asarray(values)
    except ValueError as error:  # ragged
        raise UserError(f"{what} is not one array: {error}") from error
    if made.dtype.kind not in "fiub":
        raise UserError(f"{what} must hold numbers; it holds {made.dtype}")
    if ndim is not None and made.ndim != ndim:
        raise UserError(f"{what} must have {ndim} dimensions; its shape is {made.shape}")
    return made.astype(np.float64)


def matrix(values: Any, what: str) -> Array | None:
    """The values if they are a matrix of numbers; None for anything else, such as pictures."""
    try:
        return array(values, what, 2)
    except UserError:
        return None


def _check(where: str, episode: Recorded) -> None:
    """Shapes that belong together, finite numbers."""
    length = len(episode.actions)
    if episode.actions.ndim != 2 or not length:
        raise UserError(f"{where}: actions must be [steps, dimensions]; got shape {episode.actions.shape}")
    for name in ("qpos", "qvel", "observations"):
        values = getattr(episode, name)
        if values is not None and (values.ndim != 2 or len(values) not in (length, length + 1)):
            raise UserError(
                f"{where}: {name} must have a row for each of the {length} actions, or one more; "
                f"got shape {values.shape}"
            )
    for name in ("actions", "qpos", "qvel"):
        values = getattr(episode, name)
        if values is not None:
            finite(values, f"{where}: {name}")


def finite(values: Array, what: str) -> None:
    """UserError for NaN, infinities and numbers beyond float16, in which velocities are kept."""
    if not (np.abs(values) < np.finfo(np.float16).max).all():
        raise UserError(f"{what} holds numbers that are not finite, or absurdly large")


def fits(source: str, numbers: int) -> None:
    """UserError if so many numbers would not fit into a sensible memory: a small file can claim any size."""
    if numbers * 8 > LIMIT:
        raise UserError(f"{source} claims {numbers * 8 / 1e9:,.0f} GB of numbers, where {LIMIT / 1e9:.0f} are read")
