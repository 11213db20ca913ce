"""The yardstick of `rrl bench encoders`: pictures to features in the shape of the original RRL code.

Pictures one at a time: PIL and torchvision transforms (as the authors: resize 256, centre crop 224,
ImageNet's mean and standard deviation), then a float32 network (paper section 4). Nothing here comes
from rrl but the network it is handed, and what its pictures look like.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import transforms


def transform(resize: int, crop: int, mean: tuple[float, ...], std: tuple[float, ...]) -> transforms.Compose:
    """PIL picture -> what the network takes: the side in pixels that it is resized to, of its centre."""
    steps = [transforms.Resize(resize), transforms.CenterCrop(crop), transforms.ToTensor()]
    return transforms.Compose([*steps, transforms.Normalize(mean, std)])


AUTHORS = transform(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@torch.no_grad()
def encode(network: nn.Module, pictures: np.ndarray, transform: transforms.Compose = AUTHORS) -> np.ndarray:
    """uint8 [N, side, side, 3] -> float32 [N, features]; `network` takes what `transform` gives."""
    device = next((each.device for each in network.parameters()), torch.device("cpu"))
    features = []
    for picture in pictures:
        x = transform(Image.fromarray(picture)).unsqueeze(0).to(device)
        features.append(network(x)[0].cpu().numpy())
    return np.stack(features)
