"""A new environment as a plugin would write it, without MuJoCo and with a picture of its own; tests register it."""

import gymnasium
import numpy as np

from rrl.envs.base import EnvFactory
from rrl.score import success


class PointMassSim(gymnasium.Env):
    """Push a point to the middle of a square that reaches from -1 to 1."""

    def __init__(self, radius, frames):
        self.radius, self.frames = radius, frames
        self.observation_space = gymnasium.spaces.Dict(state=gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32))
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def observe(self):
        seen = {"state": np.concatenate([self.at, self.speed]).astype(np.float32)}
        if self.frames is not None:
            half = self.frames.size / self.frames.crop_from  # the centre crop that the encoder asks for
            axis = np.linspace(-half, half, self.frames.size)
            near = np.hypot(axis - self.at[0], axis[:, None] + self.at[1]) < self.radius
            seen["frames"] = np.where(near[..., None], (255, 0, 0), (40, 40, 40)).astype(np.uint8)
        return seen

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.speed, self.steps = self.np_random.uniform(-0.5, 0.5, 2), np.zeros(2), 0
        return self.observe(), {}

    def step(self, action):
        self.speed = 0.8 * self.speed + 0.05 * np.clip(action, -1, 1)
        self.at, self.steps = self.at + self.speed, self.steps + 1
        away = float(np.hypot(*self.at))
        return self.observe(), -away, False, self.steps >= PointMass.horizon, {"success": away < self.radius}


class PointMass(EnvFactory):
    """Push a point to the middle."""

    class Config(EnvFactory.Config):
        """How near is near enough."""

        radius: float = 0.1
        """Half the width of the goal, which is as large as the point looks."""

    cameras, horizon, score = ("above",), 30, success("success", 5)

    def make_one(self, frames):
        return PointMassSim(self.config.radius, frames)
