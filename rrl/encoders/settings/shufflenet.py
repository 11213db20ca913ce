"""Settings of ShuffleNetV2, and what is published of it."""

from __future__ import annotations

from rrl.encoders.input import IMAGENET
from rrl.encoders.pretrained import Pretrained
from rrl.encoders.settings.frozen import FrozenEncoder
from rrl.registry import register


@register
class ShuffleNetV2(FrozenEncoder):
    """ShuffleNetV2 x1.0 (1024 features per camera), network and pictures as torchvision's IMAGENET1K_V1."""

    implemented_in = "rrl.encoders.shufflenet"
    packages = ("torch", "torchvision")
    pretrained = (
        Pretrained(
            "shufflenet_v2_x1_0",
            1024,
            IMAGENET,
            "https://download.pytorch.org/models/shufflenetv2_x1-5666bf0f80.pth",
            classifier="fc.",
        ),
    )

    class Config(FrozenEncoder.Config):
        """Settings of `ShuffleNetV2`."""
