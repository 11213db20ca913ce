"""What a pretrained network takes as a picture: data that belong to its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rrl.envs.base import FrameRequest

if TYPE_CHECKING:
    from torch import Tensor

Channels = tuple[float, float, float]
"""A number for red, green and blue."""


@dataclass(frozen=True)
class Input:
    """The pictures that a network was trained on, as its weights' publisher describes them. Square, RGB."""

    size: int
    """Side of the picture that the network sees, in pixels."""
    mean: Channels
    """Subtracted from the channels of pictures in [0, 1]."""
    std: Channels
    """What these are divided by afterwards."""
    crop_from: int | None = None
    """Side in pixels of the resized picture whose centre `size` the network saw; None: it saw the whole picture."""
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    """How the publisher resized pictures to `crop_from`. Said for whoever encodes pictures of another size: runs
    render what `frames` asks for, and resize nothing."""
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    """Axes of the network's input: channels first, as torch's layers have them, or last."""

    def frames(self) -> FrameRequest:
        """The pictures to be rendered: uint8 [size, size, 3]."""
        return FrameRequest(self.size, self.crop_from or self.size)

    def affine(self) -> tuple[Tensor, Tensor]:
        """(scale, shift): `(x / 255 - mean) / std` is `scale * x + shift`, in the network's layout."""
        import torch

        shape = (1, 3, 1, 1) if self.layout == "NCHW" else (1, 1, 1, 3)
        mean, std = torch.tensor(self.mean).view(shape), torch.tensor(self.std).view(shape)
        return 1 / (255 * std), -mean / std

    def normalised(self, pictures: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """uint8 [N, size, size, 3] -> what the network takes, float32; `scale` and `shift`: those of `affine`."""
        ordered = pictures.permute(0, 3, 1, 2) if self.layout == "NCHW" else pictures
        return shift.addcmul(ordered.float(), scale)


IMAGENET = Input(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop_from=256)
"""As torchvision's IMAGENET1K_V1 weights say it (`torchvision.transforms._presets.ImageClassification`; paper section
4): the shorter side resized to 256 pixels, the centre 224 of them, ImageNet's mean and standard deviation."""
