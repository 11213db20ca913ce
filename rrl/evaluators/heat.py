"""Grad-CAM's arithmetic: maps of what a network's features, or a policy's actions, answer to."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rrl.encoders.base import Encoder
from rrl.registry import UserError

Action = Callable[[Tensor], Tensor]
"""Rows of features and state [N, n] -> mean actions [N, m], with gradients."""


def mean_action(policy: Any) -> Action:
    """The policy's, of rows on any device; UserError if it has none."""
    if not hasattr(policy, "mean_action"):
        raise UserError(f"{type(policy).__name__} gives no mean action as a function of features")

    def action(row: Tensor) -> Tensor:
        mean: Tensor = policy.mean_action(row.to(policy.device))
        return mean

    return action


def heat(
    encoder: Encoder, frames: NDArray[np.uint8], state: NDArray[np.float32], action: Action | None = None
) -> NDArray[np.float32]:
    """Maps [K, cameras, H, W] of frames [K, H, W, 3 * cameras] and states [K, p], each stretched to [0, 1] by itself:
    of the length of the mean action if `action` is given, else of the feature vector's. UserError where the network has
    no maps."""
    try:
        import pytorch_grad_cam
    except ImportError as error:  # OpenCV's, of a library of the system
        raise UserError(
            f"Grad-CAM can't be drawn: {error}\n  on Debian and Ubuntu: apt-get install libglib2.0-0"
        ) from error

    explained = _Explained(encoder, action)
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2)
    cam = pytorch_grad_cam.GradCAM(explained, [last_map(explained.encoder, torch.from_numpy(frames[:1]))])
    maps = []
    for picture, beside in zip(pictures, torch.from_numpy(state), strict=True):  # one at a time: memory
        explained.state = beside[None]
        maps.append(cam(picture[None], [torch.linalg.vector_norm]))
    heat = np.stack(maps).astype(np.float32)
    if not np.isfinite(heat).all():
        raise UserError("the maps are not finite: see that the weights are whole")
    return heat


class _Explained(nn.Module):
    """Pictures uint8 [1, 3 * cameras, H, W] -> the vector whose length is explained, [1, d]."""

    def __init__(self, encoder: Encoder, action: Action | None) -> None:
        super().__init__()
        # Gradients reach no layer of a network whose weights take none.
        self.encoder = copy.deepcopy(encoder).cpu().requires_grad_(True)
        self.action = action
        self.state = torch.zeros(1, 0)

    def forward(self, pictures: Tensor) -> Tensor:
        features: Tensor = self.encoder(pictures.permute(0, 2, 3, 1))
        return features if self.action is None else self.action(torch.cat((features, self.state), dim=1))


def last_map(encoder: Encoder, frames: Tensor) -> nn.Module:
    """The last layer with places in its output, [N, channels, h, w]; UserError where the last ones have no such maps,
    but a transformer's tokens."""
    found: list[tuple[nn.Module, tuple[int, ...]]] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim > 2 and min(output.shape[-2:]) > 1:
            found.append((module, tuple(output.shape)))

    handles = [module.register_forward_hook(note) for module in encoder.modules()]
    try:
        with torch.no_grad():
            encoder(frames)
    finally:
        for handle in handles:
            handle.remove()
    ran = [module for module, _ in found]
    maps = [(module, shape) for module, shape in found if ran.count(module) == 1]  # else which of its outputs?
    if not maps or len(maps[-1][1]) != 4 or maps[-1][1][-1] != maps[-1][1][-2]:
        shape = f": its last layers give {list(maps[-1][1])}" if maps else ""
        raise UserError(
            f"Grad-CAM needs a network of convolutions, whose last layers give maps [N, channels, h, w]{shape}"
        )
    return maps[-1][0]
