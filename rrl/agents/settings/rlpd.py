"""Settings of RLPD."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from rrl.agents.settings.demonstrated import DemonstratedConfig, DemonstratedSAC
from rrl.agents.settings.npg import CloningConfig
from rrl.registry import (
    Count,
    CountOrZero,
    Mistake,
    Parts,
    Positive,
    PositiveOrZero,
    Samples,
    Width,
    build,
    mistake,
    register,
)


@register
class RLPD(DemonstratedSAC):
    """SAC with a normalised ensemble of critics, from demonstrations and its own steps in equal shares."""

    implemented_in = "rrl.agents.rlpd"
    asymmetric = True

    class Config(DemonstratedConfig, CloningConfig):
        """RLPD's settings for states; the clone's are `BC`'s, and without use while no field asks for a clone."""

        init_steps: CountOrZero = 5_000
        """Agent steps of the warm-up before the first update."""
        updates_per_step: Count = 20
        """Gradient updates for each agent step of each environment."""
        batch: Samples = 256
        """Transitions per update."""
        hidden: tuple[Width, ...] = (256, 256)
        """Units in each hidden ReLU layer of actor and critics (RLPD on Adroit: three layers)."""
        actor_lr: Positive = 3e-4
        """Adam's learning rate of the actor."""
        critic_lr: Positive = 3e-4
        """Adam's learning rate of the critics."""
        alpha_lr: Positive = 3e-4
        """Adam's learning rate of log alpha."""
        actor_every: Count = 20
        """Updates between steps of actor and temperature (RLPD: one for each step)."""
        target_every: Count = 1
        """Updates between moves of the target networks."""
        init_alpha: Positive = 1.0
        """Temperature at the start (RLPD from pixels: 0.1)."""
        critic_norm: bool = True
        """LayerNorm in the critics, without which values run away (RLPD)."""
        demo_share: float = Field(default=0.5, gt=0, lt=1)
        """Share of an update's transitions that are the demonstrations'."""
        target_entropy: float | None = Field(default=None, ge=-1e6, le=1e6)
        """What the temperature holds the policy's entropy at, in nats; None: -m / 2 of m actions (RLPD)."""

        encoder_loss: Literal["never", "always"] = "always"
        """When an encoder with an objective of its own is trained on it: the warm start trains none."""
        critics: Count = 10
        """Critics in the ensemble."""
        subset: Count = 2
        """Of so many, drawn for each update, the least value is the target's (REDQ)."""
        entropy_backup: bool = True
        """Does the value of what follows hold the policy's entropy? (RLPD on Adroit: False.)"""
        dropout: float = Field(default=0.0, ge=0, lt=1)
        """Share of the critics' hidden units that are 0, drawn anew for each transition of the critics' loss and of
        targets, before LayerNorm (DroQ; 0.01 did for four critics what ten do without)."""
        soft_bound: bool = False
        """With `bounded_targets`: what lies above the bound by x > 1 is learnt as the bound and sqrt(x), not cut
        (VRL3's safe target)."""
        n_step: Count = 1
        """Steps of a return before the critics' value (VRL3, IBRL: 3)."""
        reward_scale: Positive = 1.0
        """Factor on rewards in learning (VRL3: hammer 1/100, door 1/20, pen 1/50, relocate 1/30)."""
        trunk: Width | None = None
        """Units of the linear layer, normalised, before a tanh, that actor and critics each put on a frozen encoder's
        features (DrQ-v2, VRL3: 50). None: none."""
        principal: Width | None = None
        """Of a frozen encoder's features, so many principal components in the demonstrations, each of std 1 there, are
        what actor and critics see and what the memory keeps, beside the clone's action: a tenth of a row and less.
        None: all features."""
        views: Annotated[int, Field(ge=1, le=16)] = 1
        """Of each picture so many views are encoded when it is collected, as it is and under random shifts of up to a
        21st of its side (DrQ's 4 of 84 pixels); updates draw one, acting takes the first, cloning learns from all."""
        standardise: bool = False
        """Are a frozen encoder's features and the state standardised as they vary in the demonstrations (as the
        clone's always are), before the trunk?"""
        actor_norm: bool = False
        """LayerNorm in the actor too (IBRL, WSRL)."""
        warm_up: Literal["random", "clone"] = "random"
        """Who acts in the `init_steps`: uniform actions, or a clone of the demonstrations with noise (WSRL, IBRL)."""
        warm_up_noise: PositiveOrZero = 0.1
        """Standard deviation of the clone's noise there: it should fail now and then, or critics learn little."""
        start: Literal["random", "clone"] = "random"
        """Where the actor begins: as drawn, or fitted to the demonstrations as the clone is (WSRL)."""
        critics_first: CountOrZero = 0
        """Updates of the critics alone, on demonstrations and the warm-up's steps, when learning begins: an actor that
        follows critics which know nothing yet loses all that it can."""
        reference: Literal["none", "choose", "correct"] = "none"
        """What the clone is good for afterwards. `choose`: of its action and the actor's the one with the higher value
        is taken, in acting and in targets (IBRL). `correct`: the actor adds to it (ResFiT)."""
        correction: Positive = 0.5
        """Largest correction, where the actor corrects; actions reach from -1 to 1."""
        correction_weight: PositiveOrZero = 0.0
        """In the actor's loss, the mean square of corrections, in units of the largest one, times this and the batch's
        mean |Q|: where values hardly differ, corrections drift with the critics' errors (ResFiT's penalty)."""
        exploration_std: PositiveOrZero | None = None
        """Standard deviation of Gaussian noise on the actor's actions, cut at 0.3 (`NOISE_CLIP`), in acting and in
        learning; there is no temperature then, and the actor's own std is without use (VRL3, IBRL, ResFiT). None:
        SAC's, learnt."""

        @model_validator(mode="after")
        def _subset_of_critics(self) -> RLPD.Config:
            if self.subset > self.critics:
                raise mistake(
                    "subset",
                    f"RLPD.subset is {self.subset}, more than RLPD.critics, {self.critics}",
                    "choose a subset of as many or fewer",
                )
            if self.soft_bound and not self.bounded_targets:
                raise mistake(
                    "soft_bound",
                    "RLPD.soft_bound is of bounded targets, and RLPD.bounded_targets is False",
                    "set RLPD.bounded_targets = True too",
                )
            if self.trunk and self.principal:
                raise mistake(
                    "principal",
                    "RLPD.trunk and RLPD.principal both narrow the features",
                    "leave one of them out",
                )
            if self.correction_weight and self.reference != "correct":
                raise mistake(
                    "correction_weight",
                    f"RLPD.correction_weight is of corrections, and RLPD.reference is {self.reference!r}",
                    "set RLPD.reference = 'correct', or leave the weight out",
                )
            return self

        def clones(self) -> bool:
            """Is a clone needed?"""
            return self.reference != "none" or (self.warm_up == "clone" and self.init_steps > 0)

        def at_once(self) -> RLPD.Config:
            """Without the critics' own updates too."""
            return super().at_once().model_copy(update={"critics_first": 0})  # type: ignore[return-value]

        def kept_views(self) -> int:
            """As many as are asked for."""
            return self.views

        def kept_features(self, features: int) -> int:
            """Components, if so, of every view."""
            return self.views * (self.principal or features)

        def misfit(self, run: Parts) -> Iterable[Mistake]:
            """A clone of pictures: it sees a frozen encoder's features. Views of no pictures."""
            yield from super().misfit(run)
            if self.views > 1 and run.encoder.frames() is None:
                yield Mistake(
                    "agent",
                    f"RLPD.views is {self.views}, but {run.encoder.component.__name__} sees no pictures",
                    "set `RLPD.views = 1`, or take an encoder of pictures",
                )
            if run.encoder.component.trainable and build(run.env).privileged:
                yield Mistake(
                    "encoder",
                    "RLPD's critics see a privileged state alone: nothing would train "
                    f"{run.encoder.component.__name__}",
                    "take a frozen encoder, or leave the privileged state out",
                )
            if self.clones() and run.encoder.component.trainable:
                yield Mistake(
                    "encoder",
                    f"RLPD's clone needs a frozen encoder, but {run.encoder.component.__name__} learns",
                    "take a frozen encoder, or set RLPD.reference = 'none' and RLPD.warm_up = 'random'",
                )

    metrics = {  # noqa: RUF012
        "sac/alpha": "temperature {:.3f}",
        "sac/q": "Q {:.1f}",
        "critics/gap": "above returns by {:.1f}",
        "critics/impossible": "impossible {:.1%}",
    }
