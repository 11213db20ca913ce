"""The DeepMind Control Suite (Tassa et al., 2018) as RAD, CURL, SAC+AE and RRL's table 1 use it."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic_core import PydanticCustomError

from rrl.envs.base import ExactSimEnv, FrameRequest, Look, MuJoCoFactory, Steps, meant
from rrl.registry import CountOrZero, UserError, register

PAPER = {
    ("finger", "spin"): 2,
    ("cartpole", "swingup"): 8,
    ("reacher", "easy"): 4,
    ("cheetah", "run"): 4,
    ("walker", "walk"): 2,
    ("ball_in_cup", "catch"): 4,
}
"""The six tasks of the paper's table 1 and their action repeats, which all of its baselines share."""

CONTROL_STEPS = 1000
"""Length of every suite task's episode in control steps (dm_control 1.0.50; lqr alone has no end)."""


@register
class DMControl(MuJoCoFactory):
    """A task of dm_control's suite. Rewards are 0 to 1 per control step, scores 0 to 1000 per episode."""

    class Config(MuJoCoFactory.Config):
        """Which task, how often an action is repeated, and what is observed."""

        domain: str
        """Domain of the suite, such as `cartpole`. The paper's six tasks: finger spin, cartpole swingup,
        reacher easy, cheetah run, walker walk, ball_in_cup catch."""
        task: str
        """Task of the domain, such as `swingup`."""
        action_repeat: Annotated[int, pydantic.Field(gt=0, le=CONTROL_STEPS)] | None = None
        """Control steps for which an action is repeated. None: the paper's (cartpole swingup 8; reacher
        easy, cheetah run and ball_in_cup catch 4; finger spin and walker walk 2); other tasks have none."""
        camera: CountOrZero = 0
        """Number of the camera to render (RAD and CURL: 0)."""
        look: Look = "default"
        """Render quality. `default`: dm_control's own, as RAD and CURL (shadow map 2048, 4 samples);
        `balanced`: 1024, 4; `fast`: no shadows, no smoothing. Features differ between looks."""
        state: Literal["task", "none"] = "task"
        """What the state vector holds. `task`: the suite's own observations, one after the other; `none`:
        nothing (the paper's pixel methods)."""
        horizon: Steps | None = None
        """Agent steps (each of `action_repeat` control steps) per episode. None: the suite's 1000 control
        steps."""

        @pydantic.field_validator("task")
        @classmethod
        def _exists(cls, task: str, info: pydantic.ValidationInfo) -> str:
            domain = info.data.get("domain")
            if domain is not None and (domain, task) not in PAPER and find_spec("dm_control"):
                from rrl.envs import dmcontrol_sim

                try:
                    dmcontrol_sim.check(domain, task)
                except UserError as error:
                    wrong = "task" if dmcontrol_sim.has_domain(domain) else "domain"
                    context = {"message": f"DMControl: {error}", "field": wrong, "hint": ""}
                    raise PydanticCustomError("config", "{message}", context) from error
            return task

        @pydantic.field_validator("action_repeat")
        @classmethod
        def _known_repeat(cls, repeat: int | None, info: pydantic.ValidationInfo) -> int | None:
            if repeat is not None or not {"domain", "task"} <= set(info.data):
                return repeat  # a wrong domain or task is a problem of its own
            asked = (info.data["domain"], info.data["task"])
            if asked not in PAPER:
                name, known = " ".join(asked), [" ".join(pair) for pair in PAPER]
                raise ValueError(
                    f"must be set for {name}: the paper says how often to repeat an action only for "
                    f"{', '.join(known)}{meant(name, known, quote='')}"
                )
            return repeat

        def label(self) -> str:
            """Domain and task."""
            return f"{self.domain} {self.task}"

        def filmed(self, cameras: Sequence[str], look: str) -> Self:
            if len(cameras) > 1 or not all(camera.isdecimal() for camera in cameras):
                raise UserError(
                    f"{self.label()} is filmed by one camera, named by its number; got {', '.join(cameras)}"
                )
            camera = int(cameras[0]) if cameras else self.camera
            return self.of({**dict(self), "camera": camera, "look": look})

    config: Config
    packages = (*MuJoCoFactory.packages, "dm-control")
    oracle = "DMControl.state = 'task'"
    variant = ("action_repeat",)

    @classmethod
    def tasks(cls) -> dict[str, dict[str, Any]]:
        """The paper's six and, with dm_control (which is imported), the suite's others, whose `action_repeat` must
        be given."""
        known = dict.fromkeys(PAPER)
        if find_spec("dm_control"):
            from rrl.envs import dmcontrol_sim

            known |= dict.fromkeys(dmcontrol_sim.names())
        return {f"dmc_{domain}_{task}": {"domain": domain, "task": task} for domain, task in known}

    @property
    def name(self) -> str:
        return f"dmc_{self.config.domain}_{self.config.task}"

    @property
    def protocol(self) -> str:
        return "suite"

    @property
    def action_repeat(self) -> int:
        return self.config.action_repeat or PAPER[self.config.domain, self.config.task]

    @property
    def horizon(self) -> int:
        return self.config.horizon or math.ceil(CONTROL_STEPS / self.action_repeat)

    @property
    def cameras(self) -> tuple[str, ...]:
        return (f"camera {self.config.camera}",)

    def settings(self) -> dict[str, str]:
        _needs_dm_control()  # whose version is the next of the facts
        return super().settings() | {"action_repeat": str(self.action_repeat)}

    def make_one(self, frames: FrameRequest | None) -> ExactSimEnv:
        _needs_dm_control()
        from rrl.envs.dmcontrol_sim import DMControlSim

        c = self.config
        steps = CONTROL_STEPS if c.horizon is None else c.horizon * self.action_repeat
        return DMControlSim(c.domain, c.task, self.action_repeat, steps, c.look, c.state, c.camera, frames)


def _needs_dm_control() -> None:
    """UserError with the remedy if dm-control is not installed."""
    if find_spec("dm_control"):
        return
    remedy = "pip install 'dm-control>=1.0.50'"
    if sys.version_info >= (3, 13):
        remedy = "use Python 3.11 or 3.12 (its dependency labmaze has no wheels for 3.13 and later)"
    raise UserError(f"DMControl needs the package dm-control, which is not installed: {remedy}")
