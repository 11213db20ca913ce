"""ResNet: the paper's encoder (sections 3 and 4; ResNet34 is its default)."""

from __future__ import annotations

from typing import Literal

import torchvision
from torch import nn

from rrl.encoders.imagenet import FrozenImageNet
from rrl.encoders.weights import Pretrained
from rrl.registry import register

DOWNLOAD = "https://download.pytorch.org/models/"
FILES = {18: "resnet18-f37072fd.pth", 34: "resnet34-b627a593.pth", 50: "resnet50-0676ba61.pth"}


@register
class ResNet(FrozenImageNet):
    """ResNet-18 or -34 (512 features per camera) or -50 (2048), as torchvision's IMAGENET1K_V1."""

    pretrained = tuple(Pretrained(f"resnet{depth}", DOWNLOAD + file, "fc.") for depth, file in FILES.items())

    class Config(FrozenImageNet.Config):
        """Settings of `ResNet`."""

        depth: Literal[18, 34, 50] = 34
        """Layers; 34 is the paper's (the ablation of its section 5 compares the sizes)."""

        @property
        def network(self) -> str:
            """Which of `ResNet.pretrained`."""
            return f"resnet{self.depth}"

    def make_network(self) -> nn.Module:
        """torchvision's network; its last linear layer is removed."""
        network: nn.Module = torchvision.models.get_model(self.source.name)
        network.fc = nn.Identity()
        return network
