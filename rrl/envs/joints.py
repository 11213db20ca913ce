"""What sensors tell of joint angles: noise, joints whose sensor is stuck or dead, readings that come late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Noise = Literal["gaussian", "multiplicative", "uniform"]
Angles = NDArray[np.float64]


@dataclass(frozen=True)
class JointFaults:
    """What is wrong with the sensors of some joints."""

    noise: float = 0.0
    """Its size s; 0: none is drawn."""
    noise_kind: Noise = "gaussian"
    """`gaussian`: of std s times the joint's range; `multiplicative`: the angle times 1 + s times a standard normal
    number; `uniform`: within s times the joint's range to either side."""
    stuck: tuple[str, ...] = ()
    """Joints whose reading stays what it was first in the episode."""
    dead: tuple[str, ...] = ()
    """Joints whose reading is 0."""
    delay: int = 0
    """Readings are those of so many observations ago, or the episode's first."""


class JointSensors:
    """Reads the angles of n joints, once for each observation."""

    def __init__(self, faults: JointFaults, names: Sequence[str], ranges: Angles) -> None:
        """`ranges` [n]: widths in rad."""
        self._faults, self._ranges = faults, ranges
        self._stuck, self._dead = (np.isin(names, joints) for joints in (faults.stuck, faults.dead))
        self.past = np.zeros((0, len(names)))
        """[delay + 1, n]: what was read last, oldest first; no rows where an episode begins. Never changed in place."""

    @property
    def remember(self) -> bool:
        """Does a reading depend on earlier ones?"""
        return bool(self._faults.stuck) or self._faults.delay > 0

    def begin(self) -> None:
        """The next reading is an episode's first."""
        self.past = self.past[:0]

    def read(self, angles: Angles, rng: np.random.Generator) -> Angles:
        """[n] in rad; each call is another observation, with noise of its own."""
        now = self._noisy(angles, rng)
        now[self._dead] = 0.0
        if not self.remember:
            return now
        if len(self.past):
            now[self._stuck] = self.past[-1, self._stuck]
            self.past = np.concatenate([self.past[1:], now[None]])
        else:
            self.past = np.tile(now, (self._faults.delay + 1, 1))
        late: Angles = self.past[0].copy()
        return late

    def _noisy(self, angles: Angles, rng: np.random.Generator) -> Angles:
        size = self._faults.noise
        if size == 0:
            return angles.copy()
        if self._faults.noise_kind == "uniform":
            return angles + size * self._ranges * rng.uniform(-1, 1, len(angles))
        widths = self._ranges if self._faults.noise_kind == "gaussian" else angles
        return angles + size * widths * rng.standard_normal(len(angles))
