"""The yardstick of `rrl bench encoders`: pictures to features in the shape of the original RRL code.

Pictures of 256 x 256 pixels, one at a time: PIL and torchvision transforms (resize 256, centre crop 224,
ImageNet's mean and standard deviation), then a float32 network (paper section 4). Nothing here comes
from rrl but the network it is handed.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

TRANSFORM = transforms.Compose(
    [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


@torch.no_grad()
def encode(network: nn.Module, pictures: np.ndarray) -> np.ndarray:
    """uint8 [N, 256, 256, 3] -> float32 [N, features]; `network` takes float32 [1, 3, 224, 224]."""
    device = next(network.parameters()).device
    features = []
    for picture in pictures:
        x = TRANSFORM(Image.fromarray(picture)).unsqueeze(0).to(device)
        features.append(network(x)[0].cpu().numpy())
    return np.stack(features)
