"""VAE: a variational autoencoder's encoder, trained on pictures of the task itself (Kingma & Welling 2014).

The paper's task-specific encoder: architecture, loss and scale of pictures of the public code that it credits
(PyTorch-VAE's `VanillaVAE`), with 512 latent numbers.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from rrl.encoders.input import Input
from rrl.encoders.task import Learner, TaskEncoder
from rrl.encoders.weights import Pretrained
from rrl.registry import Width, register

CHANNELS = (32, 64, 128, 256, 512)
HALVED = 2 ** len(CHANNELS)
"""Each convolution halves the side of the picture."""


def normed(convolution: nn.Module, channels: int) -> nn.Sequential:
    """A convolution, batch norm, LeakyReLU (slope 0.01)."""
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.LeakyReLU(0.01))


class Network(nn.Module):
    """[N, 3, size, size] -> the mean of the latent's distribution, [N, latent]."""

    def __init__(self, size: int, latent: int) -> None:
        super().__init__()
        sides = pairwise((3, *CHANNELS))
        self.layers = nn.Sequential(*(normed(nn.Conv2d(a, b, 3, stride=2, padding=1), b) for a, b in sides))
        self.mean = nn.Linear(CHANNELS[-1] * (size // HALVED) ** 2, latent)

    def forward(self, pictures: Tensor) -> Tensor:
        mean: Tensor = self.mean(self.layers(pictures).flatten(1))
        return mean


class Autoencoder(Learner):
    """The network with the spread of its latent, and the way back to a picture."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        wide, latent = network.mean.in_features, network.mean.out_features
        self.log_variance = nn.Linear(wide, latent)
        self.widen = nn.Linear(latent, wide)
        back = (*reversed(CHANNELS), CHANNELS[0])
        self.layers = nn.Sequential(
            *(normed(nn.ConvTranspose2d(a, b, 3, 2, padding=1, output_padding=1), b) for a, b in pairwise(back)),
            nn.Conv2d(CHANNELS[0], 3, 3, padding=1),
            nn.Tanh(),
        )

    def decode(self, latent: Tensor) -> Tensor:
        """[N, latent] -> pictures [N, 3, size, size] in [-1, 1]."""
        wide = self.widen(latent)
        side = int((wide.shape[1] // CHANNELS[-1]) ** 0.5)
        pictures: Tensor = self.layers(wide.view(-1, CHANNELS[-1], side, side))
        return pictures

    def losses(self, pictures: Tensor, weight: float, generator: torch.Generator | None) -> dict[str, Tensor]:
        """The mean squared error over all numbers of all pictures, and `weight` times the divergence of the latent's
        distribution from the standard normal one: summed over the latent, mean over the pictures."""
        seen = self.network.layers(pictures).flatten(1)
        mean, log_variance = self.network.mean(seen).float(), self.log_variance(seen).float()
        latent = mean
        if generator is not None:
            noise = torch.empty_like(mean).normal_(generator=generator)
            latent = mean + noise * (0.5 * log_variance).exp()
        reconstruction = F.mse_loss(self.decode(latent).float(), pictures)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return {"loss": reconstruction + weight * kl, "reconstruction": reconstruction, "kl": kl}

    def rebuilt(self, pictures: Tensor) -> Tensor:
        return self.decode(self.network(pictures))


@register
class VAE(TaskEncoder):
    """A VAE of the task's own pictures (512 features per camera), as `rrl pretrain` trains it (paper's RRL(VAE))."""

    pretrained = (Pretrained("vae", 512, Input(64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))),)
    defaults = {"latent": 512, "size": 64}  # noqa: RUF012

    class Config(TaskEncoder.Config):
        """Settings of `VAE`."""

        latent: Width | None = None
        """Numbers of the latent, of which the means are the features. None: as in the file of `weights`; where there is
        none, 512 (paper section 5; the credited code's own default is 128)."""
        size: Annotated[int, Field(ge=HALVED, le=512, multiple_of=HALVED)] | None = None
        """Side of the pictures in pixels, which show the whole view. None: as in the file of `weights`; where there is
        none, 64 (the credited code's; the paper's is not known)."""

        @property
        def source(self) -> Pretrained:
            known, decided = super().source, self.decided
            picture = replace(known.input, size=decided["size"])
            return replace(known, features=decided["latent"], input=picture)

    def make_network(self) -> Network:
        return Network(self.source.input.size, self.source.features)

    def make_learner(self) -> Autoencoder:
        """On this encoder's network; new weights of the rest are drawn from the config's seed."""
        network = self.network
        assert isinstance(network, Network)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            return Autoencoder(network)
