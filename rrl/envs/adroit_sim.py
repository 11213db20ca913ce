"""One simulated Adroit environment, as a `gymnasium.Env`."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rrl.envs import adroit_scene, render
from rrl.envs.adroit_tasks import FLAG_NAMES, TASKS
from rrl.envs.base import Arrays, FrameRequest
from rrl.registry import UserError

import mujoco  # isort: skip (after adroit_scene, which chooses MuJoCo's renderer)

FRAME_SKIP = 5
"""Physics steps of 2 ms per environment step."""
INTEGRATION = int(mujoco.mjtState.mjSTATE_INTEGRATION)

Observation = dict[str, NDArray[Any]]


class AdroitSim(gymnasium.Env[Any, NDArray[np.float32]]):
    """Pen, door, hammer or relocate; `rrl.envs.base.SimEnv` says what each method means.

    `reward` is `sparse` or `dense`, `state` is `joints`, `task` or `none`; `joint_noise` is a fraction of
    each joint's range, for `joints` alone; without `frames`, nothing is rendered. Actions float32 [m] in
    [-1, 1] (clipped) set the targets of the position servos over their whole range; one step lasts 10 ms.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 100}  # noqa: RUF012 (gymnasium's declaration)
    render_mode = "rgb_array"

    def __init__(
        self,
        task: str,
        protocol: str,
        reward: str,
        look: str,
        state: str,
        joint_noise: float,
        cameras: tuple[str, ...],
        horizon: int,
        frames: FrameRequest | None,
    ) -> None:
        self._name = f"{task}/{protocol}"
        self._protocol, self._state_kind, self._horizon = protocol, state, horizon
        self._model = adroit_scene.model(task, protocol)
        self._data = mujoco.MjData(self._model)
        self._task = TASKS[task](self._model, self._data)
        if reward == "dense":
            self._reward = self._task.dense
        else:
            self._reward = self._task.sparse if protocol == "paper" else self._task.stock_sparse
        self._joint_std = joint_noise * self._joint_ranges()
        low, high = self._model.actuator_ctrlrange.T
        self._ctrl_middle, self._ctrl_half = (low + high) / 2, (high - low) / 2

        self._view: render.View | None = None
        self._frame_shape: tuple[int, int, int] | None = None
        if frames is not None:
            render.narrow(self._model, frames)
            self._frame_shape = (frames.size, frames.size, 3 * len(cameras))
            self._view = render.View(self._model, self._name, cameras, frames.size, render.LOOKS[look])
        self._spectator: render.View | None = None
        self._frame_buffer: NDArray[np.uint8] | None = None

        size = {"joints": len(self._joint_std), "task": self._task.state_dim, "none": 0}[state]
        observation: dict[str, spaces.Space[Any]] = {"state": spaces.Box(-np.inf, np.inf, (size,), np.float32)}
        if self._frame_shape is not None:
            observation["frames"] = spaces.Box(0, 255, self._frame_shape, np.uint8)
        self.observation_space = spaces.Dict(observation)
        self.action_space = spaces.Box(-1.0, 1.0, (self._model.nu,), np.float32)

        self._steps = 0
        self._initial: dict[str, NDArray[np.float64]] = {}
        self._observation: Observation = {}

    # Episodes

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode: full simulator reset, then the task's randomisation (or `options["initial"]`).

        The hand starts at rest at its zero pose. `options["initial"]` takes the arrays of `initial()`: qpos,
        qvel, and `desired_orien` (quaternion; pen), `door_body_pos`, `board_pos` (hammer), or `obj_pos` and
        `target_pos` (relocate; where the ball's body starts); anything else is a UserError.
        """
        super().reset(seed=seed)
        if unknown := sorted(set(options or {}) - {"initial"}):
            raise UserError(f"reset takes the option 'initial'; got {', '.join(map(repr, unknown))}")
        given = (options or {}).get("initial")
        mujoco.mj_resetData(self._model, self._data)
        if given is None:
            drawn = self._task.draw(self.np_random, self._protocol)
            qpos, qvel = self.physics()
            self._initial = {"qpos": qpos, "qvel": qvel, **drawn}
        else:
            self._initial = self._checked(given)
        self._start()
        return self._observe(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One step of 10 ms. ValueError if the action has the wrong shape or is not finite."""
        if not self._initial:
            raise RuntimeError("call reset before step")
        if action.shape != self._ctrl_half.shape or not np.isfinite(action).all():
            raise ValueError(f"an action is {self._model.nu} finite numbers in [-1, 1]; got {action!r}")
        begun = perf_counter()
        self._data.ctrl[:] = self._ctrl_middle + np.minimum(np.maximum(action, -1.0), 1.0) * self._ctrl_half
        mujoco.mj_step(self._model, self._data, nstep=FRAME_SKIP)
        self._steps += 1
        reward = self._reward()
        flags = self._task.flags()
        terminated = self._protocol == "paper" and self._task.failed()
        state = self._state()
        simulated = perf_counter()
        observation = self._observe(state)
        info: dict[str, Any] = dict(zip(FLAG_NAMES, flags, strict=True))
        info["seconds"] = (simulated - begun, perf_counter() - simulated)
        return observation, reward, terminated, self._steps >= self._horizon, info

    def initial(self) -> dict[str, NDArray[np.float64]]:
        """The episode's initial qpos [nq], qvel [nv] and what the task randomised, as `reset` takes it."""
        return {name: value.copy() for name, value in self._initial.items()}

    def _checked(self, given: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
        sizes = {"qpos": self._model.nq, "qvel": self._model.nv, **self._task.quantities}
        if set(given) != set(sizes):
            got = ", ".join(given) or "none"
            raise UserError(f"an initial state of {self._name} has the arrays {', '.join(sizes)}; got {got}")
        values = {}
        for name, size in sizes.items():
            value = np.array(given[name], np.float64)
            if value.shape != (size,) or not np.isfinite(value).all():
                raise UserError(f"{name} of an initial state must be {size} finite numbers; got {value!r}")
            values[name] = value
        return values

    def _start(self) -> None:
        self._steps = 0
        self._task.place(self._initial)
        self._data.qpos[:] = self._initial["qpos"]
        self._data.qvel[:] = self._initial["qvel"]
        mujoco.mj_forward(self._model, self._data)

    # Observations

    def _joint_ranges(self) -> NDArray[np.float64]:
        """[24]: widths of the hand joints' ranges in rad, in the order of the observation."""
        address = self._model.jnt_qposadr
        hand = (address >= self._task.joints.start) & (address < self._task.joints.stop)
        low, high = self._model.jnt_range[hand].T
        return high - low  # type: ignore[no-any-return]

    def _state(self) -> NDArray[np.float32]:
        """The state vector; each call draws new joint noise."""
        if self._state_kind == "joints":
            angles = self._task.qpos[self._task.joints]
            if self._joint_std.any():
                angles = angles + self._joint_std * self.np_random.standard_normal(len(angles))
            return angles.astype(np.float32)
        if self._state_kind == "task":
            return self._task.state().astype(np.float32)
        return np.empty(0, np.float32)

    def _observe(self, state: NDArray[np.float32] | None = None) -> Observation:
        self._observation = {"state": self._state() if state is None else state}
        if self._view is not None:
            frames = self._frames()
            self._view.draw(self._data, frames)
            self._observation["frames"] = frames
        return self._observation

    def _frames(self) -> NDArray[np.uint8]:
        """Where the next frames go: the caller's buffer, else a fresh array."""
        if self._frame_buffer is not None:
            return self._frame_buffer
        assert self._frame_shape is not None
        return np.empty(self._frame_shape, np.uint8)

    @property
    def frame_buffer(self) -> NDArray[np.uint8] | None:
        """The caller's array [H, W, 3 * cameras] that frames are drawn into; None: a fresh one each time."""
        return self._frame_buffer

    @frame_buffer.setter
    def frame_buffer(self, buffer: NDArray[np.uint8] | None) -> None:
        if buffer is not None and (buffer.dtype != np.uint8 or buffer.shape != self._frame_shape):
            raise ValueError(f"the frame buffer must be uint8 {self._frame_shape}; got {buffer.dtype} {buffer.shape}")
        self._frame_buffer = buffer

    def render(self) -> NDArray[np.uint8]:
        """A picture for people, uint8 [480, 480, 3], from a spectator's camera at default quality."""
        if self._spectator is None:
            camera = adroit_scene.spectator(self._name.split("/")[0])
            self._spectator = render.View(self._model, self._name, [camera], 480, render.LOOKS["default"])
        picture = np.empty((480, 480, 3), np.uint8)
        self._spectator.draw(self._data, picture)
        return picture

    # Simulator state

    def physics(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(qpos [nq], qvel [nv]) now, as copies."""
        return self._data.qpos.copy(), self._data.qvel.copy()

    def show(self, qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> Observation:
        """The observation at the given joint positions and velocities, with up-to-date site positions (after
        `step` they lag by 2 ms). The simulator stays there; what the task randomised is kept."""
        self._data.qpos[:] = qpos
        self._data.qvel[:] = qvel
        mujoco.mj_forward(self._model, self._data)
        return self._observe()

    def get_state(self) -> Observation:
        """Everything that decides the future of this episode, as flat arrays, and the last observation.

        The last observation is data because recomputing it would move the lagging site positions.
        """
        integration = np.empty(mujoco.mj_stateSize(self._model, INTEGRATION))
        mujoco.mj_getState(self._model, self._data, integration, INTEGRATION)
        return {
            "integration": integration,
            "steps": np.array(self._steps),
            "rng": _pack(self.np_random),
            **{f"initial_{name}": value.copy() for name, value in self._initial.items()},
            **{f"last_{name}": value.copy() for name, value in self._observation.items()},
        }

    def set_state(self, state: Arrays) -> Observation:
        """Continue bit for bit where `get_state` was taken, in this or another process; returns the last
        observation as it was. Needs an environment made with the same settings: KeyError otherwise."""
        sizes = ("qpos", "qvel", *self._task.quantities)
        self._initial = {name: state[f"initial_{name}"].copy() for name in sizes}
        mujoco.mj_resetData(self._model, self._data)
        self._start()
        integration = np.asarray(state["integration"], np.float64)
        mujoco.mj_setState(self._model, self._data, integration, INTEGRATION)
        mujoco.mj_forward(self._model, self._data)  # for `render`; it spoils the warm start,
        mujoco.mj_setState(self._model, self._data, integration, INTEGRATION)  # hence once more
        self._steps = int(state["steps"])
        self.np_random = _unpack(state["rng"])
        self._observation = {"state": state["last_state"].copy()}
        if self._view is not None:
            frames = self._frames()
            frames[:] = state["last_frames"]
            self._observation["frames"] = frames
        return self._observation

    def close(self) -> None:
        """Free the simulator's pictures; the GL side goes with the last environment that shares it."""
        self._view = self._spectator = None


def _pack(rng: np.random.Generator) -> NDArray[np.uint64]:
    """PCG64's state as 6 words: state and increment (128 bits each, low word first), spare half word."""
    raw = rng.bit_generator.state
    words = [raw["state"][part] >> shift & (2**64 - 1) for part in ("state", "inc") for shift in (0, 64)]
    return np.array([*words, raw["has_uint32"], raw["uinteger"]], np.uint64)


def _unpack(words: NDArray[np.uint64]) -> np.random.Generator:
    w = [int(word) for word in words]
    bits = np.random.PCG64(0)
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": w[0] | w[1] << 64, "inc": w[2] | w[3] << 64},
        "has_uint32": w[4],
        "uinteger": w[5],
    }
    return np.random.Generator(bits)
