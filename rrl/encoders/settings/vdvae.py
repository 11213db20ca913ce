"""Settings of VDVAE, and what is published of it."""

from __future__ import annotations

from typing import Annotated, Literal

from rrl.encoders.input import Input
from rrl.encoders.pretrained import Checkpoint, Pretrained
from rrl.encoders.settings.frozen import FrozenEncoder, by_hand
from rrl.registry import register

WIDTH = 512
"""Channels of all maps, and so features."""
ASSETS = "https://openaipublic.blob.core.windows.net/very-deep-vaes-assets/"
CHECKPOINT = Checkpoint(prefix="encoder.", unused=("decoder.",))
SPREAD = 69.37404
"""`data.py` divides pictures in [0, 255] by it, of both sizes."""


def picture(size: int, mean: float) -> Input:
    """The whole view; mean and spread are of pictures in [0, 255], the same for all channels."""
    return Input(size, (mean / 255,) * 3, (SPREAD / 255,) * 3)


PUBLISHED = (
    Pretrained(
        "vdvae64",
        WIDTH,
        picture(64, 115.92961967),
        checkpoint=CHECKPOINT,
        address=ASSETS + "vdvae-assets-2/imagenet64-iter-1600000-model-ema.th",
    ),
    Pretrained(
        "vdvae32",
        WIDTH,
        picture(32, 116.2373),
        checkpoint=CHECKPOINT,
        address=ASSETS + "vdvae-assets/imagenet32-iter-1700000-model-ema.th",
    ),
)


@register
class VDVAE(FrozenEncoder):
    """The encoder of an ImageNet VDVAE (512 features per camera) of 64-px pictures, or of 32-px ones."""

    implemented_in = "rrl.encoders.vdvae"
    pretrained = PUBLISHED

    class Config(FrozenEncoder.Config):
        """Settings of `VDVAE`."""

        size: Literal[64, 32] = 64
        """Side of the pictures in pixels, and which of the two published ImageNet networks it is."""
        weights: Annotated[str | None, by_hand(*PUBLISHED)]
        """Path of the published file, imagenet64-iter-1600000-model-ema.th or imagenet32-iter-1700000-model-ema.th (of
        which the encoder's tensors are read), or of a .safetensors or .pth file of the encoder's tensors, relative to
        the gin file; None: explicitly untrained."""

        def label(self) -> str:
            """With the size, where it is the smaller one: `VDVAE32`."""
            return super().label().replace("VDVAE", "VDVAE32" if self.size == 32 else "VDVAE", 1)

        @property
        def network(self) -> str:
            """vdvae64 or vdvae32."""
            return f"vdvae{self.size}"
