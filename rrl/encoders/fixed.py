"""FixedEncoder: what an encoder learned in a finished run, frozen (the paper's "fixed RAD encoder").

The file holds the convolutions and the critics' head, and in its header which encoder they belong to and
how that one is configured: so the frames, their stack and the view are its own too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rrl.encoders.base import Encoder, Inference, warn_of_emulation
from rrl.encoders.pixel import PixelEncoder, exactly
from rrl.encoders.settings import fixed as settings
from rrl.encoders.weights import WeightsError, checksum
from rrl.registry import build
from rrl.store import checkpoint


def save_encoder(path: Path, encoder: PixelEncoder, head: nn.Module, facts: Mapping[str, Any]) -> None:
    """Write the file that `FixedEncoder.file` takes. `head`: the critics' one, made by `encoder.head`.
    `facts`: JSON-able values that say where it comes from (run, steps, ...)."""
    tensors = {f"source.{name}": t for name, t in encoder.state_dict().items() if _needed(name)}
    tensors |= {f"head.{name}": t for name, t in head.state_dict().items()}
    values = {
        "encoder": type(encoder).__name__,
        "encoder_config": encoder.config.model_dump(mode="json"),
        "cameras": encoder.cameras,
        "checksum": checksum(tensors),
    }
    checkpoint.save_file(path, tensors, {**facts, **values})


def _needed(name: str) -> bool:
    """False for what only the encoder's own loss uses."""
    return not name.startswith("objective.")


class FixedEncoder(settings.FixedEncoder, Encoder):
    """A learned encoder, frozen: the critics' code of the centre view of all cameras' stacked frames.

    Convolutions, linear layer and LayerNorm (SAC+AE: tanh too) as the run left them, without augmentation.
    """

    config: settings.FixedEncoder.Config

    def __init__(self, config: settings.FixedEncoder.Config, cameras: int) -> None:
        """Raises WeightsError if the file is for another number of cameras, or damaged."""
        super().__init__(config, cameras)
        header = settings.read_header(config.file)
        if cameras != header.cameras:
            raise WeightsError(
                f"{header.path} was trained on {header.cameras} camera(s); this environment has {cameras}\n"
                f"  choose {header.cameras} camera(s) in the environment, or another file"
            )
        self.source: PixelEncoder = build(header.source, cameras=cameras)
        self.source.objective = nn.Module()
        self.head = self.source.head(torch.Generator().manual_seed(0))
        self.dim = self.source.code_dim
        tensors, _ = checkpoint.load_file(header.path)
        if checksum(tensors) != header.checksum:
            raise WeightsError(f"{header.path} was changed after its export\n  export it again")
        try:
            self.load_state_dict(tensors)
        except RuntimeError as error:
            raise WeightsError(
                f"{header.path} doesn't hold a {type(self.source).__name__} and its head\n  {error}"
            ) from error
        self.requires_grad_(False)
        self.eval()

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [N, render, render, 3 * cameras * stack] -> float32 [N, dim]. ValueError for others."""
        codes: Tensor = self.head(self.source(frames))
        return codes

    def train(self, mode: bool = True) -> FixedEncoder:
        """A frozen network stays in evaluation mode, whatever its owner does."""
        return super().train(False)

    def facts(self) -> dict[str, str]:
        """`weights`: which encoder they are of, and their checksum."""
        return {"weights": f"{type(self.source).__name__}:{checksum(self.state_dict())}"}

    def inference(self, how: Inference) -> Callable[[Tensor], Tensor]:
        """`forward` in float32 (no TF32), or in bf16 as agents train it. Moves the encoder to `how.device`.
        UserError for another precision or backend."""
        if how.precision != "bf16" or how.backend != "torch":
            return exactly(self, how)
        warn_of_emulation(how)
        rough = copy.deepcopy(self)
        rough.source.mixed = True
        return exactly(rough, replace(how, precision="fp32"))
