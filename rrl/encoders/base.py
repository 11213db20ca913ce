"""The interface of encoders: pictures in, feature vectors out."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from rrl.envs.base import FrameRequest
from rrl.registry import Component

Precision = Literal["fp32", "bf16"]


class Encoder(nn.Module, Component, abc.ABC):
    """Maps frames uint8 [N, H, W, 3 * cameras] to features float32 [N, dim].

    A frozen encoder encodes each camera by itself and concatenates the features in camera order
    (paper section 4; the cameras' order is the environment's).
    """

    kind: ClassVar[str] = "encoder"
    dim: int
    """Length of the feature vector, all cameras together."""

    class Config(Component.Config):
        """Settings shared by all encoders: none."""

        @abc.abstractmethod
        def frames(self) -> FrameRequest | None:
            """The pictures this encoder needs; None: none at all. Pure: evaluated while validating."""

    def __init__(self, config: Component.Config, cameras: int) -> None:
        super().__init__()
        self.config = config
        self.cameras = cameras

    @abc.abstractmethod
    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [N, H, W, 3 * cameras] -> float32 [N, dim]."""

    @property
    def learns(self) -> bool:
        """True if any parameter takes gradients."""
        return any(p.requires_grad for p in self.parameters())

    @property
    def trained(self) -> bool:
        """False for an explicitly untrained network (`weights = None`): runs then say so everywhere."""
        return True

    def facts(self) -> dict[str, str]:
        """What a run's tags and a feature cache's key must say, such as the weights' checksum."""
        return {}

    @abc.abstractmethod
    def inference(self, precision: Precision, device: torch.device) -> Callable[[Tensor], Tensor]:
        """A function equal to `forward` up to `precision`, made for speed: fused and cast copies, never
        saved in a checkpoint. Takes uint8 frames on any device; returns float32 [N, dim] on `device`."""
