"""Settings of FERM."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from rrl.agents.settings.demonstrated import DemonstratedConfig, DemonstratedSAC
from rrl.agents.settings.rad import PixelSACConfig
from rrl.registry import CountOrZero, register


@register
class FERM(DemonstratedSAC):
    """SAC from cropped pictures with demonstrations in its memory and a warm-started encoder."""

    implemented_in = "rrl.agents.ferm"

    class Config(PixelSACConfig, DemonstratedConfig):
        """FERM's settings: RAD's, and the warm start's; `offline_updates`, `demo_share` and `bc_weight` are not FERM's
        own (docs/results.md)."""

        encoder_loss: Literal["never", "warm_start", "always"] = "warm_start"
        """When the encoder is trained on its own loss (FERM: in the warm start; online by critics alone)."""
        warm_start_updates: CountOrZero = 1_600
        """Contrastive updates on the demonstrations before learning online."""
        bc_epochs: CountOrZero = 0
        """Passes over the demonstrations in which the actor is cloned; 0: none. FERM's BC-only mode is 100 passes with
        warm_start_updates = 0 and Experiment.iterations = 0 (and FERM.init_steps = 0, or sampled actions are random).
        Its batches come in the memory's order, ours are drawn."""
        bc_convolutions: bool = True
        """Does cloning train the convolutions too, at the actor's learning rate? FERM's does: its actor's Adam holds
        them, and cloning's is the one loss of the actor that reaches them (`train_bc`). False: the actor and its head
        alone, on what the warm start made; so cloned all runs from before there was this setting."""

        @model_validator(mode="before")
        @classmethod
        def _cloned_before(cls, given: Any) -> Any:
            """A run's record states every setting: one without this one is of an actor cloned alone."""
            recorded = isinstance(given, dict) and {"replay", "hidden", "log_prob", "alpha_beta"} <= given.keys()
            return {"bc_convolutions": False, **given} if recorded else given

    needs_loss = True
