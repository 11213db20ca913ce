"""One simulated task of dm_control's suite, as a `gymnasium.Env`."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rrl.envs import render
from rrl.envs.base import Arrays, FrameRequest
from rrl.registry import UserError

import mujoco  # isort: skip (after render, which chooses MuJoCo's renderer)

# Without a renderer of dm_control's own, since we draw: it would initialise EGL as soon as it is imported,
# load Mesa's LLVM before triton's (see `gl`), and end EGL at exit before our context is freed.
_asked = os.environ.get("MUJOCO_GL")
os.environ["MUJOCO_GL"] = "disable"
try:
    from dm_control import suite
finally:
    del os.environ["MUJOCO_GL"]
    if _asked is not None:
        os.environ["MUJOCO_GL"] = _asked

INTEGRATION = int(mujoco.mjtState.mjSTATE_INTEGRATION)
DRAWN = ("qpos", "qvel", "act", "qacc_warmstart")
"""What tasks set in `mjData` when an episode starts, and the solver's warm start, for bit-equal replays."""
FIXED = ("_", "tex_", "mesh_", "bvh_", "skin_", "hfield_")
"""Prefixes of model arrays that no task changes, megabytes of textures and meshes among them."""
WITH_RENDERER = ("quadruped", "escape")
"""The task that needs dm_control's own renderer."""

Observation = dict[str, NDArray[Any]]


