"""What is to be known of an encoder before it is made: its settings, the pictures it asks for, what it goes with."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal, Self

from rrl.envs.base import EnvFactory, FrameRequest
from rrl.registry import Component, Mistake, Parts, build

Precision = Literal["fp32", "bf16", "int8"]


class Encoder(Component):
    """What is to be known of an encoder before it is made; what to write of one: `rrl.encoders.base.Encoder`."""

    implemented_in = "rrl.encoders.base"
    kind: ClassVar[str] = "encoder"
    backends: ClassVar[tuple[str, ...] | None] = ("torch",)
    """Names of the backends that `inference` can compute with; None: every registered one."""
    has_loss: ClassVar[bool] = False
    """Can it be trained on a loss of its own (`PixelEncoder.loss`)?"""
    each_picture: ClassVar[bool] = False
    """Does it see each camera's newest picture by itself, and all of it?"""
    trainable: ClassVar[bool] = False
    """Does it learn with an agent? Such an encoder is no frozen one, and only some agents take it."""
    packages: ClassVar[tuple[str, ...]] = ("torch",)
    """Distributions that decide what it computes."""

    class Config(Component.Config):
        """Settings shared by all encoders: none. `label` says UNTRAINED or blind where that is so."""

        def misfit(self, run: Parts) -> Iterable[Mistake]:
            """A policy that would see nothing, or nothing of the task's objects without saying so."""
            env: EnvFactory = build(run.env)
            if self.frames() is not None:
                return
            if not env.has_state:
                yield Mistake(
                    "encoder",
                    "this policy would see nothing: no pictures and no state",
                    f"set `{env.oracle}`, or take an encoder of pictures",
                )
            elif env.blind_state and not self.blind_on_purpose:
                yield Mistake(
                    "encoder",
                    f"this policy would be blind: {self.component.__name__} sees no pictures and the state holds "
                    "no object",
                    f"{self.blindfold}for the oracle `{env.oracle}`",
                )

        @property
        def blind_on_purpose(self) -> bool:
            """Does the config itself say that the policy is to see nothing? (A control.)"""
            return False

        @property
        def blindfold(self) -> str:
            """What an error says of how to be blind on purpose; empty where that can't be."""
            return ""

        def today(self, facts: Mapping[str, str]) -> Self:
            """The same settings in today's words, of a run that recorded these `facts`: where a setting's values
            have got other names since. Pure."""
            return self

        @abc.abstractmethod
        def frames(self) -> FrameRequest | None:
            """The pictures this encoder needs; None: none at all. Pure: evaluated while validating."""

    @classmethod
    def blind_control(cls) -> Encoder.Config | None:
        """The settings with which this encoder is blind on purpose: what a blind control acts with. None: it isn't."""
        return None


def same_weights(one: str, other: str) -> bool:
    """Do two values of the fact `weights` mean the same tensors? What stands before the checksum is how a run's
    configuration called them: a name, or `file`."""
    return one.rpartition(":")[2] == other.rpartition(":")[2]
