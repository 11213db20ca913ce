"""The leaderboard as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rrl.probes.leaderboard import Row
from rrl.probes.measure import NOMINAL
from rrl.store import files

NAMES = ("leaderboard.png", "leaderboard.svg")


def draw(found: Sequence[Row], title: str, folder: Path) -> None:
    """`NAMES` in the folder: clones' scores, R^2 of each quantity, R^2 under visual changes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [row for row in found if row.cost or row.probes]
    if not shown:
        return
    quantities = list(dict.fromkeys(name for row in shown for name in row.probes.get("linear", {})))
    moving = list(dict.fromkeys(name for row in shown for name in row.probes.get("linear_change", {})))
    changes = list(dict.fromkeys(name for row in shown for name in row.drift))
    widths = [4.0, 0.55 * max(len(quantities), 1), 0.55 * max(len(moving), 1), 0.55 * max(len(changes), 1)]
    figure = Figure(figsize=(3.5 + sum(widths), 2.8 + 0.42 * len(shown)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 4, sharey=True, width_ratios=widths)
    _scores(panels[0], shown)
    task = {name for row in shown for name in row.task}
    told = {name: name if name in task else f"({name})" for name in (*quantities, *moving)}
    linear = [[row.probes.get("linear", {}).get(q) for q in quantities] for row in shown]
    _heat(panels[1], linear, [told[q] for q in quantities])
    panels[1].set_title("linear probe, R² by quantity\n(the robot's own: not in the table's mean)", fontsize=9)
    _heat(
        panels[2],
        [[row.probes.get("linear_change", {}).get(q) for q in moving] for row in shown],
        [told[q] for q in moving],
    )
    panels[2].set_title("of its change,\nfrom two pictures", fontsize=9)
    named = [change if change != NOMINAL else "nominal" for change in changes]
    _heat(panels[3], [[row.changed(change) for change in changes] for row in shown], named)
    panels[3].set_title("mean R² of other states\nunder visual changes", fontsize=9)
    panels[0].set_yticks(range(len(shown)), [_name(row) for row in shown])
    panels[0].set_ylim(len(shown) - 0.5, -0.5)  # the best one on top
    figure.suptitle(title, fontsize=11)
    for name in NAMES:
        with files.writing(folder / name) as file:
            figure.savefig(file, format=name.rpartition(".")[2])


def _name(row: Row) -> str:
    return row.entrant.label + (" (control)" if row.entrant.role == "control" else "")


def _scores(axes: Any, shown: Sequence[Row]) -> None:
    counted = True
    for kind, colour, shift in (("mean", "tab:blue", -0.12), ("sampled", "tab:orange", 0.12)):
        places = [(y, row.outcomes[kind]) for y, row in enumerate(shown) if kind in row.outcomes]
        for y, outcome in places:
            low, high = outcome.interval
            counted = outcome.score.counted
            axes.plot([low, high], [y + shift] * 2, color=colour, linewidth=2, alpha=0.5)
            axes.plot(outcome.mean, y + shift, "o", color=colour)
        if places:
            count = len(places[0][1].values)
            axes.plot([], [], "o", color=colour, label=f"{kind} action (n {count})")
            axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False)
    axes.set_title("clones: success (%), 95 %" if counted else "clones: return", fontsize=9)
    if counted:
        axes.set_xlim(-3, 103)
    axes.grid(alpha=0.3)


def _heat(axes: Any, values: Sequence[Sequence[float | None]], names: Sequence[str]) -> None:
    if not names:
        axes.set_visible(False)
        return
    array = np.array([[np.nan if value is None else value for value in row] for row in values], float)
    axes.set_facecolor("0.93")  # where nothing is measured
    axes.imshow(np.clip(array, 0, 1), cmap="YlGn", vmin=0, vmax=1.3, aspect="auto")
    for (y, x), value in np.ndenumerate(array):
        if np.isfinite(value):
            axes.text(x, y, f"{value:.2f}" if value > -9.95 else "<-9.9", ha="center", va="center", fontsize=7)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
