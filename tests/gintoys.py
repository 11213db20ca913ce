"""Toy components for the tests of gin files."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import pydantic
from pydantic_core import PydanticCustomError

from rrl import registry
from rrl.registry import Component


class Encoder(Component):
    kind: ClassVar[str] = "encoder"

    class Config(Component.Config):
        pass


class Agent(Component):
    kind: ClassVar[str] = "agent"

    class Config(Component.Config):
        pass


class Env(Component):
    kind: ClassVar[str] = "environment"

    class Config(Component.Config):
        pass


class Evaluator(Component):
    kind: ClassVar[str] = "evaluator"

    class Config(Component.Config):
        pass


class ResNet(Encoder):
    """A residual network."""

    class Config(Encoder.Config):
        depth: Literal[18, 34, 50] = 34
        """Number of layers (table 1)."""
        weights: str | None = "imagenet"
        """Name or file of the weights; None: untrained."""


class VAE(Encoder):
    class Config(Encoder.Config):
        latent: int = pydantic.Field(default=32, ge=1, le=4096)
        """Size of the code."""
        inner: Encoder.Config | None = None
        """An encoder below this one."""


class State(Encoder):
    class Config(Encoder.Config):
        pass


class Adroit(Env):
    class Config(Env.Config):
        task: Literal["pen", "door", "hammer", "relocate"]
        """Which task."""
        size: tuple[int, ...] = (84, 84)
        """Side lengths in pixels."""


class DAPG(Agent):
    class Config(Agent.Config):
        step: Annotated[float, pydantic.Field(gt=0)] = 0.1
        """Trust region."""
        layers: tuple[int, ...] = (256, 256)
        """Hidden units."""
        damp: float | None = None
        """Damping."""
        fast: bool = False
        """Less exact."""

        @pydantic.field_validator("layers")
        @classmethod
        def _narrow(cls, value: tuple[int, ...]) -> tuple[int, ...]:
            if any(width > 4096 for width in value):
                raise ValueError("a layer this wide does not fit the memory")
            return value


class SuccessRate(Evaluator):
    class Config(Evaluator.Config):
        episodes: int = 100
        """How many."""
        label: str = ""
        """Name."""
        margins: tuple[float, float] = (0.0, 1.0)
        """Interval."""


class Video(Evaluator):
    class Config(Evaluator.Config):
        every: int = 10
        """Period."""


class Experiment(Component):
    """The run."""

    kind: ClassVar[str] = "experiment"

    class Config(Component.Config):
        env: Env.Config
        """Where it learns."""
        encoder: Encoder.Config
        """What it sees with."""
        agent: Agent.Config = pydantic.Field(default_factory=DAPG.Config)
        """How it learns."""
        target: Encoder.Config | None = None
        """A second encoder."""
        evaluators: tuple[Evaluator.Config, ...] = ()
        """What is measured."""
        seed: int = 0
        """Of all random numbers."""

        @pydantic.model_validator(mode="after")
        def _check(self) -> Experiment.Config:
            if isinstance(self.encoder, VAE.Config) and self.seed == 13:
                context = {"field": "encoder", "hint": "add `Experiment.seed = 14`"}
                raise PydanticCustomError("config", "VAE is afraid of seed 13", context)
            if isinstance(self.encoder, State.Config) and self.seed == 13:
                raise PydanticCustomError("config", "State brings bad luck", {"field": "target"})
            if self.seed == 666:
                raise ValueError("this seed is cursed")
            return self


ALL = (ResNet, VAE, State, Adroit, DAPG, SuccessRate, Video, Experiment)


def install(monkeypatch) -> None:
    """Let the registry know the toys and nothing else."""
    monkeypatch.setattr(registry, "_components", {})
    monkeypatch.setattr(registry, "_plugins_loaded", True)
    for cls in ALL:
        registry.register(cls)
