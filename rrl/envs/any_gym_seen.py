"""What an environment of another package observes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray


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


def leaves(raw: Any) -> Iterator[Any]:
    """The arrays of an observation, those of dicts by the order of their keys; pictures are left out."""
    if isinstance(raw, Mapping):
        for key in sorted(raw):
            yield from leaves(raw[key])
    elif np.ndim(raw) < 3:
        yield raw


def flat(raw: Any) -> NDArray[np.float64]:
    """All numbers of an observation in one row."""
    return np.concatenate([np.empty(0), *(np.ravel(np.asarray(part, np.float64)) for part in leaves(raw))])
