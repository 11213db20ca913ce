"""Settings of RAD, CURL and SAC+AE: those of their released code."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rrl.agents.settings.off_policy import Observations
from rrl.agents.settings.sac import SAC, SACConfig
from rrl.registry import Count, CountOrZero, LogStd, Positive, Samples, register


class PixelSACConfig(SACConfig):
    """What RAD, CURL and SAC+AE share: the defaults of their released code."""

    replay: Observations = 100_000
    """Observations in the replay memory: each picture is kept once, 30 kB at 100 pixels and one camera, 35 at 108."""
    init_steps: CountOrZero = 1_000
    """Agent steps of uniformly random actions before the first update."""
    batch: Samples = 128
    """Transitions per update (128 in the scripts)."""
    actor_lr: Positive = 1e-3
    """Adam's learning rate of the actor (cheetah: 2e-4)."""
    critic_lr: Positive = 1e-3
    """Adam's learning rate of critics and encoder (cheetah: 2e-4)."""
    actor_every: Count = 2
    """Updates between steps of actor and temperature."""
    critic_tau: float = Field(default=0.01, gt=0, le=1)
    """How far the target critics move towards the critics."""
    log_std_min: LogStd = -10.0
    """Lower bound of the log exploration std before the tanh."""
    log_prob: Literal["stable", "clipped"] = "clipped"
    """Form of the tanh's correction: of the clipped 1 - a^2, plus 1e-6; or `stable`, as pytorch_sac's."""
    alpha_beta: float = Field(default=0.5, ge=0, lt=1)
    """Adam's beta1 of log alpha."""


@register
class RAD(SAC):
    """SAC from randomly cropped or translated pictures, and nothing else."""

    implemented_in = "rrl.agents.rad"

    class Config(PixelSACConfig):
        """RAD's settings."""

        encoder_loss: Literal["never", "warm_start", "always"] = "never"
        """When the encoder is trained on an objective of its own, if it has one."""


@register
class CURL(SAC):
    """RAD's crops, and a contrastive loss on two crops of the same pictures at every update."""

    implemented_in = "rrl.agents.rad"
    needs_loss = True

    class Config(PixelSACConfig):
        """CURL's settings."""


@register
class SACAE(SAC):
    """SAC+AE: no augmentation; the convolutions also learn to reconstruct the picture."""

    implemented_in = "rrl.agents.rad"
    needs_loss = True

    class Config(PixelSACConfig):
        """SAC+AE's settings."""

        replay: Observations = 1_000_000
        """Observations in the replay memory: 21 GB of pictures when full (84 pixels, one camera)."""
        catch_up: bool = True
        """Make `init_steps` updates at once when learning begins."""
