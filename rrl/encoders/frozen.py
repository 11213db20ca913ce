"""Frozen pretrained networks as encoders: what all of them share.

Pictures as the weights' publisher describes them (`Input`), the network without its classifier, evaluation mode, no
gradients (paper section 4 and the authors' released code).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from rrl.encoders import backends, weights
from rrl.encoders.base import Encoder, Inference
from rrl.encoders.input import IMAGENET
from rrl.encoders.settings import frozen as settings
from rrl.encoders.settings.frozen import Weights as Weights
from rrl.encoders.settings.frozen import by_hand as by_hand
from rrl.registry import UserError


class FrozenEncoder(settings.FrozenEncoder, Encoder):
    """Base of frozen encoders: a subclass describes its networks and their weights, and makes the network.

    `pretrained = (Pretrained("tiny", features=48, input=Input(96, mean, std)),)`, with `Pretrained` of
    `rrl.encoders.weights` and `Input` of `rrl.encoders.input` (mean and std of pixels in [0, 1]), is a network without
    published weights: its file, in `weights`, holds what `make_network().state_dict()` does. Give such an encoder a
    default of its own: `weights: str | None = None` in its Config.
    """

    delicate: ClassVar[int] = 0
    """How many of the network's first layers that compute (convolutions, linear layers) keep float32 whatever the
    precision of `inference`."""

    config: settings.FrozenEncoder.Config
    scale: Tensor
    shift: Tensor

    def __init__(self, config: settings.FrozenEncoder.Config, cameras: int) -> None:
        """Raises WeightsError, with what to do, if the weights cannot be had or the file doesn't fit."""
        super().__init__(config, cameras)
        if cameras < 1:
            raise ValueError(f"{type(self).__name__} encodes pictures: needs 1 camera or more, got {cameras}")
        self.source = config.source
        self.dim = self.source.features * cameras
        file = None
        if config.weights is not None:
            file = weights.resolve(self.source, config.weights, type(self).__name__).path
        # Building draws initial weights: from the config's seed, and never from the run's own generator.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = self.make_network() if file is None else self.load_network(file)
        # Not in the state dict, which is the network's alone.
        scale, shift = self.source.input.affine()
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.requires_grad_(False)
        self.eval()

    @abc.abstractmethod
    def make_network(self) -> nn.Module:
        """A new network: normalised float32 [N, 3, size, size], or the layout of `source.input` -> [N, features]."""

    def load_network(self, file: Path) -> nn.Module:
        """A new network with the tensors of a weights file; WeightsError if they aren't its own."""
        network = self.make_network()
        weights.load(file, self.source, network)
        return network

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [N, size, size, 3 * cameras] -> float32 [N, dim]; ValueError for other pictures."""
        scale, shift = self.scale.to(frames.device), self.shift.to(frames.device)
        features: Tensor = self.network(self.source.input.normalised(self._pictures(frames), scale, shift))
        return self._rows(features, frames.shape[0])  # not len(): torch.export takes that for a constant

    def _rows(self, features: Tensor, count: int) -> Tensor:
        """[count * cameras, features] -> [count, dim]; UserError if the network gives another number."""
        if features.numel() != count * self.dim:
            name, wide = type(self).__name__, features.numel() // max(count * self.cameras, 1)
            raise UserError(
                f"{name}.make_network gives {wide} features per picture, its `pretrained` says {self.source.features}"
            )
        return features.reshape(count, self.dim)

    def _pictures(self, frames: Tensor) -> Tensor:
        """uint8 [N, size, size, 3 * cameras] -> uint8 [N * cameras, size, size, 3]; a view of one camera's."""
        size, channels = self.source.input.size, 3 * self.cameras
        if frames.dtype != torch.uint8 or frames.shape[1:] != (size, size, channels):
            raise ValueError(
                f"{type(self).__name__} for {self.cameras} camera(s) takes "
                f"uint8 [N, {size}, {size}, {channels}], got {frames.dtype} {list(frames.shape)}: "
                "render what `Config.frames()` asks for"
            )
        return frames.reshape(-1, size, size, self.cameras, 3).movedim(3, 1).flatten(0, 1)

    def feature_name(self, i: int) -> str:
        """With the camera, counted from 1 in the environment's order."""
        camera, number = divmod(i, self.source.features)
        return f"{super().feature_name(number)}" + (f" of camera {camera + 1}" if self.cameras > 1 else "")

    def train(self, mode: bool = True) -> FrozenEncoder:
        """A frozen network stays in evaluation mode, whatever its owner does."""
        return super().train(False)

    @property
    def interpolation(self) -> str:
        """As the weights' publisher resizes pictures."""
        return self.source.input.interpolation

    @property
    def trained(self) -> bool:
        """False for `weights = None`, where there are weights."""
        return self.config.weights is not None or not self.source.learnt

    def facts(self) -> dict[str, str]:
        """`weights`: where from, and the checksum of the tensors in use. `input`: where it isn't ImageNet's."""
        if not self.source.learnt:
            origin = "none"
        elif self.config.weights is None:
            origin = f"untrained:seed{self.config.seed}"
        else:
            origin = self.config.weights if self.config.weights in self.source.words else "file"
        input_facts = {} if self.source.input == IMAGENET else {"input": str(self.source.input)}
        return {"weights": f"{origin}:{weights.checksum(self.network.state_dict())}", **input_facts}

    def inference(self, how: Inference) -> Callable[[Tensor], Tensor]:
        """`forward` as `how` says, with batch norms folded into the convolutions.

        float32 agrees with `forward` to a relative 1e-4 on every backend (no TF32 on GPUs). bfloat16 and
        int8 leave the first `delicate` layers in float32. Use one precision for demonstrations,
        training and evaluation; `rrl bench encoders` shows what each does to features. Warns where the CPU
        has no bfloat16, and where int8 features turn out poor. On CUDA with `how.batch`, batches are padded
        to it and run as one compiled CUDA graph.
        """
        if how.calibration is not None:
            pictures = self._pictures(torch.from_numpy(how.calibration))
            how = replace(how, calibration=pictures.numpy())
        encode = backends.encode(self.network, self.source.input, how, self.delicate)
        return lambda frames: self._rows(encode(self._pictures(frames)), len(frames))
