"""A task in a file of its own, as a plugin brings it: a point on a line, without a success test or a library."""

from contextlib import contextmanager
from typing import ClassVar

import gymnasium
import numpy as np

from rrl import registry
from rrl.envs.base import EnvFactory


class Point(EnvFactory):
    """The nearer to 0, the more reward."""

    class Config(EnvFactory.Config):
        """Settings."""

        gain: float
        """How far an action moves it: a setting without a default."""

    packages: ClassVar[tuple[str, ...]] = ()
    name = "toy_point"
    horizon = 5
    cameras = ()

    def make_one(self, frames):
        return PointSim(self.config.gain)


class PlainPoint(Point):
    """With a task that commands find by its name."""

    class Config(Point.Config):
        """Settings."""

        gain: float = 0.5
        """As above."""

    name = "toy_plain_point"

    @classmethod
    def tasks(cls):
        return {"toy_plain_point": {}}


@contextmanager
def registered():
    """The two are known to the registry."""
    registry.names()
    for cls in (Point, PlainPoint):
        registry.register(cls)
    try:
        yield
    finally:
        for cls in (Point, PlainPoint):
            del registry._components[cls.__name__]


class PointSim:
    """Position and velocity; an action adds to the velocity."""

    observation_space = gymnasium.spaces.Dict({"state": gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)})
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, gain):
        self.gain = gain

    def reset(self, *, seed=None, options=None):
        initial = (options or {}).get("initial")
        self.qpos = np.random.default_rng(seed).uniform(-1, 1, 1) if initial is None else initial["qpos"].copy()
        self.qvel = np.zeros(1) if initial is None else initial["qvel"].copy()
        self.start, self.steps = {"qpos": self.qpos.copy(), "qvel": self.qvel.copy()}, 0
        return self.observe(), {}

    def observe(self):
        return {"state": np.concatenate([self.qpos, self.qvel]).astype(np.float32)}

    def step(self, action):
        self.steps += 1
        self.qvel = self.qvel + self.gain * np.clip(action, -1, 1).astype(np.float64)
        self.qpos = self.qpos + self.qvel
        return self.observe(), float(-abs(self.qpos[0])), False, self.steps == Point.horizon, {}

    def initial(self):
        return self.start

    def physics(self):
        return self.qpos.copy(), self.qvel.copy()

    def show(self, qpos, qvel):
        self.qpos, self.qvel = qpos.copy(), qvel.copy()
        return self.observe()

    def close(self):
        pass
