"""Settings of soft actor-critic."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from rrl.agents.settings.off_policy import OffPolicyAgent, OffPolicyConfig
from rrl.registry import LogStd, Positive, mistake, register


class SACConfig(OffPolicyConfig):
    """Settings of soft actor-critic; the defaults are pytorch_sac's for states."""

    later: ClassVar[frozenset[str]] = frozenset({"overlap", "critic_norm", "bounded_targets", "target_entropy"})
    log_std_min: LogStd = -5.0
    """Lower bound of the log exploration std before the tanh (pixels: -10)."""
    log_std_max: LogStd = 2.0
    """Upper bound of it."""
    log_prob: Literal["stable", "clipped"] = "stable"
    """Form of the tanh's correction: log(1 - a^2) computed stably (pytorch_sac), or of the clipped 1 - a^2,
    plus 1e-6 (RAD, CURL, SAC+AE)."""
    init_alpha: Positive = 0.1
    """Temperature at the start."""
    alpha_lr: Positive = 1e-4
    """Adam's learning rate of log alpha."""
    alpha_beta: float = Field(default=0.9, ge=0, lt=1)
    """Adam's beta1 of it (pixels: 0.5)."""
    gamma: float = Field(default=0.99, gt=0, le=1)
    """Discount per agent step."""
    critic_norm: bool = False
    """LayerNorm after each hidden layer of the critics, before its ReLU, which keeps them from overrating actions that
    nobody has taken (RLPD)."""
    bounded_targets: bool = False
    """Cut what the critics learn to what rewards allow: the least and the greatest one seen so far, earned for ever."""
    target_entropy: float | None = Field(default=None, ge=-1e6, le=1e6)
    """What the temperature holds the policy's entropy at, in nats; None: -m of m actions (SAC)."""

    @model_validator(mode="after")
    def _sound(self) -> SACConfig:
        if self.log_std_min >= self.log_std_max:
            name = self.component.__name__
            raise mistake(
                "log_std_min",
                f"{name}.log_std_min is {self.log_std_min:g}, not below log_std_max, {self.log_std_max:g}",
                f"choose {name}.log_std_min < {name}.log_std_max",
            )
        if self.bounded_targets and self.gamma == 1:
            raise mistake(
                "bounded_targets",
                "undiscounted rewards (gamma 1) earned for ever have no bound",
                f"choose {self.component.__name__}.gamma < 1, or leave bounded_targets out",
            )
        return self


@register
class SAC(OffPolicyAgent):
    """Soft actor-critic: one update per agent step, from a replay memory."""

    implemented_in = "rrl.agents.sac"

    class Config(SACConfig):
        """Settings of SAC."""

    metrics = {"sac/alpha": "temperature {:.3f}", "encoder/loss": "encoder loss {:.3f}"}  # noqa: RUF012
    step_sizes = ("critic_lr", "actor_lr", "alpha_lr")
    speed_ignores = frozenset({"gamma"})
