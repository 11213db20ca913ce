"""What an environment has beside its spaces, in words: for those who choose settings from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONGEST = 60
"""Characters of a value that is shown."""
SHOWN = 3
"""Groups of geoms and sites that MuJoCo draws unless it is told otherwise: the first ones."""


def of_model(model: Any, data: Any, state: NDArray[np.float32]) -> dict[str, list[str]]:
    """Names in a MuJoCo model. A joint's is followed by the places of its position in the state vector: where the same
    number stands now, if it stands nowhere else."""
    return {
        "joints, with their places in the state vector": [_joint(data.joint(i), state) for i in range(model.njnt)],
        "cameras in the model": [model.camera(i).name or f"number {i}" for i in range(model.ncam)],
        "bodies, geoms and sites that can be seen": seen(model),
    }


def seen(model: Any) -> list[str]:
    """Names of the bodies, geoms and sites of which something is drawn: of a group that MuJoCo shows, not
    transparent."""
    bodies: dict[str, None] = {}
    parts: dict[str, None] = {}
    for named, rgba, group, body in (
        (model.geom, model.geom_rgba, model.geom_group, model.geom_bodyid),
        (model.site, model.site_rgba, model.site_group, model.site_bodyid),
    ):
        for number in np.flatnonzero((rgba[:, 3] > 0) & (group < SHOWN)).tolist():
            bodies[model.body(int(body[number])).name] = None
            parts[named(number).name] = None
    return [name for name in bodies | parts if name]


def _joint(joint: Any, state: NDArray[np.float32]) -> str:
    places = [np.flatnonzero(state == np.float32(q)) for q in joint.qpos]
    return " ".join([joint.name or f"number {joint.id}", *(str(at[0]) for at in places if len(at) == 1)])


def of_observation(observation: Any, wanted: str) -> tuple[list[str], NDArray[np.float32]]:
    """The arrays of gymnasium's observation, with their places in the state vector, and that vector: of all (but
    pictures), none, or the one under the key `wanted`."""
    texts, state = [], np.empty(0, np.float32)
    for key, value in _arrays(observation):
        inside = np.ndim(value) < 3 if wanted == "all" else key.split("/")[0] == wanted
        added = np.ravel(np.asarray(value, np.float32)) if inside else state[:0]
        shape = numbers(np.size(value)) if np.ndim(value) < 2 else " x ".join(map(str, np.shape(value)))
        where = f"state {len(state)} to {len(state) + len(added) - 1}" if len(added) else "not in the state"
        texts.append(f"{key} {shape} ({where})".strip())
        state = np.concatenate([state, added])
    return texts, state


def _arrays(observation: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """A dict's arrays in the order of its keys, a tuple's by number; `outer/inner` of one within another."""
    if not isinstance(observation, Mapping | tuple):
        yield key, observation
        return
    parts = sorted(observation.items()) if isinstance(observation, Mapping) else enumerate(observation)
    for name, part in parts:
        yield from _arrays(part, f"{key}/{name}".strip("/"))


def of_info(info: Mapping[str, Any]) -> list[str]:
    """The keys of an `info` with their values; of arrays the shape."""
    return [f"{key} {_value(value)}" for key, value in info.items()]


def _value(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.ndim:
        return f"[{' x '.join(map(str, value.shape))}]"
    plain = value.item() if isinstance(value, (np.generic, np.ndarray)) else value
    return shorten(f"{plain:.4g}" if isinstance(plain, float) else str(plain), LONGEST, placeholder=" ...")


def numbers(count: int) -> str:
    """`1 number`, `7 numbers`."""
    return f"{count} number{'' if count == 1 else 's'}"


def of_range(low: NDArray[np.float64], high: NDArray[np.float64]) -> list[str]:
    """The ends of an action's numbers; once, if all are the same."""
    ends = [f"{a:.4g} to {b:.4g}" for a, b in zip(low, high, strict=True)]
    return [f"{ends[0]} each"] if len(set(ends)) == 1 and len(ends) > 1 else ends
