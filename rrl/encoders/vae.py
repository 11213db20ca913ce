"""VAE: a variational autoencoder's encoder, trained on pictures of the task itself (Kingma & Welling 2014).

The paper's task-specific encoder: architecture, loss and scale of pictures of the public code that it credits
(PyTorch-VAE's `VanillaVAE`), with 512 latent numbers.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrl.encoders.settings import vae as settings
from rrl.encoders.settings.vae import CHANNELS, HALVED
from rrl.encoders.task import Learner, TaskEncoder


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


class VAE(settings.VAE, TaskEncoder):
    """A VAE of the task's own pictures (512 features per camera), as `rrl pretrain` trains it (paper's RRL(VAE))."""

    def make_network(self) -> Network:
        return Network(self.source.input.size, self.source.features)

    def make_learner(self) -> Autoencoder:
        """On this encoder's network; new weights of the rest are drawn from the config's seed."""
        network = self.network
        assert isinstance(network, Network)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            return Autoencoder(network)
