"""Environments as a reader may have registered them: small, and each odd in one way."""

import random

import gymnasium
import numpy as np
from gymnasium import spaces


class Toy(gymnasium.Env):
    """A point on a line is pushed to the middle; its observation is a dict with a picture."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    render_mode = "rgb_array"

    def __init__(
        self,
        render_mode=None,
        *,
        wide=2.0,
        actions="box",
        broken=0,
        start="seed",
        noise=0.0,
        solved="flag",
        name=False,
    ):
        self.broken, self.start, self.noise, self.solved = broken, start, noise, solved
        self.action_space = {
            "box": spaces.Box(-wide, 3 * wide, (1,), np.float32),
            "discrete": spaces.Discrete(3),
            "unbounded": spaces.Box(-np.inf, np.inf, (1,), np.float32),
        }[actions]
        picture = spaces.Box(0, 255, (20, 30, 3), np.uint8)
        self.observation_space = spaces.Dict(
            point=spaces.Box(-9, 9, (2,)), goal=spaces.Box(-9, 9, (1,)), picture=picture
        )
        self.named = {"name": "toy"} if name else {}
        if name:
            self.observation_space["name"] = spaces.Text(5)

    def observed(self):
        picture = np.zeros((20, 30, 3), np.uint8)
        picture[:, : int(np.clip(15 + 5 * self.x, 0, 30))] = 200
        return {"point": np.array([self.x, self.v]), "goal": np.zeros(1), "picture": picture, **self.named}

    def reset(self, *, seed=None, options=None):
        if self.start == "early":  # draws before it is seeded
            drawn = self.np_random.uniform(-1, 1)
        super().reset(seed=seed)
        if self.start == "global":
            drawn = np.random.uniform(-1, 1) + random.random()  # noqa: NPY002
        elif self.start == "seed":
            drawn = self.np_random.uniform(-1, 1)
        self.x, self.v, self.t = drawn, 0.0, 0
        return self.observed(), {}

    def step(self, action):
        if self.broken and self.t == self.broken:
            raise ValueError("the motor is on fire")
        self.last, self.t = float(action[0]), self.t + 1
        self.v = 0.5 * self.v + 0.05 * self.last + self.noise * np.random.default_rng().normal()
        self.x += self.v
        return self.observed(), -abs(self.x), False, False, {"solved": self.told(abs(self.x) < 0.2)}

    def told(self, near):
        return {"flag": np.bool_(near), "names": ["x", "y"][: 1 + near], "two": np.array([near, near])}[self.solved]

    def render(self):
        return Toy.observed(self)["picture"]


class Nested(Toy):
    """The same with dicts in a dict, as goals of several tasks are told."""

    def __init__(self, render_mode=None):
        super().__init__(render_mode)
        own = self.observation_space
        self.observation_space = spaces.Dict(
            b=own["goal"], a=spaces.Dict(point=own["point"], picture=own["picture"], goal=own["goal"])
        )

    def observed(self):
        own = super().observed()
        return {"b": own["goal"] + 1, "a": own}


gymnasium.register("helpers/Nested-v0", entry_point=Nested, max_episode_steps=12)
gymnasium.register("helpers/Toy-v0", entry_point=f"{__name__}:Toy", max_episode_steps=12)
gymnasium.register("helpers/Endless-v0", entry_point=Toy)


class Odd(Toy):
    """A toy that breaks gymnasium's form in the way that `how` names, from its second step on."""

    def __init__(self, render_mode=None, *, how="", **settings):
        super().__init__(render_mode, **settings)
        self.how = how
        if how == "whole numbers":
            self.action_space = spaces.Box(-3, 3, (1,), np.int64)
        if how == "only pictures":
            self.observation_space = self.observation_space["picture"]

    def observed(self):
        whole = super().observed()
        if self.how == "longer" and self.t:
            whole["goal"] = np.zeros(2)
        return whole["picture"] if self.how == "only pictures" else whole

    def step(self, action):
        if self.how == "exit":
            raise SystemExit(5)
        observation, reward, ended, cut, info = super().step(action)
        if self.how == "four":
            return observation, reward, ended, info
        return observation, reward, ended, cut, None if self.how == "no info" else info

    def render(self):
        picture = super().render()
        floats, none = picture / 255, np.zeros((0, 0, 3), np.uint8)
        odd = {"floats": floats, "four channels": np.dstack([picture, picture[..., :1]]), "empty": none}
        return odd.get(self.how, picture)


gymnasium.register("helpers/Odd-v0", entry_point=Odd, max_episode_steps=12)
