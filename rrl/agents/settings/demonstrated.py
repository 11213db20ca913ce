"""Settings of what FERM and RLPD share: demonstrations in every batch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from rrl.agents.settings.sac import SAC, SACConfig
from rrl.registry import CountOrZero, PositiveOrZero, mistake


class DemonstratedConfig(SACConfig):
    """Settings of what demonstrations do while the agent learns online."""

    later: ClassVar[frozenset[str]] = SACConfig.later | {"offline_updates", "demo_share", "bc_weight"}
    offline_updates: CountOrZero = 0
    """Updates on the demonstrations alone, after cloning and before learning online. Of actor and critics: the
    critics move convolutions that learn, and an actor that stands still loses what it cloned on them."""
    demo_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of an update's transitions that are the demonstrations', which then stay for good (RLPD: 0.5). None:
    they lie in the memory and age like everything else."""
    bc_weight: PositiveOrZero = 0.0
    """Cloning's error on the demonstrations' share of a batch in the actor's loss online, times this and the
    batch's mean |Q| (TD3+BC's normalisation)."""

    @model_validator(mode="after")
    def _shared_out(self) -> DemonstratedConfig:
        name = self.component.__name__
        if self.demo_share is not None and not 0 < self.held() < self.batch:
            raise mistake(
                "demo_share",
                f"{name}.demo_share {self.demo_share:g} of a batch of {self.batch} is {self.held()} transitions",
                "choose a share that leaves one or more to the demonstrations and to the run's own steps",
            )
        if self.bc_weight and self.demo_share is None:
            raise mistake(
                "bc_weight",
                f"{name}.bc_weight needs demonstrations in every batch, and {name}.demo_share is None",
                f"set {name}.demo_share, such as 0.5",
            )
        return self

    def held(self) -> int:
        """Transitions of a batch that are the demonstrations'."""
        return round((self.demo_share or 0) * self.batch)


class DemonstratedSAC(SAC):
    """SAC that draws from demonstrations too."""

    demos: ClassVar[Literal["none", "required"]] = "required"
    demo_rewards: ClassVar[bool] = True
