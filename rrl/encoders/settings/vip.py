"""VIP: a ResNet-50 trained on people's videos to measure how far a goal is (Ma et al. 2022, arXiv 2210.00030).

Network, pictures and names of tensors as in github.com/facebookresearch/vip, whose README says CC BY-NC 4.0, not for
commercial use: the loader `vip/__init__.py` takes `vip` out of the file and gives it to a DataParallel of
`vip/models/model_vip.py`'s VIP, whose `convnet` is torchvision's network with an `fc` of its own.
"""

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