class DMControlSim(gymnasium.Env[Any, NDArray[np.float32]]):
    """A task of the suite; `rrl.envs.base.SimEnv` says what each method means.

    Actions float32 [m] in [-1, 1] (clipped) span the suite's action range and are applied for
    `action_repeat` control steps, whose rewards are summed. An episode is truncated after `control_steps`,
    and terminated only where the suite ends it with discount 0. `state` is `task` or `none`; `camera` is a
    camera's number; without `frames`, nothing is rendered. UserError if there is no such task or camera.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (gymnasium's declaration)
    render_mode = "rgb_array"

    def __init__(
        self,
        domain: str,
        task: str,
        action_repeat: int,
        control_steps: int,
        look: str,
        state: str,
        camera: int,
        frames: FrameRequest | None,
    ) -> None:
        self._name = f"{domain} {task}"
        self._repeat, self._control_steps, self._state_kind = action_repeat, control_steps, state
        loaded = _load(domain, task)
        # The task and its physics are driven here as dm_control's Environment does, but without its time
        # limit, and without observations in the middle of a repeated action.
        self._task, self._physics = loaded.task, loaded.physics
        self._substeps = round(loaded.control_timestep() / self._physics.timestep())
        self._model, self._data = self._physics.model.ptr, self._physics.data.ptr
        low, high = loaded.action_spec().minimum, loaded.action_spec().maximum
        limited = self._model.actuator_ctrllimited.astype(bool)  # lqr's forces have no limits: [-1, 1]
        low, high = np.where(limited, low, -1.0), np.where(limited, high, 1.0)
        self._ctrl_middle, self._ctrl_half = (low + high) / 2, (high - low) / 2

        if camera >= self._model.ncam:
            names = ", ".join(f"{i} ({self._model.camera(i).name})" for i in range(self._model.ncam))
            raise UserError(f"{self._name} has the cameras {names}; got {camera}: set DMControl.camera")
        quality = self._model.vis.quality  # as the model asks for; drawing changes it
        self._default = render.Look(quality.shadowsize, quality.offsamples)
        self._view: render.View | None = None
        self._frame_shape: tuple[int, int, int] | None = None
        self._fovy = self._model.cam_fovy.copy()
        if frames is not None:
            render.narrow(self._model, frames)
            self._frame_shape = (frames.size, frames.size, 3)
            quality = self._default if look == "default" else render.LOOKS[look]
            self._view = render.View(self._model, self._name, [camera], frames.size, quality)
        self._spectator: render.View | None = None
        self._frame_buffer: NDArray[np.uint8] | None = None

        size = sum(int(np.prod(spec.shape)) for spec in loaded.observation_spec().values())
        observation: dict[str, spaces.Space[Any]] = {
            "state": spaces.Box(-np.inf, np.inf, (size if state == "task" else 0,), np.float32)
        }
        if self._frame_shape is not None:
            observation["frames"] = spaces.Box(0, 255, self._frame_shape, np.uint8)
        self.observation_space = spaces.Dict(observation)
        self.action_space = spaces.Box(-1.0, 1.0, self._ctrl_half.shape, np.float32)

        # As loaded: what tasks may change in the model (views, and their first values) and in themselves.
        self._fields = _fields(self._model)
        self._loaded = {name: value.copy() for name, value in self._fields.items()}
        self._task_loaded = _numbers(self._task)
        self._task.random.seed(np.random.SeedSequence().generate_state(8))

        self._steps = 0
        self._initial: dict[str, NDArray[np.float64]] = {}
        self._observation: Observation = {}

    # Episodes

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode: model and task as loaded, a full simulator reset, then the task's randomisation.

        `options["initial"]` takes the arrays of `initial()` instead: qpos, qvel, act (where there are
        activations), qacc_warmstart and the model arrays that the task sets; anything else is a UserError.
        """
        if unknown := sorted(set(options or {}) - {"initial"}):
            raise UserError(f"reset takes the option 'initial'; got {', '.join(map(repr, unknown))}")
        given = (options or {}).get("initial")
        if seed is not None:
            self._task.random.seed(np.random.SeedSequence(seed).generate_state(8))
        self._initial = {}
        self._restore({}, {})
        with self._physics.reset_context():
            self._task.initialize_episode(self._physics)
            if given is not None:
                self._place(given)
            initial = self._drawn()
        self._initial = initial
        self._steps = 0
        return self._observe(self._state()), {}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One agent step: `action_repeat` control steps, fewer where the episode ends. ValueError if the
        action has the wrong shape or is not finite."""
        if not self._initial:
            raise RuntimeError("call reset before step")
        if action.shape != self._ctrl_half.shape or not np.isfinite(action).all():
            raise ValueError(f"an action is {self._model.nu} finite numbers in [-1, 1]; got {action!r}")
        begun = perf_counter()
        ctrl = self._ctrl_middle + np.minimum(np.maximum(action, -1.0), 1.0) * self._ctrl_half
        reward, terminated, truncated = 0.0, False, False
        for _ in range(self._repeat):
            self._task.before_step(ctrl, self._physics)
            self._physics.step(self._substeps)
            self._task.after_step(self._physics)
            reward += float(self._task.get_reward(self._physics))
            self._steps += 1
            truncated = self._steps >= self._control_steps
            if not truncated:  # the time limit comes first, as in dm_control
                discount = self._task.get_termination(self._physics)
                terminated = discount == 0.0
                truncated = discount is not None and not terminated
            if terminated or truncated:
                break
        state = self._state()
        simulated = perf_counter()
        observation = self._observe(state)
        seconds = (simulated - begun, perf_counter() - simulated)
        return observation, reward, terminated, truncated, {"seconds": seconds}

    def initial(self) -> dict[str, NDArray[np.float64]]:
        """How the episode began, as `reset` takes it: qpos [nq], qvel [nv], act, qacc_warmstart [nv], and
        whole arrays of the model that the task set, such as reacher's geom_pos [ngeom, 3]."""
        return {name: value.copy() for name, value in self._initial.items()}

    def _drawn(self) -> dict[str, NDArray[np.float64]]:
        """What the task has set so far."""
        arrays = {name: getattr(self._data, name) for name in DRAWN} | self._changed()
        return {name: np.array(value, np.float64) for name, value in arrays.items() if value.size}

    def _place(self, given: Mapping[str, Any]) -> None:
        drawn = self._drawn()
        if set(given) != set(drawn):
            got = ", ".join(given) or "none"
            raise UserError(f"an initial state of {self._name} has the arrays {', '.join(drawn)}; got {got}")
        for name, like in drawn.items():
            value = np.array(given[name], np.float64)
            if value.shape != like.shape or not np.isfinite(value).all():
                shape = " x ".join(map(str, like.shape))
                raise UserError(f"{name} of an initial state must be {shape} finite numbers; got {value!r}")
            target = getattr(self._data, name) if name in DRAWN else self._fields[name]
            target[:] = value

    # What tasks change

    def _changed(self) -> dict[str, NDArray[Any]]:
        """The model's arrays that are not as they were loaded (views)."""
        return {name: value for name, value in self._fields.items() if not np.array_equal(value, self._loaded[name])}

    def _restore(self, model: Arrays, task: Arrays) -> None:
        """Model and task as loaded, but for the given arrays of the model and numbers of the task."""
        for name, value in self._changed().items():
            value[:] = self._loaded[name]
        for name, value in model.items():
            self._fields[name][:] = value
        for name, value in {**self._task_loaded, **task}.items():
            setattr(self._task, name, value.copy() if value.ndim else value.item())

    # Observations

    def _state(self) -> NDArray[np.float32]:
        if self._state_kind == "none":
            return np.empty(0, np.float32)
        parts = self._task.get_observation(self._physics).values()
        return np.concatenate([np.ravel(part) for part in parts]).astype(np.float32)

    def _observe(self, state: NDArray[np.float32]) -> Observation:
        self._observation = {"state": state}
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
        """The caller's array [H, W, 3] that frames are drawn into; None: a fresh one each time."""
        return self._frame_buffer

    @frame_buffer.setter
    def frame_buffer(self, buffer: NDArray[np.uint8] | None) -> None:
        if buffer is not None and (buffer.dtype != np.uint8 or buffer.shape != self._frame_shape):
            raise ValueError(f"the frame buffer must be uint8 {self._frame_shape}; got {buffer.dtype} {buffer.shape}")
        self._frame_buffer = buffer

    def render(self) -> NDArray[np.uint8]:
        """A picture for people, uint8 [480, 480, 3], from camera 0 at default quality, never cropped."""
        if self._spectator is None:
            self._spectator = render.View(self._model, self._name, [0], 480, self._default)
        picture = np.empty((480, 480, 3), np.uint8)
        narrowed = self._model.cam_fovy.copy()
        self._model.cam_fovy[:] = self._fovy
        self._spectator.draw(self._data, picture)
        self._model.cam_fovy[:] = narrowed
        return picture

    # Simulator state

    def physics(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(qpos [nq], qvel [nv]) now, as copies."""
        return self._data.qpos.copy(), self._data.qvel.copy()

    def show(self, qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> Observation:
        """The observation at the given joint positions and velocities. The simulator stays there; what the
        task randomised is kept."""
        self._data.qpos[:] = qpos
        self._data.qvel[:] = qvel
        self._physics.forward()
        return self._observe(self._state())

    def get_state(self) -> Observation:
        """Everything that decides the future of this episode and of the next, as flat arrays, and the last
        observation (readings of touch belong to the step before: recomputing would give others)."""
        integration = np.empty(mujoco.mj_stateSize(self._model, INTEGRATION))
        mujoco.mj_getState(self._model, self._data, integration, INTEGRATION)
        _, key, *rest = self._task.random.get_state()
        return {
            "integration": integration,
            "steps": np.array(self._steps),
            "rng_key": key.copy(),
            "rng_rest": np.array(rest, np.float64),  # position, whether a normal number is left over, which
            **_prefixed("model", self._changed()),
            **_prefixed("task", _numbers(self._task)),
            **_prefixed("initial", self._initial),
            **_prefixed("last", self._observation),
        }

    def set_state(self, state: Arrays) -> Observation:
        """Continue bit for bit where `get_state` was taken, in this or another process; returns the last
        observation as it was. Needs an environment made with the same settings: KeyError otherwise."""
        last = _of("last", state)
        self._observation = {"state": last["state"]}
        if self._view is not None:
            frames = self._frames()
            frames[:] = last["frames"]
            self._observation["frames"] = frames
        self._restore(_of("model", state), _of("task", state))
        mujoco.mj_resetData(self._model, self._data)
        mujoco.mj_setState(self._model, self._data, np.asarray(state["integration"], float), INTEGRATION)
        # dm_control's step begins with the second half of MuJoCo's, so the first half has to be done.
        mujoco.mj_step1(self._model, self._data)
        self._steps = int(state["steps"])
        position, has_normal, normal = state["rng_rest"]
        self._task.random.set_state(("MT19937", state["rng_key"], int(position), int(has_normal), normal))
        self._initial = _of("initial", state)
        return self._observation

    def close(self) -> None:
        """Free the simulator's pictures; the GL side goes with the last environment that shares it."""
        self._view = self._spectator = None


def names() -> list[tuple[str, str]]:
    """(domain, task) of all tasks that `check` lets pass."""
    pairs = [(domain, task) for domain, tasks in suite.TASKS_BY_DOMAIN.items() for task in tasks]
    return [pair for pair in pairs if pair != WITH_RENDERER]


def check(domain: str, task: str) -> None:
    """UserError with a suggestion if the suite has no task of that name, or not here."""
    domains = suite.TASKS_BY_DOMAIN
    if domain not in domains:
        raise UserError(f"dm_control's suite has no domain {domain!r}{_suggest(domain, domains)}")
    if task not in domains[domain]:
        raise UserError(f"dm_control's {domain} has no task {task!r}{_suggest(task, domains[domain])}")
    if (domain, task) == WITH_RENDERER:
        raise UserError("quadruped escape needs dm_control's own renderer at each reset, which rrl turns off")


def _load(domain: str, task: str) -> Any:
    """dm_control's Environment of a task; UserError as `check`."""
    check(domain, task)
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # each cheetah would warn of an old word in its model file
    try:
        # The number decides what lqr draws for its model; episodes have seeds of their own.
        return suite.load(domain, task, task_kwargs={"random": 0})
    finally:
        logging.disable(level)


def _suggest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return (f"; did you mean {near[0]!r}?" if near else "") + f" (one of {', '.join(known)})"


def _fields(model: Any) -> dict[str, NDArray[Any]]:
    """Views of the model's arrays that a task may change."""
    arrays = {name: getattr(model, name) for name in dir(model) if not name.startswith(FIXED)}
    return {name: value for name, value in arrays.items() if isinstance(value, np.ndarray) and value.size}


def _numbers(task: Any) -> dict[str, NDArray[Any]]:
    """Copies of the task's own numbers, such as counters."""
    kinds = bool | int | float | np.number | np.ndarray
    return {name: np.array(value) for name, value in vars(task).items() if isinstance(value, kinds)}


def _prefixed(prefix: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    return {f"{prefix}_{name}": value.copy() for name, value in arrays.items()}


def _of(prefix: str, state: Arrays) -> dict[str, NDArray[Any]]:
    start = f"{prefix}_"
    return {name[len(start) :]: value.copy() for name, value in state.items() if name.startswith(start)}
