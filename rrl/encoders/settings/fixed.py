"""Settings of FixedEncoder, and what an exported file says of itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pydantic
from pydantic import field_validator

from rrl import registry
from rrl.config.refusals import refusals
from rrl.encoders.pretrained import WeightsError
from rrl.encoders.settings.base import Encoder
from rrl.encoders.settings.pixel import PixelEncoder
from rrl.envs.base import FrameRequest
from rrl.machine.paths import expanded
from rrl.registry import InputFile, UserError, mistake, register
from rrl.store import checkpoint


def _remedy() -> str:
    agents = registry.proposals("agent", trains_encoder=True)
    return f"make it from a finished run of {agents}: rrl export RUN --encoder FILE"


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
    if not isinstance(values["cameras"], int) or not isinstance(values["checksum"], str):
        raise WeightsError(f"FixedEncoder.file = {file!r} has a damaged header\n  {_remedy()}")
    return Header(path, source, values["cameras"], values["checksum"])


@register
class FixedEncoder(Encoder):
    """A learned encoder, frozen: the critics' code of the centre view of all cameras' stacked frames.

    Convolutions, linear layer and LayerNorm (SAC+AE: tanh too) as the run left them, without augmentation.
    """

    implemented_in = "rrl.encoders.fixed"

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
