"""The interface of encoders: pictures in, feature vectors out."""

from __future__ import annotations

import abc
import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rrl.encoders.settings import base as settings
from rrl.encoders.settings.base import Precision as Precision
from rrl.encoders.settings.base import same_weights as same_weights
from rrl.envs.base import EnvFactory
from rrl.registry import Component, UserError


@dataclass(frozen=True)
class Inference:
    """How an encoder computes while a run goes on: made for speed, never saved in a checkpoint. One that
    learns takes `precision` and `device` alone."""

    backend: str = "torch"
    """Name of a registered backend (`rrl.encoders.backends`)."""
    precision: Precision = "fp32"
    """`int8` needs a backend that has it, and `calibration`."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where features are computed and returned."""
    threads: int = 1
    """CPU threads of other backends than torch, whose are set for the process."""
    batch: int | None = None
    """Pictures of all cameras per call, where it is always the same: CUDA compiles for it. None: any."""
    calibration: NDArray[np.uint8] | None = None
    """Frames [K, H, W, 3 * cameras] that int8's ranges are taken from."""


class Mismatch(NamedTuple):
    """What is otherwise in a run than in the pictures that its encoder was trained on."""

    text: str
    serious: bool
    """Is it another task?"""


class Encoder(nn.Module, settings.Encoder, abc.ABC):
    """Maps frames uint8 [N, H, W, 3 * cameras * stack] to features float32 [N, dim].

    A frozen pretrained network encodes each camera by itself and concatenates the features in camera order
    (paper section 4; the cameras' order is the environment's). Encoders that learn with an agent
    (`rrl.encoders.pixel`) see all cameras and stacked frames at once, on the channel axis.
    """

    dim: int
    """Length of the feature vector, all cameras together."""

    def __init__(self, config: Component.Config, cameras: int) -> None:
        super().__init__()
        self.config = config
        self.cameras = cameras

    @abc.abstractmethod
    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [N, H, W, 3 * cameras * stack] -> float32 [N, dim]."""

    @property
    def interpolation(self) -> str:
        """How pictures of another size than `Config.frames()` says are resized, as torchvision calls it."""
        return "bilinear"

    @property
    def learns(self) -> bool:
        """True if any parameter takes gradients."""
        return any(p.requires_grad for p in self.parameters())

    @property
    def trained(self) -> bool:
        """False for an explicitly untrained network (`weights = None`): runs then say so everywhere."""
        return True

    def mismatches(self, env: EnvFactory) -> Iterable[Mismatch]:
        """What of this environment is otherwise than in the pictures that it was trained on, as far as it knows these:
        runs and reports tell it."""
        return ()

    def facts(self) -> dict[str, str]:
        """What tags, policy files, a resume and a feature cache's key must say: `weights`, a name and a checksum.

        By default that is the checksum of all parameters and buffers. An encoder that computes with anything else (a
        file that another library opens, say) adds its checksum: `super().facts() | {"onnx": ...}`.
        """
        return {"weights": "learned with the agent" if self.trainable else fingerprint(self)}

    def identity(self) -> dict[str, str]:
        """`facts`, and the checksum of its weights where a subclass's say nothing of them."""
        facts = self.facts()
        return facts if "weights" in facts else Encoder.facts(self) | facts

    def training_cost(self) -> Mapping[str, float]:
        """What `rrl pretrain` spent on its weights, as far as their file says: `seconds`, `multiply_adds`."""
        return {}

    def feature_name(self, i: int) -> str:
        """What an error calls number i of the `dim` features."""
        return f"feature {i} of {type(self).__name__}"

    @abc.abstractmethod
    def inference(self, how: Inference) -> Callable[[Tensor], Tensor]:
        """A function equal to `forward` up to `how.precision`: fused, compiled or quantised copies. Takes
        uint8 frames on any device; returns float32 [N, dim] on `how.device`. UserError where `how` asks
        for what is not installed or does not exist."""


MODULES_OWN = frozenset(vars(nn.Module()))
"""Where torch keeps parameters, buffers and submodules."""


def fingerprint(module: nn.Module) -> str:
    """12 hex digits of the sha256 over names, types, shapes and bytes of all parameters, buffers, and other tensors and
    arrays that its modules hold; `none` if there are none. UserError for weights that are drawn at the first use."""
    tensors = dict(module.named_parameters()) | dict(module.named_buffers()) | dict(_other_tensors(module))
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        if nn.parameter.is_lazy(tensor):
            raise UserError(
                f"{type(module).__name__}.{name} gets its weights at the first use, so nothing can say which they are: "
                "give its layer all sizes, or compute once in `__init__`"
            )
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12] if tensors else "none"


def _other_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Those in plain attributes, and in lists, tuples and dicts there, by their places."""

    def within(place: str, value: Any) -> Iterator[tuple[str, Tensor]]:
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            yield place, torch.from_numpy(np.array(value))
        elif isinstance(value, Tensor):
            yield place, value
        elif isinstance(value, list | tuple):
            for number, item in enumerate(value):
                yield from within(f"{place}.{number}", item)
        elif isinstance(value, dict):
            for key, item in value.items():
                yield from within(f"{place}.{key}", item)

    for name, part in module.named_modules():
        for attribute, value in vars(part).items():
            if attribute not in MODULES_OWN:
                yield from within(f"{name}.{attribute}", value)


def warn_of_emulation(how: Inference) -> None:
    """Say that this processor is about to emulate bf16, if it is."""
    if how.precision == "bf16" and how.device.type == "cpu" and not cpu_has_bf16():
        warnings.warn("this CPU emulates bf16, many times slower than fp32: set precision fp32", stacklevel=3)


def cpu_has_bf16() -> bool:
    """Does the processor compute in bf16, rather than emulate it many times slower?"""
    cpu = torch.cpu.get_capabilities()
    return bool(cpu.get("amx_bf16") or cpu.get("avx512_bf16"))
