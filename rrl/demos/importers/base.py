"""What a reader of a format returns, and what all readers share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.registry import UserError

Array = NDArray[np.float64]
LIMIT = 4_000_000_000
"""Bytes of float64 that a source may unfold to: D4RL's largest Adroit sets take one GB."""
ROW = 4096
"""Numbers a step beyond which something is a picture and no state: it is left unread."""


@dataclass(frozen=True)
class Recorded:
    """One episode as a file holds it: L actions."""

    actions: Array
    """[L, m], not clipped."""
    initial: Mapping[str, Any]
    """Initial qpos, qvel and what the task randomises, by mj_envs' names (`door_body_pos`, ...), as the file
    has them: there may be more, and nothing here is checked yet. Minari's: `seed` and options of the reset too."""
    qpos: Array | None = None
    """[L or L + 1, nq]: recorded positions before each action (and after the last)."""
    qvel: Array | None = None
    """[L or L + 1, nv]"""
    observations: Array | None = None
    """[L or L + 1, n]: recorded observations, whatever they are."""
    states: Array | None = None
    """[L or L + 1, (time +) nq + nv]: in place of qpos and qvel, where only the task can tell them apart: `split`."""
    bounds: tuple[Array, Array] | None = None
    """(lowest, highest) [m]: the range that the source gives its actions. None: it says nothing."""


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


def from_states(where: str, actions: Array, states: Mapping[str, NDArray[Any]]) -> Recorded:
    """The episode of recorded `states` [L or L + 1, ...] before each action: robohive's `env_infos/state`.

    robohive logs NaN as the action that goes with the last state.
    """
    if len(actions) > 1 and np.isnan(actions[-1]).all():
        actions = actions[:-1]
    rows = (len(actions), len(actions) + 1)
    series = {name: values for name, values in states.items() if values.ndim > 1 and len(values) in rows}
    if not {"qpos", "qvel"} <= set(series):
        raise UserError(
            f"{where}: env_infos/state needs qpos and qvel for each of the {len(actions)} actions; it has "
            f"{', '.join(f'{k} {v.shape}' for k, v in states.items()) or 'nothing'}. robohive leaves states out of "
            "compressed paths (--compress_paths); without them nothing can be replayed"
        )
    qpos, qvel = (array(series[name], f"{where}: {name}", 2) for name in ("qpos", "qvel"))
    return Recorded(actions, {name: values[0] for name, values in series.items()}, qpos, qvel)


def split(where: str, episode: Recorded, nq: int, nv: int) -> Recorded:
    """The episode with its `states` as qpos and qvel of a task that has so many; UserError if it can't be."""
    if episode.states is None:
        return episode
    if not len(episode.states):
        raise UserError(f"{where}: states has no rows")
    timed = episode.states.shape[1] - nq - nv
    if timed not in (0, 1):
        raise UserError(
            f"{where}: states of {episode.states.shape[1]} numbers are not the {nq} of qpos and {nv} of qvel of this "
            "task, with a time or without"
        )
    qpos, qvel = episode.states[:, timed : timed + nq], episode.states[:, timed + nq :]
    initial = {"qpos": qpos[0], "qvel": qvel[0], **episode.initial}
    whole = replace(episode, initial=initial, qpos=qpos, qvel=qvel, states=None)
    check(where, whole)
    return whole


def jumps(qpos: Array, qvel: Array | None) -> NDArray[np.bool_]:
    """[T - 1]: did positions [T, nq] jump from a step to the next, as only a reset makes them?

    A jump is larger than three times what its joint's velocities explain, by 0.3 (m, rad), and stands out among the
    steps. Where velocities don't belong to positions one by one, it is more than 1 (m, rad). Whole turns are none, and
    nothing can be told of few steps, or of steps of more than about 0.1 s, in which joints swing to and fro.
    """
    moved = np.abs(np.diff(qpos, axis=0))
    moved = np.minimum(moved, np.abs(moved - 2 * np.pi))
    if len(moved) < 8 or not moved.size:
        return np.zeros(len(moved), bool)
    explained: Array | float = 0.7
    if qvel is not None and qvel.shape == qpos.shape:
        speed = np.maximum(np.abs(qvel[:-1]), np.abs(qvel[1:]))
        seen = (moved > 1e-2) & (speed > 0)
        duration = np.median(moved[seen] / speed[seen]) if seen.any() else 0.0  # of a step, in seconds
        explained = 3 * speed * duration if duration < 0.1 else np.inf
    usual = 5 * np.quantile(moved.max(axis=1), 0.75)
    found: NDArray[np.bool_] = (moved > np.maximum(0.3 + explained, usual)).any(axis=1)
    return found


