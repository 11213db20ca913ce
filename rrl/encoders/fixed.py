"""FixedEncoder: what an encoder learned in a finished run, frozen (the paper's "fixed RAD encoder").

The file holds the convolutions and the critics' head, and in its header which encoder they belong to and
how that one is configured: so the frames, their stack and the view are its own too.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pydantic
import torch
from pydantic import field_validator
from torch import Tensor, nn

from rrl import registry
from rrl.config.resolve import refusals
from rrl.encoders.base import Encoder, Inference, warn_of_emulation
from rrl.encoders.pixel import PixelEncoder, exactly
from rrl.encoders.weights import WeightsError, checksum
from rrl.envs.base import FrameRequest
from rrl.machine.paths import expanded
from rrl.registry import InputFile, UserError, build, mistake, register
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


def _remedy() -> str:
    agents = registry.proposals("agent", trains_encoder=True)
    return f"make it from a finished run of {agents}: rrl export RUN --encoder FILE"


def _needed(name: str) -> bool:
    """False for what only the encoder's own loss uses."""
    return not name.startswith("objective.")


@dataclass(frozen=True)
class Header:
    """What an exported file says of itself."""

    path: Path
    source: PixelEncoder.Config
    """The exporting encoder's configuration."""
    cameras: int
    checksum: str


def read_header(file: str) -> Header:
    """The header of an exported file, without its tensors; WeightsError if it is none."""
    path = expanded(file)
    try:
        values = checkpoint.load_values(path)
    except UserError as error:
        raise WeightsError(f"FixedEncoder.file = {file!r}: {error}\n  {_remedy()}") from error
    missing = [name for name in ("encoder", "encoder_config", "cameras", "checksum") if name not in values]
    if missing:
        raise WeightsError(
            f"FixedEncoder.file = {file!r} is another file of rrl's, not an exported encoder: it doesn't say "
            f"{', '.join(missing)}\n  {_remedy()}"
        )
    name = values["encoder"]
    cls = registry.get(name) if name in registry.names("encoder") else None
    if cls is None or not issubclass(cls, PixelEncoder):
        raise WeightsError(
            f"FixedEncoder.file = {file!r} was exported from {name}, which is no encoder here that "
            "learns with an agent\n  install the package that it belongs to, or export again"
        )
    try:
        source = cls.Config.model_validate_json(json.dumps(values["encoder_config"]))
    except pydantic.ValidationError as error:
        said = refusals(error, cls.Config, values["encoder_config"])
        raise WeightsError(
            f"FixedEncoder.file = {file!r} was exported from a {name} of another version: {said}\n  export it again"
        ) from error
    return Header(path, source, values["cameras"], values["checksum"])


@register
class FixedEncoder(Encoder):
    """A learned encoder, frozen: the critics' code of the centre view of all cameras' stacked frames.

    Convolutions, linear layer and LayerNorm (SAC+AE: tanh too) as the run left them, without augmentation.
    """

    class Config(Encoder.Config):
        """Settings of `FixedEncoder`."""

        file: Annotated[str, InputFile(remedy=_remedy)]
        """Path of a .safetensors exported from a finished RAD, CURL or SAC+AE run, relative to the gin file. It
        decides the size of the frames, how many are stacked, and for how many cameras it is."""

        @field_validator("file")
        @classmethod
        def _is_exported(cls, file: str) -> str:
            try:
                read_header(file)
            except WeightsError as error:
                message, _, hint = str(error).partition("\n  ")
                raise mistake("file", message, hint) from error
            return file

        def frames(self) -> FrameRequest:
            """As the exporting run's; WeightsError if the file has gone since."""
            return read_header(self.file).source.frames()

        def label(self) -> str:
            """With the encoder that it was; WeightsError if the file has gone since."""
            return f"{super().label()} ({read_header(self.file).source.component.__name__})"

    config: Config

    def __init__(self, config: Config, cameras: int) -> None:
        """Raises WeightsError if the file is for another number of cameras, or damaged."""
        super().__init__(config, cameras)
        header = read_header(config.file)
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
