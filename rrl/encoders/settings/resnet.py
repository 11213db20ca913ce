"""Settings of ResNet, and what is published of it."""

from __future__ import annotations

from typing import Literal

from rrl.encoders.input import IMAGENET
from rrl.encoders.pretrained import Pretrained
from rrl.encoders.settings.frozen import FrozenEncoder
from rrl.registry import register

PUBLISHED = "https://download.pytorch.org/models/"


@register
class ResNet(FrozenEncoder):
    """ResNet-18 or -34 (512 features per camera) or -50 (2048), as torchvision's IMAGENET1K_V1."""

    implemented_in = "rrl.encoders.resnet"
    packages = ("torch", "torchvision")
    pretrained = (
        Pretrained("resnet18", 512, IMAGENET, PUBLISHED + "resnet18-f37072fd.pth", classifier="fc."),
        Pretrained("resnet34", 512, IMAGENET, PUBLISHED + "resnet34-b627a593.pth", classifier="fc."),
        Pretrained("resnet50", 2048, IMAGENET, PUBLISHED + "resnet50-0676ba61.pth", classifier="fc."),
    )

    class Config(FrozenEncoder.Config):
        """Settings of `ResNet`."""

        depth: Literal[18, 34, 50] = 34
        """Layers; the paper's encoder is 34."""

        def label(self) -> str:
            """With the depth: `ResNet34`."""
            return super().label().replace("ResNet", f"ResNet{self.depth}", 1)

        @property
        def network(self) -> str:
            """One of resnet18, resnet34, resnet50."""
            return f"resnet{self.depth}"
