"""Encoders that are trained on pictures of a task before anything acts: `rrl pretrain` makes their weights.

What is trained is a `Learner`: the encoder's network and what only its loss needs. What comes of it is a file with the
network's tensors and, in its header, the data set's facts.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rrl.encoders.base import Mismatch
from rrl.encoders.frozen import FrozenEncoder
from rrl.encoders.settings import task as settings
from rrl.encoders.weights import WeightsError, checksum
from rrl.envs.base import EnvFactory
from rrl.store import checkpoint

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


class TaskEncoder(settings.TaskEncoder, FrozenEncoder):
    """Base of encoders that `rrl pretrain` trains. A subclass has `pretrained` and `make_network` as every frozen
    encoder, `defaults` of the settings that decide the network, and `make_learner`."""

    config: settings.TaskEncoder.Config

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
                f"{stated}\n  {settings.remedy()}"
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
