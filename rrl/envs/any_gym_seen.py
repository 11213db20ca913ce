"""What an environment of another package observes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

NUMBERS = "biuf"
"""Kinds of numpy's types that are numbers or truth values."""


def observer(env: Any) -> Callable[[], Any] | None:
    """What gives an environment's observation without a step, in the way of gymnasium's MuJoCo environments; None if
    there is no such thing."""
    core = env.unwrapped
    look = getattr(core, "_get_obs", None)
    while env is not core:
        if isinstance(env, gymnasium.ObservationWrapper):
            return None
        env = env.env
    try:
        inspect.signature(look).bind()  # type: ignore[arg-type]
    except TypeError:  # there is none, or it wants to be given something
        return None
    return look


def parts_of(observation: Any) -> Iterator[Any]:
    """The arrays of an observation: a dict's by the order of its keys, however deep."""
    if isinstance(observation, Mapping):
        for key in sorted(observation):
            yield from parts_of(observation[key])
    elif isinstance(observation, tuple):
        for part in observation:
            yield from parts_of(part)
    else:
        yield observation


def row(parts: Sequence[Any], dtype: Any) -> NDArray[Any]:
    """All numbers of these arrays."""
    return np.concatenate([np.ravel(np.asarray(part, dtype)) for part in parts] or [np.empty(0, dtype)])


def flat(observation: Any) -> NDArray[np.float64]:
    """All numbers of an observation, but those of pictures."""
    parts = [part for part in parts_of(observation) if np.ndim(part) < 3 and np.asarray(part).dtype.kind in NUMBERS]
    return row(parts, np.float64)
