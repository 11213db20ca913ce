"""Settings of the VAE."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from rrl.encoders.input import Input
from rrl.encoders.pretrained import Pretrained
from rrl.encoders.settings.task import TaskEncoder
from rrl.registry import Width, register

CHANNELS = (32, 64, 128, 256, 512)
HALVED = 2 ** len(CHANNELS)
"""Each convolution halves the side of the picture."""


@register
class VAE(TaskEncoder):
    """A VAE of the task's own pictures (512 features per camera), as `rrl pretrain` trains it (paper's RRL(VAE))."""

    implemented_in = "rrl.encoders.vae"
    pretrained = (Pretrained("vae", 512, Input(64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))),)
    defaults = {"latent": 512, "size": 64}  # noqa: RUF012

    class Config(TaskEncoder.Config):
        """Settings of `VAE`."""

        latent: Width | None = None
        """Numbers of the latent, of which the means are the features. None: as in the file of `weights`; where there is
        none, 512 (paper section 5; the credited code's own default is 128)."""
        size: Annotated[int, Field(ge=HALVED, le=512, multiple_of=HALVED)] | None = None
        """Side of the pictures in pixels, which show the whole view. None: as in the file of `weights`; where there is
        none, 64 (the credited code's; the paper's is not known)."""

        @property
        def source(self) -> Pretrained:
            known, decided = super().source, self.decided
            picture = replace(known.input, size=decided["size"])
            return replace(known, features=decided["latent"], input=picture)
