"""Settings of encoders that `rrl pretrain` trains, and what their files say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pydantic
from pydantic import Field, field_validator, model_validator

from rrl.config import ginfile
from rrl.config.refusals import refusals
from rrl.encoders.pretrained import WeightsError
from rrl.encoders.settings.frozen import FrozenEncoder
from rrl.machine.paths import expanded
from rrl.registry import Component, InputFile, UserError, mistake
from rrl.store import checkpoint, schema

WRITTEN = ("encoder", "settings", "data", "training")
"""What the header of an encoder's file says."""


@dataclass(frozen=True)
class Header:
    """What an encoder's file says of itself."""

    settings: Mapping[str, Any]
    """Of the encoder's Config: what decides its network."""
    data: Mapping[str, Any]
    """The pictures: `env` (the environment's facts), `pictures`, `mixture`, `noise`, `policy`, `seed`, ..."""
    training: Mapping[str, Any]
    """`epochs`, losses, the version that trained it, ..."""

    @property
    def task(self) -> str:
        """Such as `adroit_door`."""
        return str(self.data["env"]["env"])


class _Facts(pydantic.BaseModel):
    """Of the environment; others stand there too, for comparison."""

    env: str


class _Data(pydantic.BaseModel):
    """What is asked of the pictures."""

    env: _Facts


class _Training(pydantic.BaseModel):
    """What is asked of the training, in versions that count what it cost."""

    seconds: Annotated[float, Field(ge=0)] = 0.0
    multiply_adds: Annotated[float, Field(ge=0)] = 0.0


class _Values(pydantic.BaseModel):
    """What is asked of a header; more stands there for people."""

    model_config = pydantic.ConfigDict(strict=True, allow_inf_nan=False)

    settings: dict[str, Any]
    data: _Data
    training: _Training


def remedy() -> str:
    """What to do where there is no such file."""
    files = ", ".join(name for name in ginfile.shipped() if name.startswith("pretrain/"))
    return f"make it: rrl pretrain FILE (shipped: {files}); None: untrained"


class TaskEncoder(FrozenEncoder):
    """Base of encoders that `rrl pretrain` trains."""

    implemented_in = "rrl.encoders.task"
    defaults: ClassVar[Mapping[str, Any]]
    """Settings that decide the network, by name; in the Config they are None where the file of `weights` decides."""

    class Config(FrozenEncoder.Config):
        """Settings shared by encoders that `rrl pretrain` trains."""

        weights: Annotated[str | None, InputFile(remedy=remedy)]
        """Path of the .safetensors that `rrl pretrain` wrote, relative to the gin file, or None: explicitly
        untrained (also where it is to be trained)."""

        @field_validator("weights")
        @classmethod
        def _is_pretrained(cls, weights: str | None) -> str | None:
            if weights is not None:
                try:
                    read_header(weights, cls.component)
                except WeightsError as error:
                    message, _, hint = str(error).partition("\n  ")
                    raise mistake("weights", message, hint) from error
            return weights

        @model_validator(mode="after")
        def _as_the_file_says(self) -> TaskEncoder.Config:
            held = self.header.settings if self.header else {}
            for name, value in held.items():
                own, label = getattr(self, name), f"{self.component.__name__}.{name}"
                if own not in (None, value):
                    message = f"{label} is {own}, but the network in {self.weights} has {value}"
                    raise mistake(name, message, f"leave {label} out: the file decides; or name another file")
            return self

        @property
        def header(self) -> Header | None:
            """Of the file in `weights`; None: untrained. WeightsError if the file has gone since."""
            return None if self.weights is None else read_header(self.weights, self.component)

        @property
        def decided(self) -> dict[str, Any]:
            """The settings that decide the network, none of them None."""
            assert issubclass(self.component, TaskEncoder)
            own = {name: getattr(self, name) for name in self.component.defaults}
            given = {name: value for name, value in own.items() if value is not None}
            return {**self.component.defaults, **(self.header.settings if self.header else {}), **given}

        def label(self) -> str:
            """With the task whose pictures it was trained on."""
            return super().label() + (f" (of {self.header.task})" if self.header else "")


def read_header(file: str, component: type[Component]) -> Header:
    """The header of a file that holds this kind of encoder; WeightsError if it is none."""
    encoder = component.__name__
    try:
        values = checkpoint.load_values(expanded(file))
    except UserError as error:
        raise WeightsError(f"{encoder}.weights = {file!r}: {error}\n  {remedy()}") from error
    if missing := [name for name in WRITTEN if name not in values]:
        raise WeightsError(
            f"{encoder}.weights = {file!r} is another file of rrl's, not a pretrained encoder: it doesn't say "
            f"{', '.join(missing)}\n  {remedy()}"
        )
    if values["encoder"] != encoder:
        raise WeightsError(
            f"{encoder}.weights = {file!r} holds a {values['encoder']}\n  take @{values['encoder']}(), or another file"
        )
    if found := schema.misfit(_Values, values):
        raise WeightsError(f"{encoder}.weights = {file!r} has a damaged header: {found}\n  {remedy()}")
    settings, data = values["settings"], values["data"]
    try:
        component.Config.model_validate({**settings, "weights": None})
        wrong = next((f"{encoder}.{name} = None" for name, value in settings.items() if value is None), "")
    except pydantic.ValidationError as error:
        wrong = refusals(error, component.Config, settings)
    if wrong:
        raise WeightsError(
            f"{encoder}.weights = {file!r} holds a {encoder} that this version can't make: {wrong}\n  {remedy()}"
        )
    return Header(settings, data, values["training"])
