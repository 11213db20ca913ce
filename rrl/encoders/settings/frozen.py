"""Settings that frozen encoders share, of which the first is where their weights are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from rrl.encoders import pretrained
from rrl.encoders.pretrained import Pretrained
from rrl.encoders.settings.base import Encoder, same_weights
from rrl.envs.base import FrameRequest
from rrl.registry import Component, InputFile, Seed


def _words(component: type[Component]) -> set[str]:
    """Words for published weights, which are no paths."""
    return {word for source in getattr(component, "pretrained", ()) for word in source.words}


WEIGHTS_REMEDY = "name a .safetensors or .pth file of the network's tensors; None: untrained"
Weights = Annotated[str | None, InputFile(names=_words, remedy=lambda: WEIGHTS_REMEDY)]


def by_hand(*published: Pretrained) -> InputFile:
    """The mark of `weights` of an encoder whose published files users get by hand."""
    return InputFile(remedy=lambda: pretrained.by_hand(*published))


class FrozenEncoder(Encoder):
    """What is to be known of frozen encoders; what to write of one: `rrl.encoders.frozen.FrozenEncoder`."""

    implemented_in = "rrl.encoders.frozen"
    backends = None
    each_picture = True
    pretrained: ClassVar[tuple[Pretrained, ...]]

    class Config(Encoder.Config):
        """Settings shared by frozen encoders."""

        weights: Weights = "imagenet"
        """'imagenet' (the published file: torch hub's cache, else a download), the path of a
        .safetensors or torchvision .pth file, relative to the gin file, or None: explicitly untrained."""
        seed: Seed = 0
        """Seed of an untrained network's weights; without effect otherwise."""

        @property
        def network(self) -> str:
            """Name of one of the encoder's `pretrained`: of the first, where no subclass says otherwise."""
            return self._known()[0].name

        @property
        def source(self) -> Pretrained:
            """What is known of that network."""
            return next(source for source in self._known() if source.name == self.network)

        def _known(self) -> tuple[Pretrained, ...]:
            known = getattr(self.component, "pretrained", ())
            if not known or not isinstance(known, tuple):
                raise TypeError(f"{self.component.__name__}.pretrained must be a tuple of one Pretrained or more")
            return known

        def label(self) -> str:
            """The class name, with whose weights they are, if not the published ones, or a warning."""
            wheel = self.source.wheel
            other = f" ({wheel.word})" if wheel and self.weights == wheel.word else ""
            untrained = self.weights is None and self.source.learnt
            return super().label() + (" (UNTRAINED)" if untrained else other)

        def today(self, facts: Mapping[str, str]) -> Self:
            """Earlier versions called a wheel's weights as the published ones; the checksum tells."""
            wheel, recorded = self.source.wheel, facts.get("weights", "")
            if wheel and self.weights == self.source.trained_on and same_weights(recorded, wheel.checksum):
                return self.model_copy(update={"weights": wheel.word})
            return self

        def frames(self) -> FrameRequest | None:
            """As the network's input says."""
            return self.source.input.frames()
