"""Encoders that are trained on pictures of a task before anything acts: `rrl pretrain` makes their weights.

What is trained is a `Learner`: the encoder's network and what only its loss needs. What comes of it is a file with the
network's tensors and, in its header, the data set's facts.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pydantic
import torch
from pydantic import field_validator, model_validator
from torch import Tensor, nn

from rrl.config import ginfile
from rrl.config.resolve import refusals
from rrl.encoders.base import Mismatch
from rrl.encoders.frozen import FrozenEncoder
from rrl.encoders.weights import WeightsError, checksum
from rrl.envs.base import EnvFactory
from rrl.machine.paths import expanded
from rrl.registry import Component, InputFile, UserError, mistake
from rrl.store import checkpoint

WRITTEN = ("encoder", "settings", "data", "training")
"""What the header of an encoder's file says."""
COST = ("seconds", "multiply_adds")
"""What its `training` says of what that took."""


class Learner(nn.Module, abc.ABC):
    """An encoder's network while it is trained without a task, to rebuild pictures from their features."""

    @abc.abstractmethod
    def losses(self, pictures: Tensor, weight: float, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Scalars of normalised pictures, float32 [N, 3, size, size]; `loss` is minimised, `reconstruction` is the mean
        squared error. `weight` is that of whatever keeps the features in order; the generator draws what is random,
        None: nothing is."""

    @abc.abstractmethod
    def rebuilt(self, pictures: Tensor) -> Tensor:
        """What the features of these normalised pictures say that they showed; of the same shape."""


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


def remedy() -> str:
    """What to do where there is no such file."""
    files = ", ".join(name for name in ginfile.shipped() if name.startswith("pretrain/"))
    return f"make it: rrl pretrain FILE (shipped: {files}); None: untrained"


class TaskEncoder(FrozenEncoder):
    """Base of encoders that `rrl pretrain` trains. A subclass has `pretrained` and `make_network` as every frozen
    encoder, `defaults` of the settings that decide the network, and `make_learner`."""

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

    config: Config

    @abc.abstractmethod
    def make_learner(self) -> Learner:
        """What is to be trained: on this very encoder's network."""

    def load_network(self, file: Path) -> nn.Module:
        """As every frozen encoder's. WeightsError if the tensors aren't those that the header was written for, which
        tells what they were trained on."""
        network = super().load_network(file)
        stated, found = checkpoint.load_values(file).get("checksum"), checksum(network.state_dict())
        if stated is not None and stated != found:
            raise WeightsError(
                f"{file} was changed after its training: its tensors have the checksum {found}, its header says "
                f"{stated}\n  {remedy()}"
            )
        return network

    def facts(self) -> dict[str, str]:
        """With the task that it was trained on."""
        header = self.config.header
        return super().facts() | ({"task": header.task} if header else {})

    def training_cost(self) -> Mapping[str, float]:
        """As the file says it; earlier versions wrote none."""
        training = self.config.header.training if self.config.header else {}
        return {name: float(training[name]) for name in COST if name in training}

    def mismatches(self, env: EnvFactory) -> Iterator[Mismatch]:
        """Another task, look or cameras than in the pictures that it was trained on."""
        header, here = self.config.header, env.facts()
        if header is None:
            return
        if header.task != env.name:
            yield Mismatch(f"the encoder was trained on pictures of {header.task}, this is {env.name}", True)
        for name in ("protocol", "look", "cameras"):
            then, now = str(header.data["env"].get(name, "")), here.get(name, "")
            if then != now and header.task == env.name:
                yield Mismatch(f"the encoder was trained on pictures with {name} {then}, here it is {now}", False)


def save_encoder(path: Path, encoder: TaskEncoder, data: Mapping[str, Any], training: Mapping[str, Any]) -> None:
    """Write the file that `weights` takes."""
    values = {"encoder": type(encoder).__name__, "settings": encoder.config.decided, "data": data}
    tensors = encoder.network.state_dict()
    checkpoint.save_file(path, tensors, {**values, "training": training, "checksum": checksum(tensors)})


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
    settings, data = values["settings"], values["data"]
    env = data.get("env") if isinstance(data, dict) else None
    if not isinstance(settings, dict) or not isinstance(env, dict) or not isinstance(env.get("env"), str):
        raise WeightsError(f"{encoder}.weights = {file!r} has a damaged header\n  {remedy()}")
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
