"""What every environment factory and every simulated environment offers.

Nothing here imports torch, mujoco or gymnasium at run time: `rrl list` reads it, and so do worker
processes, which never need torch.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from rrl.registry import Component
from rrl.score import RETURN, Score

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class FrameRequest:
    """The pictures that an encoder asks an environment to render.

    `size` is the side in pixels of the square frame; it shows the centre `size / crop_from` of what
    a picture of side `crop_from` would show (224 of 256 equals the usual centre crop, without
    rendering the pixels that the crop throws away). `stack` frames are given at once, oldest first.
    """

    size: int
    crop_from: int
    stack: int = 1


class EnvFactory(Component, abc.ABC):
    """Makes the simulated environments of one task. Cheap to construct; picklable through its config."""

    kind: ClassVar[str] = "environment"

    class Config(Component.Config):
        """Settings shared by all environments: none. `label` is the task as reports call it, such as `door`."""

    def __init__(self, config: Component.Config) -> None:
        self.config = config

    packages: ClassVar[tuple[str, ...]] = ("mujoco",)
    """Distributions that decide what the simulator computes: their versions are facts, `rrl doctor` shows them."""
    visual: ClassVar[frozenset[str]] = frozenset()
    """Settings that decide how pictures look and nothing else: runs without pictures may differ in them."""
    oracle: ClassVar[str] = ""
    """The binding with which the state vector holds the task's objects, such as `Adroit.state = 'task'`: what an
    error may propose. Empty if there is none."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Short name of the task, such as `adroit_door`: demonstrations and caches are told apart by it."""

    @property
    def protocol(self) -> str:
        """The task variant, such as `paper`: reset ranges, horizon, termination, appearance. Empty: there is one."""
        return ""

    @property
    @abc.abstractmethod
    def horizon(self) -> int:
        """Agent steps after which an episode is truncated."""

    @property
    def action_repeat(self) -> int:
        """Control steps of one agent step, which is one `step` here: the same action is applied this often
        and the rewards are summed. Environment steps are counted before action repeat."""
        return 1

    @property
    @abc.abstractmethod
    def cameras(self) -> tuple[str, ...]:
        """Cameras in the order in which their frames are concatenated on the channel axis."""

    @property
    def score(self) -> Score:
        """What the task is judged by; without a success test the return."""
        return RETURN

    @property
    def flags(self) -> tuple[str, ...]:
        """Names of the boolean goal flags that every step reports in `info`; the first one is the score's."""
        return (self.score.name,) if self.score.counted else ()

    @property
    def blind_state(self) -> bool:
        """True if the state vector says nothing of the task's objects (joints only): a policy without
        pictures is then a blind one."""
        return False

    @property
    def has_state(self) -> bool:
        """False if the state vector is empty."""
        return True

    def facts(self) -> dict[str, str]:
        """What a run's tags and a feature cache's key must say: what decides observations and rewards."""
        facts = {"env": self.name, "protocol": self.protocol, "cameras": ",".join(self.cameras)}
        facts |= {"horizon": str(self.horizon)} | {name: version(name) for name in self.packages}
        return {name: value for name, value in facts.items() if value}

    @abc.abstractmethod
    def make_one(self, frames: FrameRequest | None) -> SimEnv:
        """One environment in this process. None: it renders nothing."""


class SimEnv(Protocol):
    """What the rollout engine needs of one simulated environment; implementations are `gymnasium.Env`s.

    Observations are dicts with `state`: float32 [p] and, if frames were requested, `frames`: uint8
    [H, W, 3 * cameras], written into `frame_buffer` when that is set (it may be shared memory) and
    returned as that array.
    """

    frame_buffer: NDArray[np.uint8] | None
    observation_space: Any
    action_space: Any

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """A full simulator reset and the task's randomisation, drawn from `seed`. `options={"initial": x}`
        with x from `initial()`: the initial state and the randomised quantities are set to it instead."""

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """One environment step. `info` holds one bool per name in `EnvFactory.flags` and `info["seconds"]`,
        the float pair (simulating, rendering)."""

    def render(self) -> NDArray[np.uint8]:
        """A picture [480, 480, 3] for people, at the best quality, whatever the run's look."""

    def initial(self) -> dict[str, NDArray[np.float64]]:
        """The current episode's initial state and what the task randomised (float64), as `reset` takes it."""

    def physics(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(qpos, qvel) now."""

    def show(self, qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """The observation of a given simulator state, without stepping (playback by states)."""

    def get_state(self) -> dict[str, NDArray[Any]]:
        """All that decides the future of this episode, and the last observation as data."""

    def set_state(self, state: Arrays) -> dict[str, NDArray[Any]]:
        """Continue bit for bit where `get_state` was taken; returns the last observation as it was."""

    def close(self) -> None:
        """Free the simulator and its GL context."""
