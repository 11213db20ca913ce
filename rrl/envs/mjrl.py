"""The 7-DoF tasks of MJRL (Rajeswaran et al.) that RRL's section 7.4 learns: an arm of torques, no gravity."""

from __future__ import annotations

from typing import Any, Literal

from rrl.envs.base import ExactSimEnv, FrameRequest, Look, MuJoCoFactory, Steps
from rrl.registry import register
from rrl.score import Score, success

RADIUS = {"reacher": 0.05, "peg_insertion": 0.06}
"""Per task the distance (m) from the target within which an episode must end to succeed: our rule, as the source has
none (the peg's is where its reward has a bonus)."""


@register
class MJRL(MuJoCoFactory):
    """Reaching a point, and putting a peg into a slot, with a seven-jointed arm; models of our own, in MJRL's sizes.

    The reward of a step is -|d|_1 - 5 |d|_2 with the way d (m) from hand, or peg's tip, to target; for the peg 5 more
    within 6 cm. An episode succeeds if it ends within 5 cm (peg: 6) of the target: our rule, as MJRL has none.
    """

    class Config(MuJoCoFactory.Config):
        """Which task, and what is observed."""

        task: Literal["reacher", "peg_insertion"]
        """Which task."""
        look: Look = "default"
        """Render quality. `default`: shadow map 4096, 8 samples; `balanced`: 1024, 4; `fast`: no shadows, no
        smoothing, several times faster. Features differ between looks."""
        state: Literal["joints", "task", "none"] = "joints"
        """What the state vector holds. `joints`: the 7 joint angles in rad (our reading: the paper doesn't say);
        `task`: MJRL's observation of 20 numbers, target included; `none`: nothing."""
        horizon: Steps = 50
        """Steps (40 ms each) per episode."""

        def label(self) -> str:
            """The task, in words."""
            return self.task.replace("_", " ")

    config: Config
    cameras = ("front",)
    oracle = "MJRL.state = 'task'"
    proprioception = "MJRL.state = 'joints'"

    @classmethod
    def tasks(cls) -> dict[str, dict[str, Any]]:
        return {f"mjrl_{task}": {"task": task} for task in RADIUS}

    @property
    def horizon(self) -> int:
        return self.config.horizon

    @property
    def score(self) -> Score:
        """Success: the hand, or the peg's tip, is at the target as the episode ends."""
        return success("success", 0)

    def make_one(self, frames: FrameRequest | None) -> ExactSimEnv:
        from rrl.envs.mjrl_sim import MJRLSim

        c = self.config
        return MJRLSim(c.task, RADIUS[c.task], c.look, c.state, self.cameras, self.horizon, frames)
