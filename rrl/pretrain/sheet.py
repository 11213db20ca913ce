"""The sheet of reconstructions: held-out pictures above what their features say that they showed (paper figure 11)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rrl.encoders.task import Learner
from rrl.pretrain.pretraining import KINDS
from rrl.pretrain.train import Pictures
from rrl.store import files

ACROSS = 10
"""Pairs of each kind of actions."""


def sheet(learner: Learner, pictures: Pictures, title: str, path: Path) -> None:
    """Draw pairs of each kind's held-out pictures, evenly spread over them; of those in training where none are held
    out. A PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = [(KINDS[k], held) for k, held in enumerate(pictures.held_out) if len(held)]
    kinds = kinds or [("in training", pictures.training)]
    side = pictures.input.size
    figure = Figure(figsize=(1.0 * ACROSS, 2.35 * len(kinds) + 0.5), dpi=max(side, 80), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, places) in zip(figure.subplots(len(kinds), 1, squeeze=False)[:, 0], kinds, strict=True):
        chosen = places[np.linspace(0, len(places) - 1, min(ACROSS, len(places))).round().astype(int)]
        axes.imshow(_pairs(learner, pictures, chosen), interpolation="nearest")
        axes.set_title(name, fontsize=9)
        axes.set_yticks([side / 2, 3 * side / 2], ["picture", "rebuilt"], fontsize=7)
        axes.set_xticks([])
        axes.tick_params(length=0)
    figure.suptitle(title, fontsize=9)
    with files.writing(path) as file:
        figure.savefig(file)


@torch.no_grad()
def _pairs(learner: Learner, pictures: Pictures, places: NDArray[np.int64]) -> NDArray[np.uint8]:
    """[2 * side, n * side, 3]: originals in the first row."""
    learner.eval()
    rebuilt = learner.rebuilt(pictures.batch(places)).float()
    levels = (rebuilt - pictures.shift) / pictures.scale
    below = levels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return np.concatenate([np.concatenate(list(row), axis=1) for row in (pictures.rows[places], below)])
