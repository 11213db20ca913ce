"""Settings of the natural policy gradient (`NPG`), the same with demonstrations (`DAPG`), and cloning alone (`BC`)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from rrl.agents.settings.base import Agent, Episodes, FrozenAgent
from rrl.registry import (
    Count,
    CountOrZero,
    LogStd,
    Positive,
    PositiveOrZero,
    Samples,
    Width,
    register,
)


class PolicyConfig(Agent.Config):
    """Settings of the Gaussian policy."""

    policy_hidden: tuple[Width, ...] = (256, 256)
    """Units in each hidden tanh layer of the policy (paper; the authors' relocate logs: 512, 512)."""
    min_log_std: LogStd = -3.0
    """Lower bound of the log exploration std, per action dimension (authors' code)."""
    init_std_factor: Positive = 1.0
    """Factor on the initial exploration std, after cloning has set it; `min_log_std` still holds
    (our choice; 1 = faithful)."""


class CloningConfig(PolicyConfig):
    """Settings of behaviour cloning."""

    later: ClassVar[frozenset[str]] = frozenset({"bc_noise"})
    bc_epochs: CountOrZero = 5
    """Passes over the demonstrations, of floor(steps / bc_batch) batches each (paper)."""
    bc_lr: Positive = 1e-3
    """Adam's learning rate in cloning (paper)."""
    bc_batch: Samples = 32
    """Demonstration steps per batch, drawn with replacement (paper)."""
    bc_noise: PositiveOrZero = 0.0
    """Standard deviation of Gaussian noise on what is cloned from, standardised: a clone that has seen only the
    demonstrations' own observations strays from them (ours)."""
    in_scale_floor: PositiveOrZero = 1e-3
    """Lower bound of the policy's input scales, as a fraction of their mean: a feature that hardly varies
    in the demonstrations would blow up outside them (our choice; 0 = faithful: no bound)."""


class NPGConfig(PolicyConfig):
    """Settings of the natural policy gradient and of the value network."""

    trajectories: Count = 200
    """Episodes per iteration (paper: 200; pen 400)."""
    step_size: Positive = 0.05
    """Normalised step size delta: twice the KL divergence of a step, in nats (paper)."""
    gamma: float = Field(default=0.995, gt=0, le=1)
    """Discount per environment step (paper)."""
    gae_lambda: float = Field(default=0.97, ge=0, le=1)
    """Lambda of generalised advantage estimation (paper)."""
    cg_iterations: Count = 10
    """Conjugate-gradient iterations for the natural gradient (authors' code)."""
    damping: PositiveOrZero = 1e-4
    """Added to the Fisher matrix's diagonal (authors' code)."""
    terminal_at_horizon: bool = True
    """True: nothing is earned after the horizon, as in the authors' code (the value network knows the time).
    False: the final observation's value is, if the episode was only truncated; so in value targets too."""
    value_hidden: tuple[Width, ...] = (128, 128)
    """Units in each hidden ReLU layer of the value network (authors' code)."""
    value_lr: Positive = 1e-3
    """Adam's learning rate for the value network (paper)."""
    value_epochs: CountOrZero = 2
    """Passes over the iteration's samples, of floor(samples / value_batch) - 1 batches each (paper)."""
    value_batch: Samples = 64
    """Samples per batch of the value fit (paper)."""
    value_weight_decay: PositiveOrZero = 1e-3
    """Coupled L2 weight decay of the value network's Adam (authors' code)."""

    def wants(self) -> Episodes:
        """`trajectories` whole episodes."""
        return Episodes(self.trajectories)


class GaussianAgent(FrozenAgent):
    """A Gaussian policy on frozen features; the base of the three agents."""

    speed_ignores = frozenset(
        {"bc_epochs", "bc_lr", "bc_batch", "lam_0", "lam_1", "step_size", "gamma", "gae_lambda", "trajectories"}
    )
    metrics = {"policy/kl": "KL {:.4f}"}  # noqa: RUF012


@register
class BC(GaussianAgent):
    """Behaviour cloning alone: everything is learnt in `warm_start`."""

    implemented_in = "rrl.agents.npg"

    class Config(CloningConfig):
        """Settings of behaviour cloning."""

        def wants(self) -> Episodes:
            """Nothing: it learns from demonstrations alone."""
            return Episodes(0)

    step_sizes = ("bc_lr",)
    demos: ClassVar[Literal["none", "required"]] = "required"
    needs_rollouts: ClassVar[bool] = False


@register
class NPG(GaussianAgent):
    """Natural policy gradient with a learnt value baseline; no demonstrations, no line search."""

    implemented_in = "rrl.agents.npg"

    class Config(NPGConfig):
        """Settings of NPG."""

    step_sizes = ("step_size", "value_lr")


@register
class DAPG(NPG):
    """NPG after cloning, with the demonstrations' likelihood in the gradient, weighted w_k = lam_0 * lam_1^k.

    As in the authors' code, the paper's factor max(advantage) is absent and demonstrations are summed over
    but divided by the number of rollout samples. They never enter the Fisher matrix, the whitening, the
    logged KL or the value fit, and their rewards are not used. `lam_0 = 0` is "BC, then NPG".
    """

    implemented_in = "rrl.agents.npg"

    class Config(NPGConfig, CloningConfig):
        """Settings of DAPG."""

        lam_0: PositiveOrZero = 0.01
        """Weight of the demonstrations in the first update (paper); 0: cloning, then plain NPG."""
        lam_1: float = Field(default=0.95, ge=0, le=1)
        """Factor on that weight per update (paper)."""

    demos: ClassVar[Literal["none", "required"]] = "required"
