"""One simulated task of dm_control's suite."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.envs.base import Arrays, FrameRequest, meant
from rrl.envs.mujoco import MuJoCoSim, Observation, of_prefix, prefixed
from rrl.registry import UserError

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

DRAWN = ("qpos", "qvel", "act", "qacc_warmstart")
"""What tasks set in `mjData` when an episode starts, and the solver's warm start, for bit-equal replays."""
FIXED = ("_", "tex_", "mesh_", "bvh_", "skin_", "hfield_")
"""Prefixes of model arrays that no task changes, megabytes of textures and meshes among them."""
WITH_RENDERER = ("quadruped", "escape")
"""The task that needs dm_control's own renderer."""


class DMControlSim(MuJoCoSim):
    """A task of the suite. Actions are applied for `action_repeat` control steps, whose rewards are summed.

    An episode is truncated after `control_steps`, and terminated only where the suite ends it with discount 0.
    `state` is `task` or `none`; `camera` is a camera's number. Initial states hold qpos, qvel, act (where there are
    activations), qacc_warmstart and whole arrays of the model that the task set, such as reacher's geom_pos
    [ngeom, 3]. UserError if there is no such task or camera.
    """

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
        self._repeat, self._control_steps, self._state_kind = action_repeat, control_steps, state
        loaded = _load(domain, task)
        # The task and its physics are driven here as dm_control's Environment does, but without its time
        # limit, and without observations in the middle of a repeated action.
        self._task, self._physics = loaded.task, loaded.physics
        self._substeps = round(loaded.control_timestep() / self._physics.timestep())
        self.metadata = {**self.metadata, "render_fps": 1 / (loaded.control_timestep() * action_repeat)}
        model = self._physics.model.ptr
        if camera >= model.ncam:
            known = ", ".join(f"{i} ({model.camera(i).name})" for i in range(model.ncam))
            raise UserError(f"{domain} {task} has the cameras {known}; got {camera}: set DMControl.camera")
        shapes = [spec.shape for spec in loaded.observation_spec().values()] if state == "task" else []
        size = sum(math.prod(shape) for shape in shapes)
        super().__init__(f"{domain} {task}", model, self._physics.data.ptr, size, look, [camera], frames)

        # As loaded: what tasks may change in the model (views, and their first values) and in themselves.
        self._fields = _fields(self._model)
        self._loaded = {name: value.copy() for name, value in self._fields.items()}
        self._task_loaded = _numbers(self._task)
        self._task.random.seed(np.random.SeedSequence().generate_state(8))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """As `MuJoCoSim.reset`; the suite's tasks draw from a generator of their own."""
        if seed is not None:
            self._task.random.seed(np.random.SeedSequence(seed).generate_state(8))
        return super().reset(seed=seed, options=options)

    def _begin(self, given: Mapping[str, Any] | None) -> dict[str, NDArray[np.float64]]:
        self._restore({}, {})
        with self._physics.reset_context():
            self._task.initialize_episode(self._physics)
            if given is not None:
                shapes = {name: value.shape for name, value in self._drawn().items()}
                for name, value in self._checked(given, shapes).items():
                    target = getattr(self._data, name) if name in DRAWN else self._fields[name]
                    target[:] = value
            return self._drawn()

    def _advance(self, ctrl: NDArray[np.float64]) -> tuple[float, bool, bool, dict[str, bool]]:
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
        return reward, terminated, truncated, {}

    def _state(self) -> NDArray[np.float32]:
        if self._state_kind == "none":
            return np.empty(0, np.float32)
        parts = self._task.get_observation(self._physics).values()
        return np.concatenate([np.ravel(part) for part in parts]).astype(np.float32)

    # What tasks change

    def _drawn(self) -> dict[str, NDArray[np.float64]]:
        """What the task has set so far."""
        arrays = {name: getattr(self._data, name) for name in DRAWN} | self._changed()
        return {name: np.array(value, np.float64) for name, value in arrays.items() if value.size}

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

    def _own_state(self) -> Observation:
        _, key, *rest = self._task.random.get_state()
        return {
            "rng_key": key.copy(),
            "rng_rest": np.array(rest, np.float64),  # position, whether a normal number is left over, which
            **prefixed("model", self._changed()),
            **prefixed("task", _numbers(self._task)),
        }

    def _resume(self, state: Arrays) -> None:
        self._restore(of_prefix("model", state), of_prefix("task", state))
        position, has_normal, normal = state["rng_rest"]
        self._task.random.set_state(("MT19937", state["rng_key"], int(position), int(has_normal), normal))


def names() -> list[tuple[str, str]]:
    """(domain, task) of all tasks that `check` lets pass."""
    pairs = [(domain, task) for domain, tasks in suite.TASKS_BY_DOMAIN.items() for task in tasks]
    return [pair for pair in pairs if pair != WITH_RENDERER]


def has_domain(domain: str) -> bool:
    """Has the suite tasks of this domain?"""
    return domain in suite.TASKS_BY_DOMAIN


def check(domain: str, task: str) -> None:
    """UserError with a suggestion if the suite has no task of that name, or not here."""
    domains = suite.TASKS_BY_DOMAIN
    for what, name, known in (
        ("suite has no domain", domain, domains),
        (f"{domain} has no task", task, domains.get(domain)),
    ):
        if name not in known:
            raise UserError(f"dm_control's {what} {name!r}{meant(name, known)} (one of {', '.join(known)})")
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


def _fields(model: Any) -> dict[str, NDArray[Any]]:
    """Views of the model's arrays that a task may change."""
    arrays = {name: getattr(model, name) for name in dir(model) if not name.startswith(FIXED)}
    return {name: value for name, value in arrays.items() if isinstance(value, np.ndarray) and value.size}


def _numbers(task: Any) -> dict[str, NDArray[Any]]:
    """Copies of the task's own numbers, such as counters."""
    kinds = bool | int | float | np.number | np.ndarray
    return {name: np.array(value) for name, value in vars(task).items() if isinstance(value, kinds)}
