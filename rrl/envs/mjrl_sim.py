"""One simulated MJRL environment: observations, rewards and resets as MJRL's reacher and peg insertion have them."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.envs.base import Arrays, FrameRequest
from rrl.envs.dress import Table
from rrl.envs.mujoco import MuJoCoSim

import mujoco  # isort: skip (after rrl.envs.mujoco, which chooses MuJoCo's renderer)

FRAME_SKIP = 4
"""Physics steps of 10 ms per environment step."""
MODELS = Path(__file__).with_name("models")
SLOT = ("target", "near", "far")
"""Bodies of the peg's model that a reset moves along y, together."""


@lru_cache
def _compiled(task: str) -> Any:
    return mujoco.MjModel.from_xml_path(str(MODELS / f"{task}.xml"))


class MJRLSim(MuJoCoSim):
    """Reacher or peg insertion. Actions [7] are torques, normalised; the arm starts stretched out and at rest.

    `radius` (m) is how near the tip must end to succeed; `state` is `joints`, `task` or `none`. Initial states hold
    qpos, qvel and `target_pos` [3]. As in the original, positions lag the joint angles by one substep after a step.
    """

    metadata = {**MuJoCoSim.metadata, "render_fps": 25}  # noqa: RUF012 (gymnasium's declaration)

    def __init__(
        self,
        task: str,
        radius: float,
        look: str,
        state: str,
        cameras: tuple[str, ...],
        horizon: int,
        frames: FrameRequest | None,
    ) -> None:
        model = copy.copy(_compiled(task))
        data = mujoco.MjData(model)
        self._task, self._radius, self._state_kind, self._horizon = task, radius, state, horizon
        self._target: NDArray[np.float64] = data.site("target").xpos
        self._tip: NDArray[np.float64] = data.site("hand" if task == "reacher" else "peg_bottom").xpos
        self._slot_y = {name: float(model.body(name).pos[1]) for name in SLOT if task == "peg_insertion"}
        size = {"joints": model.nq, "task": model.nq + model.nv + 6, "none": 0}[state]
        super().__init__(f"mjrl/{task}", model, data, size, look, cameras, frames)

    def _begin(self, given: Mapping[str, Any] | None) -> dict[str, NDArray[np.float64]]:
        mujoco.mj_resetData(self._model, self._data)
        qpos, qvel = self.physics()
        if given is None:
            initial = {"qpos": qpos, "qvel": qvel, "target_pos": self._drawn_target()}
        else:
            initial = self._checked(given, {"qpos": qpos.shape, "qvel": qvel.shape, "target_pos": (3,)})
        self._place(initial["target_pos"])
        self._data.qpos[:] = initial["qpos"]
        self._data.qvel[:] = initial["qvel"]
        mujoco.mj_forward(self._model, self._data)
        return initial

    def _drawn_target(self) -> NDArray[np.float64]:
        if self._task == "reacher":
            return self.np_random.uniform([-0.3, -0.2, -0.25], [0.3, 0.2, 0.25])
        x, _, z = self._model.body("target").pos
        return np.array([x, self.np_random.uniform(0.1, 0.5), z])

    def _place(self, target: NDArray[np.float64]) -> None:
        """The target where it is to be; with the peg's go the two walls beside it."""
        if self._task == "reacher":
            self._model.site("target").pos[:] = target
            return
        self._model.body("target").pos[:] = target
        for name in SLOT[1:]:
            self._model.body(name).pos[1] = self._slot_y[name] + target[1] - self._slot_y["target"]

    def _advance(self, ctrl: NDArray[np.float64]) -> tuple[float, bool, bool, dict[str, bool]]:
        self._data.ctrl[:] = ctrl
        mujoco.mj_step(self._model, self._data, nstep=FRAME_SKIP)
        self._steps += 1
        distance = math.dist(self._tip, self._target)
        near, ended = distance < self._radius, self._steps >= self._horizon
        reward = -float(np.abs(self._tip - self._target).sum()) - 5.0 * distance
        if self._task == "peg_insertion":
            reward += 5.0 * near
        return reward, False, ended, {"success": near and ended}

    def _state(self) -> NDArray[np.float32]:
        qpos, qvel = self._data.qpos, self._data.qvel
        if self._state_kind == "joints":
            return np.array(qpos, np.float32)
        if self._state_kind == "none":
            return np.empty(0, np.float32)
        if self._task == "reacher":  # as in MJRL: what the joints move in a step
            qvel = qvel * (FRAME_SKIP * self._model.opt.timestep)
        return np.concatenate((qpos, qvel, self._tip, self._target)).astype(np.float32)

    def _resume(self, state: Arrays) -> None:
        super()._resume(state)
        self._place(self._initial["target_pos"])

    def _objects(self) -> tuple[str, ...] | None:
        return ("peg", *SLOT) if self._task == "peg_insertion" else None

    def _table(self) -> Table:
        """What the camera sees of the table, or the walls about the slot."""
        if self._task == "reacher":
            return Table((0.3, 0.0), half=0.3)
        return Table((0.0, 0.3), half=0.3, top=-0.4)

    def _spectators_camera(self) -> Any:
        return "front"
