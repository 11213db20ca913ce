"""MyEnvironment: a planar arm with two joints reaches for a red ball, to begin from."""

from typing import Literal

import numpy as np

from rrl.envs.base import Look, MuJoCoFactory
from rrl.envs.mujoco import MuJoCoSim
from rrl.registry import Positive, register
from rrl.score import success

import mujoco  # isort: skip (after rrl.envs.mujoco, which chooses how it draws)

XML = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <light pos="0 0 2"/>
    <camera name="top" pos="0 0 1"/>
    <geom type="plane" size="0.5 0.5 0.1" rgba="0.4 0.4 0.4 1"/>
    <body name="ball"><geom type="sphere" size="0.02" rgba="1 0 0 1" contype="0" conaffinity="0"/></body>
    <body pos="0 0 0.03">
      <joint name="shoulder" axis="0 0 1" damping="0.1"/>
      <geom type="capsule" fromto="0 0 0 0.15 0 0" size="0.01" rgba="0 0 1 1"/>
      <body pos="0.15 0 0">
        <joint name="elbow" axis="0 0 1" damping="0.1"/>
        <geom type="capsule" fromto="0 0 0 0.15 0 0" size="0.01" rgba="0 0.5 1 1"/>
        <site name="hand" pos="0.15 0 0"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor joint="shoulder" ctrlrange="-0.2 0.2" ctrllimited="true"/>
    <motor joint="elbow" ctrlrange="-0.2 0.2" ctrllimited="true"/>
  </actuator>
</mujoco>
"""


@register
class MyEnvironment(MuJoCoFactory):
    """A planar arm reaches for a red ball."""

    class Config(MuJoCoFactory.Config):
        """What is observed, and how near is near enough."""

        state: Literal["joints", "task", "none"] = "joints"
        """What the state vector holds: the joint angles (rad), these and the ball's position (m), or nothing."""
        look: Look = "fast"
        """Render quality."""
        radius: Positive = 0.05
        """Distance of hand and ball (m) within which the ball is reached."""

    cameras = ("top",)
    horizon = 50
    score = success("reached", 0)  # the flag must be up in more than 0 steps of an episode
    oracle = "MyEnvironment.state = 'task'"  # what an error proposes where a policy would be blind

    def make_one(self, frames):
        """One simulator; frames None: it renders nothing."""
        return ArmSim(self.config, self.cameras, self.horizon, frames)


class ArmSim(MuJoCoSim):
    """The simulator."""

    def __init__(self, config, cameras, horizon, frames):
        self._config, self._horizon = config, horizon
        model = mujoco.MjModel.from_xml_string(XML)
        size = {"joints": 2, "task": 5, "none": 0}[config.state]
        super().__init__("my_environment", model, mujoco.MjData(model), size, config.look, cameras, frames)

    def _begin(self, given):
        """Everything that is random comes from `self.np_random`, and is returned. `given` is what was returned
        for an earlier episode, which begins again: a demonstration."""
        rng = self.np_random
        angle, way = rng.uniform(-np.pi, np.pi), rng.uniform(0.1, 0.25)
        ball = np.array([way * np.cos(angle), way * np.sin(angle), 0.03])
        start = {"qpos": rng.uniform(-1, 1, 2), "qvel": np.zeros(2), "ball": ball}
        if given is not None:
            start = self._checked(given, {name: value.shape for name, value in start.items()})
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:], self._data.qvel[:] = start["qpos"], start["qvel"]
        self._model.body("ball").pos[:] = start["ball"]
        mujoco.mj_forward(self._model, self._data)
        return start

    def _advance(self, ctrl):
        """Four steps of the simulator; reward, terminated, truncated, and the flags that the score counts."""
        self._data.ctrl[:] = ctrl
        mujoco.mj_step(self._model, self._data, 4)
        self._steps += 1
        away = float(np.linalg.norm(self._data.site("hand").xpos - self._model.body("ball").pos))
        return -away, False, self._steps >= self._horizon, {"reached": away < self._config.radius}

    def _state(self):
        joints, ball = self._data.qpos, self._model.body("ball").pos
        parts = {"joints": [joints], "task": [joints, ball], "none": [[]]}[self._config.state]
        return np.concatenate(parts).astype(np.float32)

    def _resume(self, state):
        """What an episode changed in the model is not part of MuJoCo's state: put it back."""
        super()._resume(state)
        self._model.body("ball").pos[:] = self._initial["ball"]
