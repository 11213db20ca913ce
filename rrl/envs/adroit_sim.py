"""One simulated Adroit environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.envs import adroit_scene
from rrl.envs.adroit_tasks import FLAG_NAMES, JOINTS, TASKS
from rrl.envs.base import Arrays, FrameRequest
from rrl.envs.dress import Table
from rrl.envs.joints import JointFaults, JointSensors
from rrl.envs.mujoco import MuJoCoSim, Observation

import mujoco  # isort: skip (after adroit_scene, which chooses MuJoCo's renderer)

FRAME_SKIP = 5
"""Physics steps of 2 ms per control step."""


@dataclass(frozen=True)
class Senses:
    """What the state vector holds, in this order."""

    state: str
    """`joints` of the hand, `task` or `none`."""
    faults: JointFaults
    """For `joints` alone."""
    arm_joints: bool
    last_action: bool
    privileged: bool
    """The task's state, at the end."""


class AdroitSim(MuJoCoSim):
    """Pen, door, hammer or relocate. Actions set the targets of the position servos for `action_repeat` control steps
    of 10 ms each.

    `reward` is `sparse` or `dense`. An episode begins with the hand at rest at its zero pose; initial
    states hold qpos, qvel, and `desired_orien` (quaternion; pen), `door_body_pos`, `board_pos` (hammer), or `obj_pos`
    and `target_pos` (relocate; where the ball's body starts).
    """

    metadata = {**MuJoCoSim.metadata, "render_fps": 100}  # noqa: RUF012 (gymnasium's declaration)

    def __init__(
        self,
        task: str,
        protocol: str,
        reward: str,
        look: str,
        senses: Senses,
        cameras: tuple[str, ...],
        horizon: int,
        action_repeat: int,
        frames: FrameRequest | None,
    ) -> None:
        self._task_name, self._protocol, self._senses, self._horizon = task, protocol, senses, horizon
        model = adroit_scene.model(task, protocol)
        data = mujoco.MjData(model)
        self._task = TASKS[task](model, data)
        sparse = self._task.sparse if protocol == "paper" else self._task.stock_sparse
        self._reward = self._task.dense if reward == "dense" else sparse
        self._sensors = JointSensors(senses.faults, JOINTS, self._joint_ranges(model))
        self._repeat = action_repeat
        self.metadata = {**self.metadata, "render_fps": 100 / action_repeat}
        size = {"joints": len(JOINTS), "task": self._task.state_dim, "none": 0}[senses.state]
        size += senses.arm_joints * self._task.joints.start + senses.last_action * model.nu
        size += senses.privileged * self._task.state_dim
        super().__init__(f"{task}/{protocol}", model, data, size, look, cameras, frames)

    def _begin(self, given: Mapping[str, Any] | None) -> dict[str, NDArray[np.float64]]:
        mujoco.mj_resetData(self._model, self._data)
        qpos, qvel = self.physics()
        if given is None:
            initial = {"qpos": qpos, "qvel": qvel, **self._task.draw(self.np_random, self._protocol)}
        else:
            randomised = {name: (size,) for name, size in self._task.quantities.items()}
            initial = self._checked(given, {"qpos": qpos.shape, "qvel": qvel.shape, **randomised})
        self._task.place(initial)
        self._data.qpos[:] = initial["qpos"]
        self._data.qvel[:] = initial["qvel"]
        mujoco.mj_forward(self._model, self._data)
        self._sensors.begin()
        return initial

    def _advance(self, ctrl: NDArray[np.float64]) -> tuple[float, bool, bool, dict[str, bool]]:
        self._data.ctrl[:] = ctrl
        self._steps += 1
        reward, terminated = 0.0, False
        for _ in range(self._repeat):
            mujoco.mj_step(self._model, self._data, nstep=FRAME_SKIP)
            reward += self._reward()
            terminated = self._protocol == "paper" and self._task.failed()
            if terminated:
                break
        flags = dict(zip(FLAG_NAMES, self._task.flags(), strict=True))
        return reward, terminated, self._steps >= self._horizon, flags

    def _own_state(self) -> Observation:
        read = {"readings": self._sensors.past} if self._sensors.remember else {}
        return super()._own_state() | read

    def _resume(self, state: Arrays) -> None:
        super()._resume(state)
        self._task.place(self._initial)
        if self._sensors.remember:
            self._sensors.past = np.array(state["readings"], np.float64)

    def _joint_ranges(self, model: Any) -> NDArray[np.float64]:
        """[24]: widths of the hand joints' ranges in rad, in the order of the observation."""
        address = model.jnt_qposadr
        hand = (address >= self._task.joints.start) & (address < self._task.joints.stop)
        low, high = model.jnt_range[hand].T
        return high - low  # type: ignore[no-any-return]

    def _state(self) -> NDArray[np.float32]:
        """The state vector; each call reads the joints anew."""
        state: list[NDArray[Any]] = []
        if self._senses.state == "joints":
            state.append(self._sensors.read(self._task.qpos[self._task.joints], self.np_random))
        elif self._senses.state == "task":
            state.append(self._task.state())
        if self._senses.arm_joints:
            state.append(self._task.qpos[: self._task.joints.start])
        if self._senses.last_action:
            state.append((self._data.ctrl - self._ctrl_middle) / self._ctrl_half)
        if self._senses.privileged:
            state.append(self._task.state())
        return np.concatenate([*state, np.empty(0)]).astype(np.float32)

    def _table(self) -> Table:
        """Where RRL's distractors stand; the paper's protocol hides relocate's table."""
        return Table((0.0, 0.0), half=0.3, top=0.0)

    def _spectators_camera(self) -> Any:
        return adroit_scene.spectator(self._task_name)
