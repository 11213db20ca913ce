"""What agents on frozen encoders share: features and state, a row for each observation."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rrl.agents.base import Agent
from rrl.encoders.base import Encoder, Inference
from rrl.registry import Component, UserError
from rrl.rollout.data import Obs

SHIFT = 4 / 84
"""Largest shift of a view, of a picture's side (DrQ: 4 of 84 pixels)."""


class Features:
    """[features, state] of a batch of observations. No module: the encoder is no part of an agent or its files."""

    def __init__(self, encoder: Encoder, inference: Inference, agent: str, views: int = 1) -> None:
        """Of each picture the features of so many `views`: as it is, then under random shifts. UserError if the encoder
        isn't frozen: `agent`, a name for it, couldn't train it."""
        if encoder.learns:
            raise UserError(
                f"{agent} can't train {type(encoder).__name__}, whose parameters take gradients: take a frozen encoder "
                "(one of your own: call `self.requires_grad_(False)` at the end of its __init__)"
            )
        self.dim, self.views = encoder.dim, views
        self._name, self._how = encoder.feature_name, f"{inference.precision} by {inference.backend}"
        self._encode = encoder.inference(inference)

    @torch.no_grad()
    def __call__(self, obs: Obs) -> NDArray[np.float32]:
        """float32 [N, views * dim + p]; the state alone if the encoder gives no features. ValueError without frames."""
        if self.dim == 0:
            return np.array(obs.state, np.float32)
        if obs.frames is None:
            raise ValueError("the encoder needs frames, but the environment rendered none")
        features = [
            self._encode(torch.as_tensor(shifted(obs.frames, view) if view else obs.frames)).cpu().numpy()
            for view in range(self.views)
        ]
        return np.concatenate((*features, obs.state), axis=1, dtype=np.float32)

    def column(self, i: int) -> str:
        """What stands at place i of a row, for errors: a state is checked before."""
        return f"{self._name(i % self.dim)} ({self._how})"


def shifted(frames: NDArray[np.uint8], view: int) -> NDArray[np.uint8]:
    """Pictures [N, H, W, C], each shifted by up to `SHIFT` of its sides both ways, its edge repeated. Drawn from the
    picture itself and the view's number, so that whoever sees it again sees the same."""
    height, width = frames.shape[1:3]
    most = round(SHIFT * height), round(SHIFT * width)
    views = np.empty_like(frames)
    for i, frame in enumerate(frames):
        down, right = np.random.default_rng((zlib.crc32(frame.tobytes()), view)).integers(
            [-most[0], -most[1]], [most[0] + 1, most[1] + 1]
        )
        rows = np.arange(height) + down
        views[i] = frame[rows.clip(0, height - 1)][:, (np.arange(width) + right).clip(0, width - 1)]
    return views


class FrozenAgent(Agent):
    """Base of agents that see features and state: `observe` is done, `act` gets its rows.

    A subclass's `__init__` calls this one, draws its networks' weights from `self.generator` (torch's own
    initialisation ignores the run's seed), moves them by `self.to(self.device)`, and then puts `rrl.agents.adam.Adam`s
    into `self.optimisers`: whatever is in there, in parameters and buffers, and `self.updates` (to be counted in
    `update`) is in checkpoints. Environments clip actions to [-1, 1].
    """

    obs_dim: int
    """Length of a row."""

    def __init__(self, config: Component.Config, *, encoder: Encoder, state_dim: int, **context: Any) -> None:
        """`context` is what every agent takes beside them: action_dim, seed, inference, slots."""
        super().__init__(config, encoder=encoder, state_dim=state_dim, **context)
        self.features = Features(encoder, context["inference"], type(self).__name__)
        self.obs_dim = self.features.dim + state_dim

    def observe(self, obs: Obs) -> NDArray[np.float32]:
        """[features, state] of a batch, float32 [N, n]; the state alone if the encoder gives no features."""
        return self.features(obs)

    def column(self, i: int) -> str:
        """Which feature, encoded how."""
        return self.features.column(i)