def check(where: str, episode: Recorded) -> None:
    """Shapes that belong together, finite numbers."""
    length = len(episode.actions)
    if episode.actions.ndim != 2 or not length:
        raise UserError(f"{where}: actions must be [steps, dimensions]; got shape {episode.actions.shape}")
    if episode.bounds is not None and np.shape(episode.bounds) != (2, episode.actions.shape[1]):
        raise UserError(f"{where}: actions of {episode.actions.shape[1]} numbers have bounds {episode.bounds}")
    for name in ("qpos", "qvel", "observations", "states"):
        values = getattr(episode, name)
        if values is not None and (values.ndim != 2 or len(values) not in (length, length + 1)):
            raise UserError(
                f"{where}: {name} must have a row for each of the {length} actions, or one more; "
                f"got shape {values.shape}"
            )
    for name in ("actions", "qpos", "qvel", "states"):
        values = getattr(episode, name)
        if values is not None:
            finite(values, f"{where}: {name}")
    if episode.qpos is not None:
        at = np.flatnonzero(jumps(episode.qpos, episode.qvel))
        if len(at):
            by = np.abs(np.diff(episode.qpos, axis=0))[at[0]].max()
            raise UserError(
                f"{where}: qpos jumps by {by:.2g} (m or rad) from step {at[0]} to {at[0] + 1}, which no step of a "
                "simulator does: two episodes stand there as one. Mark where the first one ends (D4RL's layout: "
                "`terminals` or `timeouts`), or cut them apart"
            )


def finite(values: Array, what: str) -> None:
    """UserError for NaN, infinities and numbers beyond float16, in which velocities are kept."""
    if not (np.abs(values) < np.finfo(np.float16).max).all():
        raise UserError(f"{what} holds numbers that are not finite, or absurdly large")


def normalised(actions: Array, bounds: tuple[Array, Array]) -> Array:
    """Actions [L, m] of such bounds as numbers of [-1, 1]; 0 where the bounds leave one value alone."""
    low, high = bounds
    half = (high - low) / 2
    return (actions - (low + high) / 2) / np.where(half > 0, half, np.inf)


def odd_actions(episodes: Sequence[Recorded]) -> Iterator[str]:
    """In words: actions outside [-1, 1], which environments clip, of a scale of their own, or that never change."""
    if len({episode.actions.shape[1] for episode in episodes}) != 1:
        return
    actions = np.concatenate([episode.actions for episode in episodes])
    peaks = np.array([np.abs(episode.actions).max() for episode in episodes])
    outside = np.abs(actions) > 1 + 1e-6
    if outside.any():
        yield (
            f"{outside.sum()} of {actions.size} numbers in the actions ({100 * outside.mean():.2g} %; in "
            f"{(peaks > 1 + 1e-6).sum()} of {len(episodes)} episodes) lie outside [-1, 1], to which the environment "
            f"clips; the largest is {peaks.max():.3g}"
        )
    if (outside.any() and np.ptp(peaks) < 1e-3 * peaks.max()) or peaks.max() < 0.1:
        scale = f"the largest action is {np.median(peaks):.3g}"
        yield f"{scale} in each episode: are these other units than [-1, 1]? A replay takes them as they are"
    still = np.flatnonzero(np.ptp(actions, axis=0) == 0)
    if len(still) and len(actions) > 1:
        which = ", ".join(f"{i} (always {actions[0, i]:.3g})" for i in still)
        yield f"{len(still)} of {actions.shape[1]} dimensions of the actions never change: {which}"


def fits(source: str, numbers: int) -> None:
    """UserError if so many numbers would not fit into a sensible memory: a small file can claim any size."""
    if numbers * 8 > LIMIT:
        raise UserError(f"{source} claims {numbers * 8 / 1e9:,.0f} GB of numbers, where {LIMIT / 1e9:.0f} are read")
