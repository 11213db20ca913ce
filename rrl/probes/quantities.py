"""What a task's state holds, by name: what probes are to find in features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rrl.envs.base import Part
from rrl.probes.regression import Floats, Ints

CONSTANT = 1e-5
"""A number whose std is below this fraction of its mean, or below a thousandth of it in its own unit, is constant:
float32 rounds as much."""


@dataclass(frozen=True)
class Quantity:
    """A part of the state, without those of its numbers that never change."""

    name: str
    columns: Ints
    """Places in the state vector."""
    robot: bool
    rate: bool


def quantities(parts: Sequence[Part], states: NDArray[np.float32]) -> tuple[list[Quantity], list[str]]:
    """(quantities of states [T, p], names of parts of which nothing changes). Without parts each number is one."""
    width = states.shape[1]
    parts = list(parts) or [Part(f"state {i}", 1) for i in range(width)]
    if sum(part.size for part in parts) != width:
        raise ValueError(f"the parts of the state have {sum(p.size for p in parts)} numbers, the state has {width}")
    values = states.astype(np.float64)
    moves = values.std(0) > CONSTANT * np.maximum(np.abs(values.mean(0)), 1e-3)
    ends = np.cumsum([part.size for part in parts])
    found, constant = [], []
    for part, end in zip(parts, ends, strict=True):
        columns = np.arange(end - part.size, end)
        if moves[columns].any():
            found.append(Quantity(part.name, columns[moves[columns]], part.robot, part.rate))
        else:
            constant.append(part.name)
    return found, constant


def pairs(rows: Floats, places: Ints) -> Floats:
    """Rows at these places beside those before them, [N, 2 d]: two pictures of one episode, if no place begins one."""
    return np.concatenate([rows[places], rows[places - 1]], axis=1)
