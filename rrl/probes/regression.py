"""Linear and nonlinear probes: how well numbers follow from features, on episodes that the probe was not fitted to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from rrl.agents.adam import Adam
from rrl.agents.networks import mlp
from rrl.agents.npg import one_thread
from rrl.registry import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
PENALTIES = np.logspace(-7, 2, 19)
"""What ridge regression chooses from, per sample."""
FLOOR = 1e-3
"""Lower bound of the features' scales, as a fraction of their mean: as in cloning, a feature that hardly varies would
blow up where it does."""
EPOCHS, PATIENCE, BATCH = 100, 10, 64
"""Of the nonlinear probe: passes over the samples at most, passes without a better validation before it ends, and
samples in a batch."""


class Model(Protocol):
    """A fitted probe."""

    def __call__(self, x: Floats) -> Floats:
        """Features [N, d] -> predictions [N, q]."""


Fit = Callable[[Floats, Floats, NDArray[np.bool_]], Model]
"""From features [N, d], targets [N, q], and which rows [N] choose the settings instead of being fitted to."""


def folds(episodes: int, count: int, rng: np.random.Generator) -> Ints:
    """[episodes]: the fold of each, from 0; folds differ by one episode at most."""
    return rng.permutation(np.arange(episodes) % count)


def fitted(x: Floats, y: Floats, episode: Ints, fold: Ints, fit: Fit) -> list[Model]:
    """A model for each fold, fitted to the episodes of the others. A quarter of these (one at least) chooses its
    settings. `x` [N, d], `y` [N, q], `episode` [N], `fold` [episodes]. UserError where too few rows are left."""
    models = []
    for k in range(fold.max() + 1):
        others = np.flatnonzero(fold != k)
        choosing = np.isin(episode, others[:: min(4, len(others))])
        inside = np.isin(episode, others)
        if min(choosing.sum(), (inside & ~choosing).sum()) < 2:
            raise UserError("too few states to fit a probe to: set more `Probe.states`, or take more demonstrations")
        models.append(fit(x[inside], y[inside], choosing[inside]))
    return models


def held_out(models: Sequence[Model], x: Floats, fold_of_row: Ints) -> Floats:
    """[N, q]: each row [N, d] as predicted by the model of its fold, which has not seen its episode."""
    parts = [(np.flatnonzero(fold_of_row == k), model) for k, model in enumerate(models)]
    predicted = [(rows, model(x[rows])) for rows, model in parts if len(rows)]
    out = np.empty((len(x), predicted[0][1].shape[1]))
    for rows, values in predicted:
        out[rows] = values
    return out


def explained(y: Floats, predicted: Floats) -> float:
    """R^2 of a quantity [N, q] in one unit: 1 - squared error / squared distance from the mean, both summed."""
    return float(1.0 - np.square(y - predicted).sum() / np.square(y - y.mean(0)).sum())


class _Scaled:
    """Shift and scale of features, from the rows that a probe is fitted to."""

    def __init__(self, x: Floats) -> None:
        self.mean, scale = x.mean(0), x.std(0)
        self.scale = np.maximum(scale, max(FLOOR * scale.mean(), 1e-12))

    def __call__(self, x: Floats) -> Floats:
        scaled: Floats = (x - self.mean) / self.scale
        return scaled


class Ridge:
    """Linear regression with an L2 penalty, chosen for each target by itself."""

    def __init__(self, x: Floats, y: Floats, choosing: NDArray[np.bool_]) -> None:
        """As `Fit` says."""
        trial, seen, wanted = _Normal(x[~choosing], y[~choosing]), x[choosing], y[choosing]
        errors = [np.square(trial.applied(seen, trial.weights(c)) - wanted).sum(0) for c in PENALTIES]
        self.penalties: Floats = PENALTIES[np.argmin(errors, axis=0)]
        """[q], per sample."""
        self._normal = _Normal(x, y)
        self._weights = np.empty((x.shape[1], y.shape[1]))
        for penalty in np.unique(self.penalties):
            alike = self.penalties == penalty
            self._weights[:, alike] = self._normal.weights(penalty)[:, alike]

    def __call__(self, x: Floats) -> Floats:
        return self._normal.applied(x, self._weights)


class _Normal:
    """A regression's normal equations, by the smaller one of Z'Z and ZZ', Z the scaled features [N, d]. By torch: of
    numpy's threads none gives way to another process."""

    def __init__(self, x: Floats, y: Floats) -> None:
        self._scaled, self._mean = _Scaled(x), y.mean(0)
        z, t = torch.from_numpy(self._scaled(x)), torch.from_numpy(y - self._mean)
        self._back = z.T if z.shape[1] > z.shape[0] else None
        self._square = z.T @ z if self._back is None else z @ z.T
        self._right, self._count = (z.T @ t if self._back is None else t), len(x)

    def weights(self, penalty: float) -> Floats:
        """[d, q], for a penalty per sample."""
        penalised = self._square.clone()
        penalised.diagonal().add_(penalty * self._count)
        found = torch.cholesky_solve(self._right, torch.linalg.cholesky(penalised))
        return (found if self._back is None else self._back @ found).numpy()

    def applied(self, x: Floats, weights: Floats) -> Floats:
        """Features [N, d] -> predictions [N, q]."""
        product = torch.from_numpy(self._scaled(x)) @ torch.from_numpy(weights)
        predicted: Floats = product.numpy() + self._mean
        return predicted


class Perceptron:
    """A network of ReLU layers on the squared error of scaled targets; validation says when to stop."""

    def __init__(self, hidden: Sequence[int], seed: int, x: Floats, y: Floats, choosing: NDArray[np.bool_]) -> None:
        """As `Fit` says."""
        generator = torch.Generator().manual_seed(seed)
        self._scaled, self._mean = _Scaled(x[~choosing]), y[~choosing].mean(0)
        self._scale = np.maximum(y[~choosing].std(0), 1e-12)
        self._network = mlp((x.shape[1], *hidden, y.shape[1]), nn.ReLU, generator)
        z = torch.from_numpy(self._scaled(x)).float()
        t = torch.from_numpy((y - self._mean) / self._scale).float()
        judging = torch.from_numpy(choosing)
        with one_thread():
            self._learn(z[~judging], t[~judging], z[judging], t[judging], generator)

    def _learn(self, x: Tensor, y: Tensor, x_judging: Tensor, y_judging: Tensor, generator: torch.Generator) -> None:
        optimiser = Adam(self._network.parameters(), 1e-3)
        best, kept, waited = float("inf"), {}, 0
        for _ in range(EPOCHS):
            for rows in torch.split(torch.randperm(len(x), generator=generator), BATCH):
                loss = mse_loss(self._network(x[rows]), y[rows])
                optimiser.step(torch.autograd.grad(loss, optimiser.parameters))
            with torch.no_grad():
                error = mse_loss(self._network(x_judging), y_judging).item()
            waited += 1
            if error < best:
                best, waited = error, 0
                kept = {name: tensor.clone() for name, tensor in self._network.state_dict().items()}
            if waited >= PATIENCE:
                break
        self._network.load_state_dict(kept)

    @torch.no_grad()
    def __call__(self, x: Floats) -> Floats:
        out = self._network(torch.from_numpy(self._scaled(x)).float()).double().numpy()
        return out * self._scale + self._mean  # type: ignore[no-any-return]
