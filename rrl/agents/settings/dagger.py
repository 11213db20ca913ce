"""Settings of DAgger."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rrl.agents.settings.base import Episodes
from rrl.agents.settings.npg import CloningConfig, GaussianAgent
from rrl.registry import Count, InputFile, Mistake, Parts, Positive, PositiveOrZero, Samples, build, register
from rrl.store.shipped import shipped


def _remedy() -> str:
    return f"runs write policy.safetensors; a shipped policy is named without it: {', '.join(shipped())}"


@register
class DAgger(GaussianAgent):
    """A policy of pictures that imitates one of the task's state on its own steps (dataset aggregation)."""

    implemented_in = "rrl.agents.dagger"
    asymmetric = True
    demos: ClassVar[Literal["none", "required"]] = "required"
    metrics: ClassVar = {"dagger/error": "error {:.4f}"}
    speed_ignores = GaussianAgent.speed_ignores | {"teacher", "input_noise", "lr"}
    step_sizes = ("lr", "bc_lr")

    class Config(CloningConfig):
        """DAgger's settings; those of cloning are for its start."""

        teacher: Annotated[str, InputFile(".safetensors", lambda _: shipped(), _remedy)]
        """Path of the policy file whose actions are imitated, relative to the gin file, or the name of a shipped
        policy: one that sees the state which the environment gives as `privileged`."""
        trajectories: Count = 20
        """Episodes of the policy's own per iteration."""
        updates_per_step: Annotated[float, Field(gt=0, le=1_000)] = 0.75
        """Gradient updates for each of their steps, on all steps so far."""
        batch: Samples = 256
        """Steps per update, drawn with replacement from the demonstrations and all own episodes alike."""
        lr: Positive = 1e-3
        """Adam's learning rate."""
        input_noise: PositiveOrZero = 0.1
        """Standard deviation of Gaussian noise on standardised inputs while learning (ours)."""
        exploration_std: PositiveOrZero = 0.0
        """Standard deviation of the noise in sampled actions, those of training among them (DAgger: none)."""
        replay: Annotated[int, Field(gt=0, le=10**8)] = 200_000
        """Own steps that are kept, 8 kB each of three cameras' 1280 features."""

        def wants(self) -> Episodes:
            """Own episodes."""
            return Episodes(self.trajectories)

        def memory(self, steps: int) -> int:
            """Half of those that it keeps: they are kept in half precision."""
            return min(steps + steps // 100 + 1, self.replay) // 2

        def teacher_file(self) -> str:
            """`teacher`."""
            return self.teacher

        def misfit(self, run: Parts) -> Iterable[Mistake]:
            """An environment that doesn't tell the teacher's state."""
            yield from super().misfit(run)
            if not build(run.env).privileged:
                yield Mistake(
                    "env",
                    f"{self.component.__name__}'s teacher sees the task's state, but the environment doesn't tell it",
                    "let it give its state beside what the policy sees, in training alone: a setting `privileged`, "
                    "where an environment has one",
                )
