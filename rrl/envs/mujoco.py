"""One simulated MuJoCo environment with pictures: what all simulators of this project have in common."""

from __future__ import annotations

import abc
import sys
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rrl.envs import about, gl, render
from rrl.envs.base import Arrays, FrameRequest, check_state
from rrl.envs.dress import Dress, Table
from rrl.envs.scene import Scene
from rrl.registry import UserError

import mujoco  # isort: skip (after render, which chooses MuJoCo's renderer)

INTEGRATION = int(mujoco.mjtState.mjSTATE_INTEGRATION)
UNSTABLE = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)
"""Numbers of the joints that MuJoCo starts over at."""

Observation = dict[str, NDArray[Any]]


class MuJoCoSim(gymnasium.Env[Any, NDArray[np.float32]], abc.ABC):
    """A simulator with pictures and exact states; `rrl.envs.base.ExactSimEnv` says what each method means.

    Actions float32 [m] in [-1, 1] (clipped) span each actuator's range ([-1, 1] where it has no limits). A subclass
    loads its model (the environment's own: drawing and tasks change it), hands it over in `__init__`, and writes

    - `_begin`: start an episode, with the task's randomisation from `self.np_random` or from given arrays;
    - `_advance`: one environment step, counted in `self._steps`, with its reward, ends and goal flags;
    - `_state`: the state vector;
    - `_resume`: put back into the model what `_begin` drew (`self._initial`), before a saved state is continued;
    - if it draws from another generator, or its task changes more than `initial` tells: `_own_state`;
    - if people should look through another camera than number 0: `_spectators_camera`;
    - if `dress` should know other objects or another table than it would find by itself: `_objects`, `_table`.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (gymnasium's declaration)
    render_mode = "rgb_array"

    def __init__(
        self,
        name: str,
        model: Any,
        data: Any,
        state_dim: int,
        look: str,
        cameras: Sequence[str | int],
        frames: FrameRequest | None,
    ) -> None:
        """`name` says which model it is (equal names share a canvas); without `frames`, nothing is rendered."""
        self._name, self._model, self._data = name, model, data
        limited = model.actuator_ctrllimited.astype(bool)
        low, high = (
            np.where(limited, end, free) for end, free in zip(model.actuator_ctrlrange.T, (-1, 1), strict=True)
        )
        self._ctrl_middle, self._ctrl_half = (low + high) / 2, (high - low) / 2

        quality = model.vis.quality  # as the model asks for; drawing changes it
        self._default = render.Look(quality.shadowsize, quality.offsamples)
        self._fovy = model.cam_fovy.copy()
        self._view: render.View | None = None
        self._spectator: render.View | None = None
        self._dress: Dress | None = None
        self._frame_shape: tuple[int, int, int] | None = None
        self._frame_buffer: NDArray[np.uint8] | None = None
        if frames is not None:
            render.narrow(model, frames)
            self._frame_shape = (frames.size, frames.size, 3 * len(cameras))
            chosen = self._default if look == "default" else render.LOOKS[look]
            self._view = render.View(model, name, cameras, frames.size, chosen)

        observation: dict[str, spaces.Space[Any]] = {"state": spaces.Box(-np.inf, np.inf, (state_dim,), np.float32)}
        if self._frame_shape is not None:
            observation["frames"] = spaces.Box(0, 255, self._frame_shape, np.uint8)
        self.observation_space = spaces.Dict(observation)
        self.action_space = spaces.Box(-1.0, 1.0, self._ctrl_half.shape, np.float32)

        self.seconds = (0.0, 0.0)
        self._steps = 0
        self._initial: dict[str, NDArray[np.float64]] = {}
        self._observation: Observation = {}

    # What a simulator writes

    @abc.abstractmethod
    def _begin(self, given: Mapping[str, Any] | None) -> dict[str, NDArray[np.float64]]:
        """Reset the simulator and start an episode, drawn by the task or from the arrays `given` (check them with
        `_checked`). Returns what `initial` tells: the arrays with which this episode could be started again."""

    @abc.abstractmethod
    def _advance(self, ctrl: NDArray[np.float64]) -> tuple[float, bool, bool, dict[str, bool]]:
        """One step with these actuator controls [nu]: reward, terminated, truncated, goal flags by name."""

    @abc.abstractmethod
    def _state(self) -> NDArray[np.float32]:
        """The state vector [state_dim]."""

    def _own_state(self) -> Observation:
        """What `get_state` adds for this simulator: the generator's state, and whatever else `_resume` needs."""
        return {"rng": _pack(self.np_random)}

    @abc.abstractmethod
    def _resume(self, state: Arrays) -> None:
        """The model as in the episode whose start is `self._initial`, and what `_own_state` saved."""
        self.np_random = _unpack(state["rng"])

    def _spectators_camera(self) -> Any:
        """The camera that `render` looks through."""
        return 0

    def _objects(self) -> Sequence[str] | None:
        """Names of the bodies, geoms and sites that are the task's objects. None: what moves and isn't driven, and
        what has a name that begins with `target` or `goal`."""
        return None

    def _table(self) -> Table | None:
        """Where a new object may stand. None: on what is beneath the objects, or beneath the robot."""
        return None

    # Episodes

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode: a full simulator reset, then the task's randomisation, or `options["initial"]`, arrays
        as `initial` gives them. UserError if they are not of this task."""
        super().reset(seed=seed)
        if unknown := sorted(set(options or {}) - {"initial"}):
            raise UserError(f"reset takes the option 'initial'; got {', '.join(map(repr, unknown))}")
        self._initial, self._steps = {}, 0
        self._initial = self._begin((options or {}).get("initial"))
        if self._dress is not None:
            self._dress.begin(self._initial.get("qpos"))
        return self._observe(self._state()), {}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One step. ValueError if the action has the wrong shape or is not finite."""
        if not self._initial:
            raise RuntimeError("call reset before step")
        if action.shape != self._ctrl_half.shape or not np.isfinite(action).all():
            raise ValueError(f"an action is {self._model.nu} finite numbers in [-1, 1]; got {action!r}")
        begun = perf_counter()
        ctrl = self._ctrl_middle + np.minimum(np.maximum(action, -1.0), 1.0) * self._ctrl_half
        reward, terminated, truncated, flags = self._advance(ctrl)
        self._tell_if_unstable()
        state = self._state()
        simulated = perf_counter()
        observation = self._observe(state)
        self.seconds = (simulated - begun, perf_counter() - simulated)
        return observation, reward, terminated, truncated, dict(flags)

    def _tell_if_unstable(self) -> None:
        """MuJoCo sets a simulator whose numbers blew up back to the model's first state, and goes on without a word:
        note it, with all that repeats it."""
        for which in UNSTABLE:
            if self._data.warning[which].number:
                self._data.warning[which].number = 0
                sys.stderr.write(
                    f"note: {self._name} was unstable in step {self._steps} of the episode with seed "
                    f"{self._np_random_seed} ({which.name.removeprefix('mjWARN_')}): MuJoCo set it back to the model's "
                    "first state, and the episode goes on from there\n"
                )
                sys.stderr.flush()

    def initial(self) -> dict[str, NDArray[np.float64]]:
        """How the episode began, as `reset` takes it: qpos [nq], qvel [nv] and what the task randomised."""
        return {name: value.copy() for name, value in self._initial.items()}

    def _checked(
        self, given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, NDArray[np.float64]]:
        """Copies of the given arrays; UserError unless they are those of `shapes`, and finite."""
        if set(given) != set(shapes):
            got = ", ".join(given) or "none"
            raise UserError(f"an initial state of {self._name} has the arrays {', '.join(shapes)}; got {got}")
        values = {name: np.array(given[name], np.float64) for name in shapes}
        for name, value in values.items():
            if value.shape != shapes[name] or not np.isfinite(value).all():
                shape = " x ".join(map(str, shapes[name]))
                raise UserError(f"{name} of an initial state must be {shape} finite numbers; got {value!r}")
        return values

    # Observations

    def _observe(self, state: NDArray[np.float32]) -> Observation:
        self._observation = {"state": state}
        if self._view is not None:
            self._observation["frames"] = self._frames()
            self._view.draw(self._data, self._observation["frames"], self._dress)
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
        """A picture for people, uint8 [480, 480, 3], at the model's own quality, never cropped."""
        if self._spectator is None:
            self._spectator = render.View(self._model, self._name, [self._spectators_camera()], 480, self._default)
        picture = np.empty((480, 480, 3), np.uint8)
        narrowed = self._model.cam_fovy.copy()
        self._model.cam_fovy[:] = self._fovy
        self._spectator.draw(self._data, picture, self._dress)
        self._model.cam_fovy[:] = narrowed
        return picture

    def dress(self, scene: Scene) -> None:
        """How all pictures look from the next one on, in later episodes too, until this is called again; `Scene()`:
        as the model has it. Nothing but pictures knows of it, saved states neither. UserError if the model lacks what
        is to change, such as a light."""
        dress = Dress(scene, self._model, self._name, self._objects(), self._table())
        dress.begin(self._initial.get("qpos"))
        self._dress = dress

    def renderer(self) -> str:
        """The GL driver's name for what draws."""
        return gl.renderer()

    def about(self) -> dict[str, list[str]]:
        """Names in the model, and what the actuators get from actions of -1 and 1."""
        ends = self._ctrl_middle - self._ctrl_half, self._ctrl_middle + self._ctrl_half
        words = {"actions in the environment": about.of_range(*ends)}
        return words | about.of_model(self._model, self._data, self._observation["state"])

    # Simulator state

    def simulator(self) -> tuple[Any, Any]:
        """MuJoCo's own (model, data), for a viewer."""
        return self._model, self._data

    def physics(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(qpos [nq], qvel [nv]) now, as copies."""
        return self._data.qpos.copy(), self._data.qvel.copy()

    def show(self, qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> Observation:
        """The observation at the given joint positions and velocities, with all that follows from them up to date
        (after `step` it may lag by a substep). The simulator stays there; what the task randomised is kept. UserError
        for a state of another model."""
        check_state(self._name, self.physics(), qpos, qvel)
        self._data.qpos[:] = qpos
        self._data.qvel[:] = qvel
        mujoco.mj_forward(self._model, self._data)
        return self._observe(self._state())

    def get_state(self) -> Observation:
        """Everything that decides the future of this episode and of the next, as flat arrays, and the last
        observation: what lags behind the joints and what is felt belong to the step before, and recomputing them
        would give others."""
        integration = np.empty(mujoco.mj_stateSize(self._model, INTEGRATION))
        mujoco.mj_getState(self._model, self._data, integration, INTEGRATION)
        return {
            "integration": integration,
            "steps": np.array(self._steps),
            **self._own_state(),
            **prefixed("initial", self._initial),
            **prefixed("last", self._observation),
        }

    def set_state(self, state: Arrays) -> Observation:
        """Continue bit for bit where `get_state` was taken, in this or another process; returns the last
        observation as it was. Needs an environment made with the same settings: KeyError otherwise."""
        self._initial = of_prefix("initial", state)
        self._resume(state)
        if self._dress is not None:
            self._dress.begin(self._initial.get("qpos"))
        mujoco.mj_resetData(self._model, self._data)
        mujoco.mj_setState(self._model, self._data, np.asarray(state["integration"], np.float64), INTEGRATION)
        # For `render`, and because dm_control's step begins with the second half of MuJoCo's. Unlike mj_forward it
        # leaves the solver's warm start alone.
        mujoco.mj_step1(self._model, self._data)
        self._steps = int(state["steps"])
        last = of_prefix("last", state)
        self._observation = {"state": last["state"]}
        if self._view is not None:
            self._observation["frames"] = self._frames()
            self._observation["frames"][:] = last["frames"]
        return self._observation

    def close(self) -> None:
        """Free the simulator's pictures; the GL side goes with the last environment that shares it."""
        self._view = self._spectator = None


def prefixed(prefix: str, arrays: Arrays) -> Observation:
    """Copies of the arrays under `prefix_name`."""
    return {f"{prefix}_{name}": value.copy() for name, value in arrays.items()}


def of_prefix(prefix: str, state: Arrays) -> Observation:
    """Copies of the arrays that `prefixed` put into a state, by their own names."""
    start = f"{prefix}_"
    return {name[len(start) :]: value.copy() for name, value in state.items() if name.startswith(start)}


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
