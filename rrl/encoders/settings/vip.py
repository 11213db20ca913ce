"""Settings of VIP, and what is published of it."""

from __future__ import annotations

from typing import Annotated

from rrl.encoders.input import IMAGENET
from rrl.encoders.pretrained import Checkpoint, Pretrained
from rrl.encoders.settings.frozen import FrozenEncoder, by_hand
from rrl.registry import register

PUBLISHED = Pretrained(
    "vip",
    1024,
    IMAGENET,
    checkpoint=Checkpoint("vip", "convnet."),
    address="https://pytorch.s3.amazonaws.com/models/rl/vip/model.pt",
)


@register
class VIP(FrozenEncoder):
    """VIP's ResNet-50 (1024 features per camera)."""

    implemented_in = "rrl.encoders.vip"
    packages = ("torch", "torchvision")
    pretrained = (PUBLISHED,)

    class Config(FrozenEncoder.Config):
        """Settings of `VIP`."""

        weights: Annotated[str | None, by_hand(PUBLISHED)]
        """Path of the published `model.pt`, or of a .safetensors or .pth file of the network's tensors, relative to the
        gin file; None: explicitly untrained."""
