"""What a reader of a format returns, and what all readers share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.registry import UserError

Array = NDArray[np.float64]
LIMIT = 4_000_000_000
"""Bytes of float64 that a source may unfold to: D4RL's largest Adroit sets take one GB."""


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


def array(values: Any, what: str, ndim: int | None = None) -> Array:
    """float64; UserError if these are not numbers of one shape, or have not `ndim` dimensions."""
    try:
        numbers = np.asarray(values)
    except ValueError as error:  # ragged
        raise UserError(f"{what} is not one array: {error}") from error
    if numbers.dtype.kind not in "fiub":
        raise UserError(f"{what} must hold numbers; it holds {numbers.dtype}")
    if ndim is not None and numbers.ndim != ndim:
        raise UserError(f"{what} must have {ndim} dimensions; its shape is {numbers.shape}")
    return numbers.astype(np.float64)


def matrix(values: Any, what: str) -> Array | None:
    """The values if they are a matrix of numbers; None for anything else, such as pictures."""
    try:
        return array(values, what, 2)
    except UserError:
        return None


def check(where: str, episode: Recorded) -> None:
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
