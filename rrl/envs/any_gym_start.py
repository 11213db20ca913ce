"""Where other people's episodes of an environment begin here: by their seeds, at recorded positions, or where the first
observation is the recorded one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.envs.any_gym_seen import flat
from rrl.envs.any_gym_sim import SAME, GymnasiumSim
from rrl.envs.base import RESET_OPTIONS, seed_of, seed_words
from rrl.registry import UserError

Array = NDArray[np.float64]
Start = dict[str, Array]
NEAR = 0.01
"""Up to this difference a start is taken and told: noise on observations. What is farther off is another start."""
TRIES = 8
"""Of Newton's method, which needs one or two where observations are linear in the state, as most are."""


def starts(
    sim: GymnasiumSim, told: Sequence[Mapping[str, Any]], seen: Sequence[Array | None]
) -> tuple[list[Start], str]:
    """See `EnvFactory.starts`."""
    found: list[Start] = []
    how: dict[str, list[float]] = {}
    more = beyond(sim)
    for i, (each, first) in enumerate(zip(told, seen, strict=True)):
        try:
            start, words, apart = _start(sim, each, first, more)
        except UserError as error:
            raise UserError(f"episode {i}: {error}") from error
        found.append(start)
        how.setdefault(words, []).append(apart)
    names = {tuple(start) for start in found}
    if len(names) > 1:
        raise UserError(f"episodes were reset with different options: {' or '.join(map(', '.join, sorted(names)))}")
    return found, "\n".join(_in_words(words, apart, len(found)) for words, apart in how.items())


def _in_words(how: str, apart: list[float], count: int) -> str:
    some = f"{len(apart)} of {count} episodes begin" if len(apart) < count else "episodes begin"
    known = [value for value in apart if not np.isnan(value)]
    if not known:
        return f"{some} {how}; there is no recorded first observation to compare with"
    return f"{some} {how}; first observations differ from the recorded ones by at most {max(known):.2g}"


def _start(
    sim: GymnasiumSim, told: Mapping[str, Any], first: Array | None, more: Sequence[str]
) -> tuple[Start, str, float]:
    """One episode's start, how it was found, and how far its first observation is from the recorded one. `more`: see
    `beyond`. UserError if there is no such start."""
    seed = seed_of(told["seed"]) if "seed" in told else None
    begun: Start = {"seed": seed_words(seed or 0)}
    begun |= {name: np.asarray(value, np.float64) for name, value in told.items() if name.startswith(RESET_OPTIONS)}
    raw, now = flat(sim.begin(begun)), sim.physics()
    if first is not None and len(first) != len(raw):
        if not {"qpos", "qvel"} <= set(told):
            raise UserError(
                f"its observations have {len(first)} numbers, those of {sim.label} {len(raw)}: is it this environment, "
                "with these settings?"
            )
        first = None  # something else was looked at
    apart = _apart(raw, first)
    words = "as a reset with seed 0 does, since no seed was recorded" if seed is None else "with their recorded seeds"
    at = "at their recorded positions and velocities"
    if (state := _recorded(told, sim.label, now)) is None and apart > SAME:
        why = "no seed was recorded" if seed is None else "the recorded seeds begin elsewhere here: another version?"
        at = f"at positions and velocities that are observed as recorded ({why})"
        state = _showing(sim, first, now)
    if state is None and seed is None and first is None:
        raise UserError("nothing tells where it begins: neither qpos and qvel, nor a seed, nor a first observation")
    # Seeds are exact; positions may have been rounded as they were kept.
    if state is not None and (seed is None or max(map(_apart, state, now)) > SAME):
        words = at + (f" (a reset draws {', '.join(more)} too, which these don't tell)" if more else "")
        if more and first is None:
            raise UserError(f"it can't be known to begin {words}: no first observation was recorded")
        begun |= dict(zip(("qpos", "qvel"), state, strict=True))
        apart = _apart(flat(sim.begin(begun)), first)
    if apart > NEAR:
        raise UserError(
            f"{sim.label} does not begin as recorded: beginning {words}, its first observation is up to {apart:.2g} "
            "from the recorded one. Is it this environment, in the recorded version, with the recorded settings?"
        )
    sim.begin(begun)
    return sim.initial(), words, apart


def _apart(here: Array, there: Array | None) -> float:
    """The largest difference of two observations; NaN if one is unknown."""
    if there is None or len(here) != len(there):
        return float("nan")
    return float((np.abs(here - there) / np.maximum(1, np.abs(there))).max(initial=0.0))


def _recorded(told: Mapping[str, Any], label: str, now: tuple[Array, Array]) -> tuple[Array, Array] | None:
    """The recorded positions and velocities, if there are any; UserError if they are not those of this simulator."""
    if not {"qpos", "qvel"} <= set(told):
        return None
    qpos, qvel = np.asarray(told["qpos"], np.float64), np.asarray(told["qvel"], np.float64)
    for name, state, own in zip(("qpos", "qvel"), (qpos, qvel), now, strict=True):
        if state.shape != own.shape:
            raise UserError(f"{name} of {label} has {own.size} numbers, got {state.size}: is it this environment?")
    return qpos, qvel


def _showing(sim: GymnasiumSim, first: Array | None, now: tuple[Array, Array]) -> tuple[Array, Array] | None:
    """Positions and velocities that are observed as `first`, from those of `now` by Newton's method; None if there are
    none, or if this environment can't be asked what it observes."""
    nq, state = len(now[0]), np.concatenate(now)
    if first is None or not sim.observable:
        return None

    def observed(state: Array) -> Array:
        return flat(sim.observed_at(state[:nq], state[nq:]))

    for _ in range(TRIES):
        error = observed(state) - first
        steps = 1e-6 * np.eye(len(state))
        slopes = np.stack([(observed(state + step) - observed(state - step)) / 2e-6 for step in steps], axis=1)
        state = state - np.linalg.lstsq(slopes, error, rcond=1e-9)[0]
        if not np.isfinite(state).all():
            return None
        if _apart(observed(state), first) <= 1e-3 * SAME:
            break
    return (state[:nq], state[nq:]) if _apart(observed(state), first) <= SAME else None


def beyond(sim: GymnasiumSim) -> list[str]:
    """What resets draw in the simulator beside positions and velocities, by MuJoCo's names."""
    if sim.scene is None:
        return []
    drawn = []
    for seed in (0, 1):
        sim.begin({"seed": seed_words(seed)})
        drawn.append(sim.scene.beyond())
    return [name for name, value in drawn[0].items() if not np.array_equal(value, drawn[1][name])]
