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
APART = 10
"""Held-out pictures from one pair to the next, at least: neighbours look the same."""


def sheet(learner: Learner, pictures: Pictures, title: str, path: Path) -> None:
    """Draw pairs of each kind of actions (`rows`). A PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = rows(pictures)
    side = pictures.input.size
    figure = Figure(figsize=(1.0 * ACROSS, 2.35 * len(kinds) + 0.5), dpi=max(side, 80), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, chosen) in zip(figure.subplots(len(kinds), 1, squeeze=False)[:, 0], kinds, strict=True):
        axes.imshow(_pairs(learner, pictures, chosen), interpolation="nearest")
        axes.set_title(name, fontsize=9)
        axes.set_yticks([side / 2, 3 * side / 2], ["picture", "rebuilt"], fontsize=7)
        axes.set_xticks([])
        axes.tick_params(length=0)
    figure.suptitle(title, fontsize=9)
    with files.writing(path) as file:
        figure.savefig(file)


def rows(pictures: Pictures) -> list[tuple[str, NDArray[np.int64]]]:
    """(title, places of the pictures) of each row of the sheet: evenly spread over a kind's held-out pictures; where
    these are few, which are then neighbours in one episode, over all of the kind, and it is told so."""
    found = []
    for name, held, whole in zip(KINDS, pictures.held_out, pictures.kinds, strict=True):
        few = len(held) < ACROSS * APART
        places = whole if few else held
        chosen = places[np.linspace(0, len(places) - 1, min(ACROSS, len(places))).round().astype(int)]
        found.append((f"{name} (trained on, but for {len(held)})" if few else name, chosen))
    return [row for row in found if len(row[1])]


@torch.no_grad()
def _pairs(learner: Learner, pictures: Pictures, places: NDArray[np.int64]) -> NDArray[np.uint8]:
    """[2 * side, n * side, 3]: originals in the first row."""
    learner.eval()
    rebuilt = learner.rebuilt(pictures.batch(places)).float()
    levels = (rebuilt - pictures.shift) / pictures.scale
    below = levels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return np.concatenate([np.concatenate(list(row), axis=1) for row in (pictures.rows[places], below)])
